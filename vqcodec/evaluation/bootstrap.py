"""Values over recordings, with confidence intervals by the percentile bootstrap.

Source: Efron 1979, Annals of Statistics 7.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

N_RESAMPLES, SEED = 2000, 0
_ENDS = 0.025, 0.975


class Interval(NamedTuple):
    """Where a value lies with 95 % confidence."""

    low: float
    high: float


class Mean(NamedTuple):
    """A measure over several recordings.

    Attributes:
        value: None where no recording has one.
        n_files, n_all: recordings that have one, and all.
        interval: of 95 %; None where there is none.
    """

    value: float | None
    n_files: int
    interval: Interval | None = None
    n_all: int = 0

    def in_percent(self) -> Mean:
        """A share, times 100."""
        interval = self.interval and Interval(*(100 * end for end in self.interval))
        return self._replace(value=self.value and 100 * self.value, interval=interval)


def ratio(
    numerators: Sequence[float | None] | np.ndarray,
    denominators: Sequence[float | None] | np.ndarray | None = None,
) -> Mean:
    """A ratio of sums over the recordings, (N,) each, for which both are defined; else a mean.

    It has no interval for fewer than two recordings, or where more than one draw in 40 has no
    ratio.
    """
    above = np.array(numerators, np.float64)  # of None, NaN
    below = np.ones(len(above)) if denominators is None else np.array(denominators, np.float64)
    is_defined = ~np.isnan(above + below)
    n_all, above, below = len(above), above[is_defined], below[is_defined]
    if not below.sum():
        return Mean(None, 0, n_all=n_all)
    interval = None
    if len(above) > 1:
        drawn = _draws(len(above))
        sums = below[drawn].sum(axis=1)
        # A draw without any of the denominator counts as the largest ratio there is.
        largest = np.full(N_RESAMPLES, np.inf)
        ratios = np.divide(above[drawn].sum(axis=1), sums, out=largest, where=sums > 0)
        low, high = np.quantile(ratios, _ENDS, method="nearest")
        interval = Interval(float(low), float(high)) if np.isfinite(high) else None
    return Mean(float(above.sum() / below.sum()), len(above), interval, n_all)


def shares_of(shares: Callable[[np.ndarray], Sequence[float]], n: int) -> list[Mean]:
    """What is no ratio of sums over recordings, such as mutual information.

    A draw repeats recordings, which flatters what is scored in sample: the draws are moved so that
    their mean is the value itself.

    Args:
        shares: how often each recording counts, (N,) -> (S,) in [0, 1], NaN where undefined.
        n: recordings.

    Returns:
        (S,), without an interval for fewer than two recordings, or where more than one draw in 40
        has no value.
    """
    drawn = [shares(np.bincount(one, minlength=n)) for one in _draws(n)] if n > 1 else []
    means = []
    for place, value in enumerate(shares(np.ones(n))):
        if np.isnan(value):
            means.append(Mean(None, 0, n_all=n))
            continue
        defined = np.array([one[place] for one in drawn if np.isfinite(one[place])])
        interval = None
        if len(defined) >= N_RESAMPLES * _ENDS[1]:
            ends = np.quantile(defined, _ENDS, method="nearest") + value - defined.mean()
            interval = Interval(*map(float, ends.clip(0, 1)))
        means.append(Mean(float(value), n, interval, n))
    return means


def _draws(n: int) -> np.ndarray:
    """Numbers of recordings, (N_RESAMPLES, N), always the same."""
    return np.random.default_rng(SEED).integers(n, size=(N_RESAMPLES, n))
