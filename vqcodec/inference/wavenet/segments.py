r"""Cutting one long recording into segments that are sampled side by side, and joining them again.

Cuts fall where the voice is quietest. A segment begins `warm_up` codes early, so that it is well
on its way when it is first heard, and ends `OVERLAP` codes late; over these the two are crossfaded
at equal power, since two samplings of the same codes agree in power but not in phase:

    segment 0   ----------------------\
    segment 1            warm-up  ....../-------------------
                                      ^ cut
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

LENGTH, SLACK = 250, 60  # codes between cuts, and how far a cut may move to find a quiet place
OVERLAP = 4  # codes


class Segment(NamedTuple):
    """Codes: sampled from `first`, heard from `start`, crossfaded from `stop` to `last`."""

    first: int
    start: int
    stop: int
    last: int


def cut(power: Iterable[np.ndarray], warm_up: int) -> Iterator[Segment]:
    """Divide a recording at quiet places, each segment as soon as its end is known.

    Args:
        power: (n,) of each code, in blocks, n free.
        warm_up: codes that a segment is sampled before it is heard.

    Yields:
        Segments in order; `start` of each is `stop` of the one before.
    """
    stream, start = iter(power), 0
    held = np.zeros(0, np.float32)  # power from `start` on
    while True:
        while len(held) <= LENGTH + SLACK + OVERLAP and (block := next(stream, None)) is not None:
            held = np.concatenate([held, block])
        first = max(0, start - warm_up)
        if len(held) <= LENGTH + SLACK + OVERLAP:
            yield Segment(first, start, start + len(held), start + len(held))
            return
        choices = held[LENGTH - SLACK : LENGTH + SLACK + OVERLAP - 1]
        quiet = np.lib.stride_tricks.sliding_window_view(choices, OVERLAP).sum(axis=-1)
        length = LENGTH - SLACK + int(np.argmin(quiet))
        yield Segment(first, start, start + length, start + length + OVERLAP)
        start, held = start + length, held[length:]


def join(
    segments: Iterable[Segment], waveforms: Iterator[np.ndarray], hop_length: int
) -> Iterator[np.ndarray]:
    """Crossfade sampled segments, ((last - first) * hop_length,) each and in order.

    Yields what is heard of each: (stop - start) * hop_length samples.
    """
    fade_length = OVERLAP * hop_length
    angle = (np.arange(fade_length, dtype=np.float32) + 0.5) / fade_length * np.float32(np.pi / 2)
    tail = np.zeros(0, np.float32)
    for segment, waveform in zip(segments, waveforms, strict=True):
        heard = waveform[(segment.start - segment.first) * hop_length :]
        if len(tail):
            fading = min(len(tail), len(heard))
            heard = heard.copy()
            heard[:fading] *= np.sin(angle[:fading])
            heard[:fading] += tail[:fading] * np.cos(angle[:fading])
        length = (segment.stop - segment.start) * hop_length
        tail = heard[length:]
        yield heard[:length]
