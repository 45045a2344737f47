"""Recordings through pipes, while they are being made."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import BinaryIO, NamedTuple

import numpy as np

from vqcodec.audio.recording import spool, to_int16
from vqcodec.audio.soundfiles import CHUNK_LENGTH, check_channels, checked_rate, listen, name_of

BLOCK_SECONDS = 0.02
UNKNOWN_SIZE = 2**32 - 1


class LiveRecording(NamedTuple):
    """A recording that is still going on.

    Attributes:
        sample_rate: In Hz.
        blocks: Float32, (channels, T) each, as they come.
    """

    sample_rate: int
    blocks: Iterator[np.ndarray]


@contextmanager
def open_live(stream: BinaryIO) -> Iterator[LiveRecording]:
    """Read a recording from a pipe: a WAV while it is being written, anything else at its end.

    Args:
        stream: A binary file object of which nothing has been read, such as `sys.stdin.buffer`.

    Raises:
        AudioError: The stream is not audio or of an impossible rate or channel count.
    """
    name = name_of(stream)
    # A thread that waits for input in a buffered reader holds its lock, for which the interpreter
    # aborts the process at the end.
    stream = getattr(stream, "raw", stream)
    head = _read(stream, 12)
    if not (head[:4] in (b"RIFF", b"RF64") and head[8:] == b"WAVE"):
        recording = spool(stream, name, head)
        frames = recording.blocks(recording.sample_rate, CHUNK_LENGTH)
        yield LiveRecording(recording.sample_rate, (block[None] for block in frames))
        return
    with listen(stream, head, name) as file:
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


def _read(stream: BinaryIO, size: int) -> bytes:
    """So many bytes, or all there are."""
    data = b""
    while len(data) < size and (more := stream.read(size - len(data))):
        data += more
    return data


def write_live(target: BinaryIO, blocks: Iterable[np.ndarray], sample_rate: int) -> None:
    """Write a 16-bit mono WAV to a pipe, every block as it comes.

    Nobody knows its length yet; the header says, as ffmpeg's does, that it goes on to the end.

    Args:
        target: Binary file object that need not seek.
        blocks: Float32, (T,), clipped to [-1, 1].
        sample_rate: Of the blocks, in Hz.

    Raises:
        OSError: The target cannot be written.
    """
    riff = struct.pack("<4sI4s", b"RIFF", UNKNOWN_SIZE, b"WAVE")
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, sample_rate, 2 * sample_rate, 2, 16)
    target.write(riff + form + struct.pack("<4sI", b"data", UNKNOWN_SIZE))
    target.flush()
    for block in blocks:
        target.write(to_int16(block).astype("<i2").tobytes())
        target.flush()
