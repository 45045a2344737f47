"""What is killed again and again ends as what was not; and the benchmark in small."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from command_line import Run
from scale_data import audio_folder, digest_of


def test_kills_change_nothing(packaged: Path, tmp_path: Path) -> None:
    source = audio_folder(tmp_path / "in")
    words = ["encode-dataset", str(source), "--part-size", "2", "--jobs", "1", "--quiet"]

    def started(name: str) -> subprocess.Popen[bytes]:
        sink = ["-o", str(tmp_path / name), "--model", str(packaged)]
        command = [sys.executable, "-m", "vqcodec", *words, *sink]
        return subprocess.Popen(command, start_new_session=True)

    assert started("whole").wait() == 0
    parts = tmp_path / "killed" / "vqcodec" / "parts"
    for n_done in (1, 2, 3):
        process = started("killed")
        while len(list(parts.glob("*.json"))) < n_done:
            assert process.poll() is None
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert started("killed").wait() == 0
    assert digest_of(tmp_path / "killed") == digest_of(tmp_path / "whole")


def test_the_throughput_is_measured(run_script: Run, tmp_path: Path) -> None:
    sizes = ["--recordings", "8", "--part-size", "2", "--jobs", "1"]
    done = run_script("benchmarks/encode_dataset.py", *sizes, "-o", tmp_path)
    assert done.status == 0, done.stderr
    assert "| encode-dataset, one process | 1 |" in done.stdout
