"""Confidence intervals by the percentile bootstrap (Efron 1979, Annals of Statistics 7)."""

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


def ratio_interval(
    numerators: Sequence[float] | np.ndarray,
    denominators: Sequence[float] | np.ndarray | None = None,
) -> Interval | None:
    """The interval of a ratio of sums over recordings, each (N,); of a mean without denominators.

    Returns None for fewer than two recordings, or where more than one draw in 40 has no ratio.
    """
    n = len(numerators)
    if n < 2:
        return None
    drawn = _draws(n)
    above = np.asarray(numerators, np.float64)[drawn].sum(axis=1)
    below = np.ones(n) if denominators is None else np.asarray(denominators, np.float64)
    sums = below[drawn].sum(axis=1)
    # A draw without any of the denominator counts as the largest ratio there is.
    ratios = np.divide(above, sums, out=np.full(N_RESAMPLES, np.inf), where=sums > 0)
    low, high = np.quantile(ratios, _ENDS, method="nearest")
    return Interval(float(low), float(high)) if np.isfinite(high) else None


def share_intervals(
    shares: Callable[[np.ndarray], Sequence[float]], n: int
) -> list[Interval | None]:
    """The intervals of what is no ratio of sums over recordings, such as mutual information.

    A draw repeats recordings, which flatters what is scored in sample: the draws are moved so that
    their mean is the value itself.

    Args:
        shares: how often each recording counts, (N,) -> (S,) in [0, 1], NaN where undefined.
        n: recordings.

    Returns:
        (S,), each None for fewer than two recordings, or where more than one draw in 40 has none.
    """
    value = np.asarray(shares(np.ones(n)))
    if n < 2:
        return [None] * len(value)
    found = np.array([shares(np.bincount(drawn, minlength=n)) for drawn in _draws(n)])
    intervals: list[Interval | None] = []
    for own, draws in zip(value, found.T, strict=True):
        defined = draws[np.isfinite(draws)]
        if np.isnan(own) or len(defined) < N_RESAMPLES * _ENDS[1]:
            intervals.append(None)
            continue
        ends = np.quantile(defined, _ENDS, method="nearest") + own - defined.mean()
        intervals.append(Interval(*map(float, ends.clip(0, 1))))
    return intervals


def _draws(n: int) -> np.ndarray:
    """Numbers of recordings, (N_RESAMPLES, N), always the same."""
    return np.random.default_rng(SEED).integers(n, size=(N_RESAMPLES, n))
