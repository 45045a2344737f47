"""The command line as a user calls it: what the tests of its commands share."""

from __future__ import annotations

import io
import runpy
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import soundfile
from recordings import spoken, write
from vqcodec_cli.main import main

ROOT = Path(__file__).parents[1]


def needs(program: str) -> pytest.MarkDecorator:
    """Skips a test where a program that it is about is not installed."""
    return pytest.mark.skipif(shutil.which(program) is None, reason=f"{program} is not installed")


class Stream(io.BytesIO):
    name = "<stdin>"


class Result(NamedTuple):
    status: int
    stdout: str
    stderr: str
    data: bytes


Run = Callable[..., Result]


@pytest.fixture
def run_script(capsysbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a script of the repository as python does, in this process: torch is loaded once."""

    def run(script: str, *arguments: str | Path) -> Result:
        path = ROOT / script
        monkeypatch.setattr(sys, "argv", [str(path), *map(str, arguments)])
        monkeypatch.syspath_prepend(path.parent)
        capsysbinary.readouterr()
        status: object = 0
        try:
            runpy.run_path(str(path), run_name="__main__")
        except SystemExit as left:
            status = left.code or 0
        data, told = capsysbinary.readouterr()
        stderr = told.decode()
        if isinstance(status, str):
            status, stderr = 1, f"{stderr}{status}\n"
        return Result(status, data.decode(), stderr, data)

    return run


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


@pytest.fixture
def recordings(tmp_path) -> Path:
    """A folder of five pieces of speech."""
    root = tmp_path / "in"
    for number, name in enumerate(("a", "b", "c", "deep/d", "e")):
        start_s, length_s = 0.375 * (number + 1), 0.1875 + 0.05625 * number
        write(root / f"{name}.wav", spoken("rms", start_s, start_s + length_s))
    return root


def contents(folder: Path) -> dict[str, bytes]:
    """The files below a folder, by their paths in it."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def process(*arguments: str | Path, **options) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "vqcodec", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, check=False, **options)


def is_one_line(result: Result) -> bool:
    return result.stderr.startswith("vqcodec: ") and result.stderr.count("\n") == 1
