"""Segments of a long recording: they cover it once, and their joins keep its power."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from vqcodec.inference.wavenet.segments import LENGTH, OVERLAP, SLACK, Segment, cut, join

WARM_UP = 16


@given(st.integers(1, 3000), st.integers(0, 2**32 - 1))
def test_segments_cover_every_code_once(n_codes: int, seed: int) -> None:
    power = np.random.default_rng(seed).random(n_codes)
    segments = list(cut([power], WARM_UP))
    assert list(cut(np.array_split(power, 7), WARM_UP)) == segments
    assert segments[0].start == segments[0].first == 0
    assert segments[-1].stop == segments[-1].last == n_codes
    for before, after in pairwise(segments):
        assert after.start == before.stop
        assert after.first == max(0, after.start - WARM_UP)
        assert before.last == min(n_codes, before.stop + OVERLAP)
        assert LENGTH - SLACK <= before.stop - before.start <= LENGTH + SLACK
    assert segments[-1].stop - segments[-1].start > 0


def test_cuts_fall_into_pauses() -> None:
    power = np.ones(1000)
    pauses = [240, 500, 760]
    for pause in pauses:
        power[pause : pause + OVERLAP] = 0
    assert [segment.stop for segment in cut([power], WARM_UP)][:-1] == pauses


def test_a_join_keeps_length_and_power() -> None:
    hop_length = 128
    rng = np.random.default_rng(0)
    segments = list(cut([np.ones(2000)], WARM_UP))
    waveforms = [
        rng.standard_normal((part.last - part.first) * hop_length).astype(np.float32)
        for part in segments
    ]
    joined = np.concatenate(list(join(segments, iter(waveforms), hop_length)))
    assert len(joined) == 2000 * hop_length
    # Beyond the crossfade a segment is heard as it was sampled.
    part, waveform = segments[1], waveforms[1]
    heard = slice((part.start + OVERLAP) * hop_length, part.stop * hop_length)
    offset = part.first * hop_length
    assert np.array_equal(joined[heard], waveform[heard.start - offset : heard.stop - offset])
    fades = [
        joined[part.start * hop_length : (part.start + OVERLAP) * hop_length]
        for part in segments[1:]
    ]
    assert abs(10 * np.log10(np.square(fades).mean())) < 0.5


def test_a_crossfade_begins_with_the_old_and_ends_with_the_new() -> None:
    hop_length = 100
    segments = [Segment(0, 0, 10, 10 + OVERLAP), Segment(8, 10, 20, 20)]
    old = np.ones((10 + OVERLAP) * hop_length, np.float32)
    new = np.full(12 * hop_length, -1, np.float32)
    joined = np.concatenate(list(join(segments, iter([old, new]), hop_length)))
    step = np.abs(np.diff(joined)).max()
    assert joined[10 * hop_length] > 0.99
    assert joined[(10 + OVERLAP) * hop_length - 1] < -0.99
    assert step < 0.01
