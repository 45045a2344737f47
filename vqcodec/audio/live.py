"""Recordings through pipes, while they are being made."""

from __future__ import annotations

import os
import signal
import struct
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import BinaryIO, NamedTuple

import numpy as np

from vqcodec.audio.recording import spool
from vqcodec.audio.soundfiles import (
    BLOCK_LENGTH,
    SequentialFile,
    check_channels,
    checked_rate,
    name_of,
    open_sound,
)
from vqcodec.audio.writing import to_int16

BLOCK_SECONDS = 0.02
UNKNOWN_SIZE = 2**32 - 1


class LiveRecording(NamedTuple):
    """A recording that is still going on; float32 blocks (channels, T) as they come."""

    sample_rate: int
    blocks: Iterator[np.ndarray]


@contextmanager
def open_live(stream: BinaryIO) -> Iterator[LiveRecording]:
    """Read a recording from a pipe: a WAV while it is being written, anything else at its end.

    An interrupt, which ends whoever records as well, ends a WAV; a second one is an interrupt as
    anywhere else. Nothing has been read of the stream, such as `sys.stdin.buffer`. Raises
    AudioError if it is not audio or of an impossible rate or channel count.
    """
    name = name_of(stream)
    # A thread that waits for input in a buffered reader holds its lock, for which the interpreter
    # aborts the process at the end.
    stream = getattr(stream, "raw", stream)
    head = _read(stream, 12)
    if not (head[:4] in (b"RIFF", b"RF64") and head[8:] == b"WAVE"):
        recording = spool(stream, name, head)
        frames = recording.blocks(recording.sample_rate, BLOCK_LENGTH)
        yield LiveRecording(recording.sample_rate, (block[None] for block in frames))
        return
    with _listen(stream, head, name) as file:
        sample_rate = checked_rate(name, file.samplerate)
        check_channels(name, file.channels)
        length = round(BLOCK_SECONDS * sample_rate)

        def blocks() -> Iterator[np.ndarray]:
            n_left = file.frames
            # libsndfile waits for whole blocks, so none may go beyond the end.
            while len(frames := file.read(min(length, n_left), "float32", always_2d=True)):
                n_left -= len(frames)
                yield frames.T

        yield LiveRecording(sample_rate, blocks())


@contextmanager
def _listen(stream: BinaryIO, head: bytes, name: str) -> Iterator[SequentialFile]:
    """Open a WAV of which `head` has been read; what comes of the rest is passed on at once."""
    reader, writer = os.pipe()
    sink = os.fdopen(writer, "wb", buffering=0)

    def forward() -> None:
        # libsndfile reads from descriptors, and `head` cannot be put back into that of `stream`.
        # What an interrupt has closed raises ValueError.
        with suppress(BrokenPipeError, ValueError), sink:
            sink.write(head)
            while data := stream.read(1 << 16):
                sink.write(data)

    threading.Thread(target=forward, daemon=True).start()
    with (
        os.fdopen(reader, "rb") as source,
        first_interrupt(sink.close),
        open_sound(source, name) as file,
    ):
        yield file


@contextmanager
def first_interrupt(end: Callable[[], None]) -> Iterator[None]:
    """Let the first interrupt call `end` and do no more; a second one raises KeyboardInterrupt.

    Another thread counts them: while libsndfile waits for a pipe, this one hears of none. Elsewhere
    than in the main thread, and where interrupts are ignored, nothing changes.
    """
    this = threading.current_thread()
    if this is not threading.main_thread() or signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        yield
        return
    awake, waker = os.pipe()
    os.set_blocking(waker, False)
    is_second = threading.Event()

    def watch() -> None:
        with os.fdopen(awake, "rb", buffering=0) as numbers:
            if numbers.read(1):
                end()
            if numbers.read(1):
                is_second.set()
                signal.pthread_kill(this.ident or 0, signal.SIGINT)
            numbers.read()  # to its end, or further signals would find nobody to tell

    def handle(*_: object) -> None:
        if is_second.is_set():
            raise KeyboardInterrupt

    threading.Thread(target=watch, daemon=True).start()
    handler = signal.signal(signal.SIGINT, handle)
    before = signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        signal.signal(signal.SIGINT, handler)
        os.close(waker)


def _read(stream: BinaryIO, size: int) -> bytes:
    """So many bytes, or all there are."""
    data = b""
    while len(data) < size and (more := stream.read(size - len(data))):
        data += more
    return data


def write_live(target: BinaryIO, blocks: Iterable[np.ndarray], sample_rate: int) -> None:
    """Write a 16-bit mono WAV to a pipe, every block as it comes.

    Nobody knows its length yet; the header says, as ffmpeg's does, that it goes on to the end.
    Blocks are float32 (T,), clipped to [-1, 1].

    Raises:
        OSError: The target cannot be written.
    """
    riff = struct.pack("<4sI4s", b"RIFF", UNKNOWN_SIZE, b"WAVE")
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, sample_rate, 2 * sample_rate, 2, 16)
    target.write(riff + form + struct.pack("<4sI", b"data", UNKNOWN_SIZE))
    target.flush()
    for block in blocks:
        target.write(to_int16(block).tobytes())
        target.flush()
