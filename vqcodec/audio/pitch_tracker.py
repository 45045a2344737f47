"""How high a voice is from moment to moment, by swift-f0 (Nieradzik 2025, arXiv 2508.18440).

The tracker hears the level, so it is given recordings at the level that models hear. Windows with
the context that its network sees give the same values as the whole recording does.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from importlib.metadata import files
from math import ceil
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

FRAME_LENGTH = 256  # samples at 16 kHz
# Frames that a frame's value depends on. The network sees 11 before; with 16, sums are the same
# bits, too.
BEFORE, AFTER = 16, 10
STEP = 1000  # values of a block, if nothing is said: little context, and what caches hold
LOWEST_HZ, HIGHEST_HZ = np.asarray(55.0, np.float32), np.asarray(550.0, np.float32)
LEVEL = 2.0  # of normalised speech, whose peaks are then about .5, as in what the network knows
UNVOICED = 0.0


class _Window(NamedTuple):
    """Samples, of whose frames those from `start` to `end` are kept."""

    samples: np.ndarray
    start: int
    end: int


class Mapper(Protocol):
    """`map`, or what does the same by several threads."""

    def __call__(
        self, function: Callable[[_Window], np.ndarray], items: Iterable[_Window], /
    ) -> Iterable[np.ndarray]:
        """The function's results, in the order of the items."""


def contour_blocks(
    blocks: Iterable[np.ndarray], hop_length: int, *, step: int = STEP, mapped: Mapper = map
) -> Iterator[npt.NDArray[np.float32]]:
    """Track a recording block by block.

    Args:
        blocks: (T,) float32, T free, at 16 kHz and normalised level.
        hop_length: samples per value.
        step: values of a block of the result; they are the same with any.
        mapped: how windows are worked on.

    Yields:
        (step,) float32, the last of which may be shorter, ceil(T / hop_length) in all: log F0 in
        the middle of each hop, or `UNVOICED`. It is known 184 ms after the hop.
    """
    n_samples = 0

    def counted() -> Iterator[np.ndarray]:
        nonlocal n_samples
        for block in blocks:
            n_samples += len(block)
            yield block

    # The last value of a step lies before the last frame of its window.
    ends = (
        ceil((number * step - 0.5) * hop_length / FRAME_LENGTH) + 1 for number in itertools.count(1)
    )
    frames, first, done = np.zeros(0, np.float32), 0, 0
    for found in mapped(_log_f0, _windows(counted(), ends)):
        frames = np.concatenate([frames, found])
        n_known = ceil((first + len(frames) - 1) * FRAME_LENGTH / hop_length - 0.5)
        while done + step <= n_known:
            yield _between(frames, first, np.arange(done, done + step), hop_length)
            done += step
        # The last one stays: it is all there is of a recording shorter than half a hop.
        n_old = min(max(int((done + 0.5) * hop_length / FRAME_LENGTH) - first, 0), len(frames) - 1)
        frames, first = frames[n_old:], first + n_old
    total = ceil(n_samples / hop_length)
    for start in range(done, total, step):
        yield _between(frames, first, np.arange(start, min(start + step, total)), hop_length)


def contour(waveform: np.ndarray, hop_length: int) -> npt.NDArray[np.float32]:
    """Track a whole recording (T,), T > 0, as `contour_blocks` does."""
    return np.concatenate(list(contour_blocks([waveform], hop_length)))


def network() -> tuple[bytes, bytes]:
    """The tracker's ONNX graph, and the licence that is to go with a copy of it."""
    found = {path.name: path for path in files("swift-f0") or []}
    return found["model.onnx"].read_binary(), found["LICENSE"].read_binary()


def _windows(blocks: Iterable[np.ndarray], ends: Iterator[int]) -> Iterator[_Window]:
    """Windows whose frames count up to each of the ends, or up to that of the recording."""
    stream, held, position, start = iter(blocks), np.zeros(0, np.float32), 0, 0
    for end in ends:
        while (missing := (end + AFTER - position) * FRAME_LENGTH - len(held)) > 0:
            if (block := next(stream, None)) is None:
                break
            held = np.concatenate([held, block])
        if missing > 0:
            held = np.pad(held, (0, max(0, FRAME_LENGTH - len(held)) if len(held) else 0))
            n_frames = position + len(held) // FRAME_LENGTH
            if n_frames > start:
                yield _Window(held, start - position, n_frames - position)
            return
        samples = held[: (end + AFTER - position) * FRAME_LENGTH]
        yield _Window(samples, start - position, end - position)
        start, n_old = end, max(end - BEFORE - position, 0)
        held, position = held[n_old * FRAME_LENGTH :], position + n_old


def _log_f0(window: _Window) -> np.ndarray:
    """(end - start,) log F0 of frames, each about the sample of its number times `FRAME_LENGTH`."""
    samples = window.samples * np.float32(LEVEL)
    detector, silence = _detector()
    # What `detect` does, without the loudness that it also measures, frame by frame.
    inputs = {"audio": samples[None], "fmin": LOWEST_HZ, "fmax": HIGHEST_HZ}
    pitch, confidence = detector.session.run(["pitch", "confidence"], inputs)
    peaks = np.abs(samples[: confidence.size * FRAME_LENGTH].reshape(-1, FRAME_LENGTH)).max(axis=1)
    voiced = (confidence[0] >= 0.5) & (peaks >= silence)
    log_f0 = np.where(voiced, np.log(pitch[0], dtype=np.float64), UNVOICED)
    return log_f0[window.start : window.end].astype(np.float32)


def _between(
    frames: np.ndarray, first: int, places: np.ndarray, hop_length: int
) -> npt.NDArray[np.float32]:
    """Values in the middle of hops: voiced as the nearest frame is, on lines between voiced ones.

    Args:
        frames: log F0.
        first: number of the first frame.
        places: numbers of hops.
        hop_length: samples of a hop.
    """
    last = len(frames) - 1
    position = (places + 0.5) * (hop_length / FRAME_LENGTH) - first
    left = np.floor(position).astype(int)
    before, after = frames[left.clip(0, last)], frames[(left + 1).clip(0, last)]
    weights = (left + 1 - position) * (before != UNVOICED), (position - left) * (after != UNVOICED)
    line = (weights[0] * before + weights[1] * after) / np.maximum(weights[0] + weights[1], 1e-6)
    nearest = frames[np.ceil(position - 0.5).astype(int).clip(0, last)]
    return np.where(nearest != UNVOICED, line, UNVOICED).astype(np.float32)


@cache
def _detector() -> tuple[Any, float]:
    """The tracker, and the peak below which it says that a frame is silent."""
    from swift_f0 import core  # which takes a fifth of a second to import

    return core.SwiftF0(threads=1, spin=False), core.SILENCE_PEAK
