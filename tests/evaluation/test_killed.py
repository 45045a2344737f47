"""A run of the command line that is killed, and goes on."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from recordings import spoken, write_corpus
from vqcodec_cli.main import main

from vqcodec.evaluation import comparison

# At the second of two recordings it kills its process group, which is all of the run.
KILLER = (
    "copy=if [ -e first ] && ! [ -e killed ]; then touch killed; kill -KILL 0; fi; "
    "touch first; cp {input} {output}"
)


def test_a_run_that_was_killed_goes_on_to_the_same_report(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clips = {  # of lengths of which DNSMOS hears one window
        "a": ("anna", spoken("rms", 0.0, 1.3), "test", "a quick recording"),
        "b": ("ben", spoken("slt", 0.0, 1.15)),
    }
    corpus = write_corpus(tmp_path / "corpus", clips)
    codecs = ["--baselines", "", "--baseline", KILLER]
    options = ["--model", tiny_model, "--recognizer", "pocketsphinx", "--jobs", "1", *codecs]
    command = [str(word) for word in ("eval", corpus, *options, "-o")]
    killed = subprocess.run(
        [sys.executable, "-m", "vqcodec", *command, "resumed"],
        cwd=tmp_path,
        capture_output=True,
        check=False,
        start_new_session=True,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    measured = {path: path.stat().st_mtime_ns for path in tmp_path.glob("resumed/cache/*.json")}
    assert len(measured) == 3 + 2  # of six
    assert not (tmp_path / "resumed" / "quality.md").exists()

    def map_in_this_process(function: Any, tasks: list[Any], **_: Any) -> list[Any]:
        return [function(task) for task in tasks]

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(comparison, "map_in_processes", map_in_this_process)
    assert main([*command, "resumed"]) == main([*command, "whole"]) == 0
    assert all(path.stat().st_mtime_ns == time for path, time in measured.items())

    def files(output: str) -> dict[Path, bytes]:
        folder = tmp_path / output
        paths = [path for path in folder.rglob("*") if path.is_file()]
        return {path.relative_to(folder): path.read_bytes() for path in paths}

    whole = files("whole")
    assert len(whole) == 6 + 2 * 6 + 4
    assert files("resumed") == whole
