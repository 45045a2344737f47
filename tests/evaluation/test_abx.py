"""ABX discrimination of units."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vqcodec.data.corpora import Utterance
from vqcodec.data.labels import LabelledClip
from vqcodec.evaluation import unit_measures
from vqcodec.evaluation.abx import ABX, Item, abx, cosine_distances
from vqcodec.evaluation.bootstrap import Mean
from vqcodec.format.textgrid import Interval

CLASSES = {"sil": 0, "a": 1, "b": 2}


APART = 1 - np.eye(4)
NONE = ABX(Mean(None, 0), 0, 0)


def items(says: dict[str, dict[int, list[list[int]]]]) -> list[Item]:
    """Speaker -> phone -> units of each saying, all in one context, a recording for each."""
    return [
        Item(phone, (7, 7), speaker, number, np.array(said))
        for speaker, phones in says.items()
        for phone, sayings in phones.items()
        for number, said in enumerate(sayings)
    ]


def test_abx_of_units_that_tell_phones_apart_is_zero_and_of_others_chance() -> None:
    told = {name: {0: [[0, 1], [0, 0, 1]], 1: [[2, 1], [2, 1, 1]]} for name in ("anna", "ben")}
    alike = {name: {0: [[3], [3]], 1: [[3], [3]]} for name in ("anna", "ben")}
    for across in (False, True):
        found = abx(items(told), APART, across=across)
        assert (found.error.value, found.n_pairs) == (0, 2)
        assert abx(items(alike), APART, across=across).error.value == 0.5


def test_abx_across_hears_other_speakers_and_within_does_not() -> None:
    # Ben says the first phone as Anna says the second, and the other way round.
    swapped = {"anna": {0: [[0], [0]], 1: [[1], [1]]}, "ben": {0: [[1], [1]], 1: [[0], [0]]}}
    assert abx(items(swapped), APART, across=False).error.value == 0
    assert abx(items(swapped), APART, across=True).error.value == 1


def test_abx_needs_two_sayings_in_one_context() -> None:
    once = items({"anna": {0: [[0]], 1: [[1]]}})
    assert abx(once, APART, across=False) == NONE
    assert abx(once, APART, across=True) == NONE
    twice = items({"anna": {0: [[0], [0]]}})
    elsewhere = Item(1, (7, 8), "anna", 0, np.array([1]))
    assert abx([*twice, elsewhere], APART, across=False) == NONE


def test_abx_is_bounded_and_reproducible() -> None:
    rng = np.random.default_rng(0)
    says = {
        name: {phone: rng.integers(0, 4, (12, 3)).tolist() for phone in range(3)}
        for name in ("anna", "ben")
    }
    first = abx(items(says), APART, across=True)
    assert first == abx(items(says), APART, across=True)
    assert first != abx(items(says), APART, across=True, seed=1)
    assert (first.n_pairs, first.n_triples) == (6, 12 * 10)
    assert first.error.value == pytest.approx(0.5, abs=0.15)


def test_abx_has_an_interval_over_recordings() -> None:
    """In every second recording a phone is said like another."""

    def found(n_recordings: int) -> ABX:
        said = [
            Item(phone, (7, number), "anna", number, np.array([phone if number % 2 else 1]))
            for number in range(n_recordings)
            for phone in (0, 0, 1, 1)
        ]
        return abx(said, APART, across=False)

    few, many = found(8).error, found(80).error
    assert few.value == many.value == 0.25
    assert few.interval is not None
    assert many.interval is not None
    assert 0 <= few.interval.low < many.interval.low < 0.25 < many.interval.high < few.interval.high
    assert found(1).error.interval is None


def cheapest(first: list[int], second: list[int], distances: np.ndarray) -> float:
    """Cost of the best of all warping paths, by trying them."""
    cost = float(distances[first[0], second[0]])
    rest = [
        cheapest(first[i:], second[j:], distances)
        for i, j in ((1, 0), (0, 1), (1, 1))
        if len(first) > i and len(second) > j
    ]
    return cost + min(rest, default=0)


@given(
    *(st.lists(st.integers(0, 3), min_size=1, max_size=4) for _ in range(3)),
)
def test_abx_compares_by_the_cheapest_path(a: list[int], b: list[int], x: list[int]) -> None:
    # With distances 0 and 1, a path of mean distance 0 exists just if the cheapest one is free.
    free = [cheapest(said, x, APART) == 0 for said in (a, b)]
    if free[0] == free[1]:
        return
    says = items({"anna": {0: [a], 1: [b]}, "ben": {0: [x]}})
    found = abx(says, APART, across=True)
    assert found.error.value == (0.0 if free[0] else 1.0)


def test_cosine_distances() -> None:
    found = cosine_distances(np.array([[2, 0], [0, 3], [-1, 0], [0, 0]], np.float32))
    assert found[0] == pytest.approx([0, 1, 2, 1])


def test_triphones_are_the_frames_whose_centre_is_in_them() -> None:
    # Frames of 40 ms about 20, 60, 100, 140 ms and so on.
    intervals = [
        Interval(0.0, 0.05, "sil"),
        Interval(0.05, 0.1, "a"),
        Interval(0.1, 0.15, "b"),
        Interval(0.15, 0.2, "a"),
        Interval(0.2, 0.201, "b"),
    ]
    utterance = Utterance(Path("x.wav"), "x", "anna", "test", "")
    source = LabelledClip(utterance, intervals, False)
    codes = np.arange(5)
    framed = unit_measures.FramedRecording(
        source, np.zeros(5, np.int64), codes, np.zeros((5, 39), np.float32)
    )
    frames = unit_measures.Frames([framed], CLASSES, 25.0)
    unit_set = unit_measures.UnitSet("x", [codes], np.eye(5))
    found = {
        has_silence: [
            (item.phone, item.context, item.units.tolist())
            for item in unit_measures.triphones(frames, unit_set, has_silence=has_silence)
        ]
        for has_silence in (True, False)
    }
    assert found[True] == [
        (1, (0, 2), [0, 1, 2, 3]),
        (2, (1, 1), [1, 2, 3, 4]),
        (1, (2, 2), [2, 3, 4]),
    ]
    assert found[False] == found[True][1:]
