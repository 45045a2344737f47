"""Intervals hold what they are of, as often as they say."""

from __future__ import annotations

import numpy as np
import pytest

from vqcodec.evaluation import summary
from vqcodec.evaluation.bootstrap import Interval, ratio_interval


def test_the_interval_of_a_mean_is_as_wide_as_theory_says() -> None:
    values = np.random.default_rng(1).normal(3, 2, 400)
    found = ratio_interval(values)
    assert found is not None
    half = 1.96 * values.std() / np.sqrt(len(values))
    assert found == pytest.approx((values.mean() - half, values.mean() + half), abs=0.15 * half)


def test_19_of_20_intervals_hold_the_truth() -> None:
    draws = np.random.default_rng(2).exponential(1, (200, 60))
    found = [ratio_interval(values) for values in draws]
    held = sum(one is not None and one.low <= 1 <= one.high for one in found)
    assert 0.89 <= held / 200 <= 0.98


def test_an_interval_is_the_same_every_time_and_resamples_pairs() -> None:
    words = np.arange(1, 30)
    assert ratio_interval(words) == ratio_interval(list(words))
    assert ratio_interval(3 * words, words) == (3, 3)  # every recording has this ratio


@pytest.mark.parametrize(
    ("numerators", "denominators"), [([], None), ([0.5], None), ([1, 1, 1], [1, 0, 0])]
)
def test_what_says_nothing_of_others_has_no_interval(
    numerators: list[float], denominators: list[float] | None
) -> None:
    assert ratio_interval(numerators, denominators) is None


@pytest.mark.parametrize(
    ("interval", "n_files", "text"),
    [
        (Interval(0.4, 0.625), 3, "0.50 [0.40, 0.62]"),
        (Interval(0.4, 0.625), 4, "0.50 [0.40, 0.62] (3 of 4 files)"),
        (Interval(0.499, 0.501), 3, "0.50"),  # nothing varies that could be seen
        (None, 3, "0.50"),
    ],
)
def test_a_cell_shows_its_interval(interval: Interval | None, n_files: int, text: str) -> None:
    assert summary.cell(summary.Mean(0.5, 3, interval), n_files, 2) == text
