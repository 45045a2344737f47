"""Confidence intervals of what a report says of all recordings.

Source: Efron 1979, Bootstrap methods: another look at the jackknife, Annals of Statistics 7(1);
percentile intervals.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

N_RESAMPLES, SEED = 2000, 0
_COVERAGE = 0.95


class Interval(NamedTuple):
    """Where a value lies with 95 % confidence."""

    low: float
    high: float


def ratio_interval(
    numerators: Sequence[float], denominators: Sequence[float] | None = None
) -> Interval | None:
    """The interval of a ratio of sums over recordings, which are drawn with replacement.

    Args:
        numerators: (N,), one for each recording.
        denominators: (N,), of the same; ones, which makes the ratio a mean, when None.

    Returns:
        None for fewer than two recordings, or where more than one in 40 draws has no ratio.
    """
    n = len(numerators)
    if n < 2:
        return None
    drawn = np.random.default_rng(SEED).integers(n, size=(N_RESAMPLES, n))
    above = np.asarray(numerators, np.float64)[drawn].sum(axis=1)
    below = np.ones(n) if denominators is None else np.asarray(denominators, np.float64)
    sums = below[drawn].sum(axis=1)
    # A draw without any of the denominator counts as the largest ratio there is.
    ratios = np.divide(above, sums, out=np.full(N_RESAMPLES, np.inf), where=sums > 0)
    rest = (1 - _COVERAGE) / 2
    low, high = np.quantile(ratios, [rest, 1 - rest], method="nearest")
    return Interval(float(low), float(high)) if np.isfinite(high) else None
