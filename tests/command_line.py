"""The command line as a user calls it: what the tests of its commands share."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import soundfile
from recordings import write
from vqcodec_cli.main import main

ROOT = Path(__file__).parents[1]


def needs(program: str) -> pytest.MarkDecorator:
    """Skips a test where a program that it is about is not installed."""
    return pytest.mark.skipif(shutil.which(program) is None, reason=f"{program} is not installed")


def run_benchmark(name: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Runs a script of benchmarks/ in a process of its own."""
    return subprocess.run(
        [sys.executable, ROOT / "benchmarks" / name, *arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])},
        capture_output=True,
        text=True,
        check=False,
    )


class Stream(io.BytesIO):
    name = "<stdin>"


class Result(NamedTuple):
    status: int
    stdout: str
    stderr: str
    data: bytes


Run = Callable[..., Result]


@pytest.fixture
def run(capsysbinary, monkeypatch) -> Run:
    """Runs a command line in this process."""

    def run(*arguments: str | Path, stdin: bytes = b"") -> Result:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(Stream(stdin)))
        capsysbinary.readouterr()
        status = main([str(argument) for argument in arguments])
        stdout, stderr = capsysbinary.readouterr()
        return Result(status, stdout.decode(errors="replace"), stderr.decode(), stdout)

    return run


@pytest.fixture
def clip(speech, tmp_path) -> Path:
    """Half a second of speech."""
    samples, sample_rate = soundfile.read(speech, start=4800, frames=8000, dtype="int16")
    return write(tmp_path / "clip.wav", samples, sample_rate)


@pytest.fixture
def codes(run, clip, tiny_model, tmp_path) -> Path:
    path = tmp_path / "clip.codes"
    assert run("encode", clip, path, "--model", tiny_model).status == 0
    return path


@pytest.fixture
def folder(clip, tmp_path) -> Path:
    """Two recordings and one that is none."""
    root = tmp_path / "in"
    root.mkdir()
    (root / "a.wav").write_bytes(clip.read_bytes())
    (root / "b.wav").write_bytes(b"no audio")
    write(root / "deep" / "c.FLAC", *soundfile.read(clip, dtype="int16"))
    (root / "notes.txt").write_text("no recording")
    (root / "._a.wav").write_bytes(b"what an archive leaves")
    return root


def process(*arguments: str | Path, **options) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "vqcodec", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, check=False, **options)


def is_one_line(result: Result) -> bool:
    return result.stderr.startswith("vqcodec: ") and result.stderr.count("\n") == 1
