"""What lies below speech: the offset of a converter, and slow drift, taken off recordings."""

from __future__ import annotations

import itertools
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
    without one are what they are; from twice that on all of it goes, and with a gain of 0 any. The
    first third of a second is held back, for it decides what is taken off until more has been
    heard.

    Blocks are float32 (T,), T free, of a recording of this rate and gain; out come those of whole
    frames of 20 ms, the last one shorter if need be: the same samples however the input was cut.
    """
    frames = _frames(blocks, frame_length(sample_rate))
    start: list[np.ndarray] = []
    while sum(map(len, start)) < _START and (rows := next(frames, None)) is not None:
        start.append(rows)
    means = np.concatenate([np.zeros(0), *map(_means, start)])[:_START]
    before, n_before = _noticeable(np.array([means.mean() if len(means) else 0.0]), gain)[0], 0
    for rows in itertools.chain(start, frames):
        n_held = max(min(_START - n_before, len(rows)), 0)
        n_before += n_held
        own = _means(rows[n_held:])
        past = np.concatenate([means, own])
        ends = np.arange(len(means), len(past)) + 1
        # Their means, without what `mean` asks of so short an array.
        sums = [np.add.reduce(past[max(end - _WINDOW, 0) : end]) for end in ends.tolist()]
        recent = np.array(sums) / np.minimum(ends, _WINDOW)
        offsets = np.concatenate([np.full(n_held, before), _noticeable(recent, gain)])
        if before or offsets.any():
            ramp = np.linspace(
                np.concatenate([[before], offsets[:-1]]), offsets, rows.shape[1], dtype=np.float32
            )
            rows = rows - ramp.T
        means, before = past[-_WINDOW:], offsets[-1]
        yield rows.ravel()


def _means(rows: np.ndarray) -> np.ndarray:
    return rows.astype(np.float64).mean(axis=1)


def _noticeable(means: np.ndarray, gain: float) -> np.ndarray:
    """Means of frames if they can be noticed, and less of them the less they can."""
    if not gain:
        return means
    threshold = _NOTICEABLE * gain
    return means * np.clip(np.abs(means) - threshold, 0, threshold) / threshold


def regroup(blocks: Iterable[np.ndarray], length: int) -> Iterator[np.ndarray]:
    """Cut a stream of blocks anew into blocks of one length, the last one shorter if need be."""
    return itertools.chain.from_iterable(_frames(blocks, length))


def _frames(blocks: Iterable[np.ndarray], length: int) -> Iterator[np.ndarray]:
    """Cut a stream into frames, (n, length) as soon as they are there, and last what is left."""
    held: list[np.ndarray] = []
    n_held = 0
    for block in blocks:
        held.append(block)
        n_held += len(block)
        if n_held >= length:
            joined = np.concatenate(held)
            whole = n_held // length * length
            yield joined[:whole].reshape(-1, length)
            held, n_held = [joined[whole:]], n_held - whole
    if n_held:
        yield np.concatenate(held)[None]
