"""Intervals hold what they are of, as often as they say."""

from __future__ import annotations

import numpy as np
import pytest

from vqcodec.evaluation import report
from vqcodec.evaluation.bootstrap import Interval, Mean, ratio, shares_of


def test_the_interval_of_a_mean_is_as_wide_as_theory_says() -> None:
    values = np.random.default_rng(1).normal(3, 2, 400)
    found = ratio(values).interval
    assert found is not None
    half = 1.96 * values.std() / np.sqrt(len(values))
    assert found == pytest.approx((values.mean() - half, values.mean() + half), abs=0.15 * half)


def test_19_of_20_intervals_hold_the_truth() -> None:
    draws = np.random.default_rng(2).exponential(1, (200, 60))
    found = [ratio(values).interval for values in draws]
    held = sum(one is not None and one.low <= 1 <= one.high for one in found)
    assert 0.89 <= held / 200 <= 0.98


def test_an_interval_is_the_same_every_time_and_resamples_pairs() -> None:
    words = np.arange(1, 30)
    assert ratio(words) == ratio(list(words))
    assert ratio(3 * words, words).interval == (3, 3)  # every recording has this ratio


def test_what_repetitions_flatter_keeps_its_value_in_its_interval() -> None:
    """The share of the commonest of ten kinds, which a draw of few overrates."""
    values = np.random.default_rng(3).integers(0, 10, 50)

    def shares(weights: np.ndarray) -> list[float]:
        counts = np.bincount(values, weights, 10)
        return [counts.max() / counts.sum(), (weights * (values < 5)).sum() / weights.sum(), np.nan]

    commonest, plain, undefined = shares_of(shares, 50)
    assert commonest.value == shares(np.ones(50))[0]
    assert commonest.interval is not None
    assert commonest.interval.low < commonest.value < commonest.interval.high
    assert plain.interval == pytest.approx(ratio(values < 5).interval, abs=0.01)
    assert undefined == (None, 0, None, 50)
    assert shares_of(lambda weights: weights, 1) == [(1, 1, None, 1)]


@pytest.mark.parametrize(
    ("numerators", "denominators"), [([], None), ([0.5], None), ([1, 1, 1], [1, 0, 0])]
)
def test_what_says_nothing_of_others_has_no_interval(
    numerators: list[float], denominators: list[float] | None
) -> None:
    assert ratio(numerators, denominators).interval is None


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
    assert report.cell(Mean(0.5, 3, interval, n_files), 2) == text
