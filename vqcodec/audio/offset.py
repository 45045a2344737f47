"""What lies below speech: the offset of a converter, and slow drift, taken off recordings."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable, Iterator

import numpy as np

FRAME_SECONDS = 0.02
_WINDOW, _START = 200, 17  # frames
# Of the active level of 0.06. Of 150 recordings without an offset, 98 % stay below 0.0004.
_NOTICEABLE = 5e-4


def frame_length(sample_rate: int) -> int:
    """Samples in `FRAME_SECONDS`."""
    return round(FRAME_SECONDS * sample_rate)


def without_offset(
    blocks: Iterable[np.ndarray], sample_rate: int, gain: float
) -> Iterator[np.ndarray]:
    """Subtract the mean of the last four seconds wherever it can be noticed.

    An offset of less than 5e-4 of the normalised recording stays, so that codes of recordings
    without one are what they are; from twice that on all of it goes. The first third of a second is
    held back, for it decides what is taken off until more has been heard.

    Args:
        blocks: Float32 blocks of shape (T,), T free.
        sample_rate: Of the blocks, in Hz.
        gain: Of the recording; 0 to take off any offset.

    Yields:
        Float32 blocks of 20 ms, the last one shorter if need be: the same ones however the input
        was cut.
    """
    frames = regroup(blocks, frame_length(sample_rate))
    start = list(itertools.islice(frames, _START))
    means = deque((frame.mean(dtype=np.float64) for frame in start), maxlen=_WINDOW)
    before = offset = _noticeable(means, gain)
    for number, frame in enumerate(itertools.chain(start, frames)):
        if number >= len(start):
            means.append(frame.mean(dtype=np.float64))
            before, offset = offset, _noticeable(means, gain)
        if before or offset:
            frame = frame - np.linspace(before, offset, len(frame), dtype=np.float32)
        yield frame


def _noticeable(means: deque[float], gain: float) -> float:
    """The mean of frame means if it can be noticed, and less of it the less it can."""
    mean, threshold = float(np.mean(list(means))) if means else 0.0, _NOTICEABLE * gain
    return mean * float(np.clip(abs(mean) - threshold, 0, threshold) / threshold) if gain else mean


def powers_without_drift(powers: np.ndarray, means: np.ndarray) -> np.ndarray:
    """Frame powers without what is slower than some 10 Hz.

    Args:
        powers: Mean square of each frame, (N,), N > 0.
        means: Of each frame, (N,).
    """
    window = np.hanning(11)[1:-1]
    count = np.convolve(np.ones(len(means)), window)[4:-4]
    drift = np.convolve(means, window)[4:-4] / count
    return powers - np.square(means) + np.square(means - drift)


def regroup(blocks: Iterable[np.ndarray], length: int) -> Iterator[np.ndarray]:
    """Cut a stream of blocks anew into blocks of one length, the last one shorter if need be."""
    held: list[np.ndarray] = []
    n_held = 0
    for block in blocks:
        held.append(block)
        n_held += len(block)
        if n_held >= length:
            joined = np.concatenate(held)
            whole = n_held // length * length
            yield from joined[:whole].reshape(-1, length)
            held, n_held = [joined[whole:]], n_held - whole
    if n_held:
        yield np.concatenate(held)
