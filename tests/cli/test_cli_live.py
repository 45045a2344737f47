"""From pipe to pipe, while it is being made."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import struct
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import soundfile
from command_line import is_one_line, process

from vqcodec import Codes
from vqcodec.format.codes import read_pipe


@pytest.fixture(scope="module")
def tiny_model(packaged: Path) -> Path:
    """One that processes need no torch for."""
    return packaged


def test_from_pipe_to_pipe_everything_is_live(run, clip, codes, tiny_model, tmp_path):
    """A clip of less than four seconds is heard whole before its level is known: it is the same."""
    model = ["--model", str(tiny_model)]
    encoded = process("encode", "-", "-", *model, input=clip.read_bytes())
    assert (encoded.returncode, encoded.stderr) == (0, b"")
    assert Codes.from_bytes(encoded.stdout) == Codes.load(codes)
    decoded = process("decode", "-", "-", *model, input=encoded.stdout)
    assert (decoded.returncode, decoded.stderr) == (0, b"")
    assert run("decode", codes, tmp_path / "out.wav", *model).status == 0
    assert decoded.stdout[44:] == (tmp_path / "out.wav").read_bytes()[44:]
    converted = process("convert", "-", "--speaker", "anna", *model, input=clip.read_bytes())
    assert run("convert", clip, "--speaker", "anna", *model).status == 0
    assert converted.stdout[44:] == (tmp_path / "clip.anna.wav").read_bytes()[44:]
    (tmp_path / "live.codes").write_bytes(encoded.stdout)
    assert run("verify", tmp_path / "live.codes").status == 0
    assert run("decode", "-", tmp_path / "live.wav", *model, stdin=encoded.stdout).status == 0


def test_a_live_stream_is_answered_before_it_ends(clip, tiny_model):
    """The level needs four seconds; then codes come as they are made."""
    command = [sys.executable, "-m", "vqcodec", "encode", "-", "-", "--speaker", "anna"]
    child = subprocess.Popen(
        [*command, "--model", str(tiny_model)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert child.stdin is not None
    assert child.stdout is not None
    samples, sample_rate = soundfile.read(clip, dtype="int16")
    file = io.BytesIO()
    soundfile.write(file, np.tile(samples, 1 + 5 * sample_rate // len(samples)), sample_rate,
                    format="WAV", subtype="PCM_16")  # fmt: skip
    child.stdin.write(file.getvalue()[:-2])
    child.stdin.flush()
    stream = read_pipe(child.stdout, "pipe")  # blocks for ever if nothing comes
    heard = iter(stream)
    assert next(heard).shape == (1, 25)
    child.stdin.write(file.getvalue()[-2:])
    child.stdin.close()
    list(heard)
    assert stream.n_samples == (len(file.getvalue()) - 44) // 2
    assert child.wait() == 0


def test_a_live_stream_that_breaks_off_says_so(run, codes, clip, tiny_model):
    encoded = process("encode", "-", "-", "--model", tiny_model, input=clip.read_bytes())
    result = process("decode", "-", "-", "--model", tiny_model, input=encoded.stdout[:-20])
    assert result.returncode == 1
    assert b"<stdin>: is cut short: the recording's end is missing" in result.stderr


def test_stdin_that_is_no_audio_is_named(run, tiny_model):
    result = run("encode", "-", "-", "--model", tiny_model, stdin=b"words")
    assert (result.status, result.data) == (1, b"")
    assert is_one_line(result)
    assert result.stderr.startswith("vqcodec: <stdin>: is not audio")
    result = run("decode", "-", "-", "--model", tiny_model, stdin=b"words")
    assert (result.status, result.data) == (1, b"")
    assert result.stderr.startswith("vqcodec: <stdin>: is not a .codes file")


def test_a_refused_stream_that_goes_on_ends_the_process(tiny_model):
    n_channels, unknown = 66, 2**32 - 1
    form = (16, 1, n_channels, 16_000, 32_000 * n_channels, 2 * n_channels, 16)
    header = struct.pack("<4sI4s4sIHHIIHH4sI", b"RIFF", unknown, b"WAVE", b"fmt ", *form, b"data",
                         unknown)  # fmt: skip
    with live("encode", "-", "-", "--model", tiny_model) as child:
        child.stdin.write(header + bytes(1000))
        child.stdin.flush()
        assert child.wait() == 1
        assert child.stderr.read().startswith(b"vqcodec: <stdin>: 66 channels are not supported")


def test_a_stream_of_known_length_is_done_before_its_writer_leaves(clip, tiny_model):
    with live("encode", "-", "-", "--model", tiny_model) as child:
        child.stdin.write(clip.read_bytes())
        child.stdin.flush()
        assert child.wait() == 0
        assert Codes.from_bytes(child.stdout.read()).n_samples == soundfile.info(clip).frames


def test_an_interrupt_ends_a_live_recording_and_its_codes_are_whole(clip, tiny_model):
    with live("encode", "-", "-", "--speaker", "anna", "--model", tiny_model) as child:
        data = clip.read_bytes()
        endless = data[:40] + struct.pack("<I", 2**32 - 1) + 10 * data[44:]
        child.stdin.write(endless)
        child.stdin.flush()
        beginning = child.stdout.read(200)
        child.send_signal(signal.SIGINT)
        codes = Codes.from_bytes(beginning + child.stdout.read())
        assert child.wait() == 0
    assert codes.n_samples == 10 * (len(data) - 44) // 2


WORKING = """
import signal
from vqcodec.audio.live import first_interrupt
with first_interrupt(lambda: print("ended", flush=True)):
    print("begun", flush=True)
    while True:
        signal.pause()
"""


def test_a_second_interrupt_ends_the_process():
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", WORKING]
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True) as child:
        assert child.stdout.readline() == "begun\n"
        child.send_signal(signal.SIGINT)
        assert child.stdout.readline() == "ended\n"
        assert child.poll() is None
        child.send_signal(signal.SIGINT)
        assert child.wait(60) == -signal.SIGINT


@contextlib.contextmanager
def live(*arguments: str | Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process whose standard input stays open."""
    command = [sys.executable, "-m", "vqcodec", *map(str, arguments)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe) as child:
        try:
            yield child
        finally:
            child.kill()


def test_named_pipes_are_read_and_written(run, clip, codes, tiny_model, tmp_path):
    model = ["--model", tiny_model]
    assert run("decode", codes, tmp_path / "out.wav", *model).status == 0
    for name in ("pipe.codes", "pipe.wav"):
        os.mkfifo(tmp_path / name)
    with ThreadPoolExecutor(1) as pool:
        pool.submit((tmp_path / "pipe.codes").write_bytes, codes.read_bytes())
        assert run("decode", tmp_path / "pipe.codes", "-", *model).status == 0
    with ThreadPoolExecutor(1) as pool:
        heard = pool.submit((tmp_path / "pipe.wav").read_bytes)
        assert run("decode", codes, tmp_path / "pipe.wav", *model).status == 0
        assert heard.result() == (tmp_path / "out.wav").read_bytes()
    assert (tmp_path / "pipe.wav").is_fifo()


def test_a_damaged_pipe_among_files_is_read_once(run, codes, tiny_model, tmp_path):
    pipe, damaged = tmp_path / "pipe.codes", bytearray(codes.read_bytes())
    damaged[-1] ^= 1
    os.mkfifo(pipe)
    with ThreadPoolExecutor(1) as pool:
        pool.submit(pipe.write_bytes, damaged)
        result = run("decode", codes, pipe, tmp_path / "out", "--jobs", "1", "--model", tiny_model)
    assert result.status == 1
    assert f"{pipe}: is damaged: the CRC of chunk 0 differs" in result.stderr
    assert "1 done, 0 already there, 1 failed" in result.stdout
