"""What is killed again and again ends as what was not, by the benchmark in small."""

from __future__ import annotations

from pathlib import Path

from command_line import Run


def test_kills_change_nothing(run_script: Run, tmp_path: Path) -> None:
    sizes = ["--recordings", "8", "--part-size", "2", "--jobs", "1", "--kills", "3"]
    done = run_script("benchmarks/encode_dataset.py", *sizes, "-o", tmp_path)
    assert done.status == 0, done.stderr
    assert "kills of 3 met it at work; all 10 files are the same" in done.stdout
