"""What the rows of a report come to: means over files, and word errors over words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from vqcodec.evaluation.bootstrap import Interval, ratio_interval
from vqcodec.evaluation.quality import METRICS

WORD_ERROR_RATE = "WER (%)"
INSERTION_RATE = "words put in (%)"
WORD_ERROR_RATIO = "WER / original's"

TRAINED_ON_MARK = "\N{DAGGER}"
TRAINED_ON_NOTE = (
    f"{TRAINED_ON_MARK} of a kind with a loss of the models' training, or of the search that "
    "refines: no impartial judge of them."
)

_IS_HIGHER_BETTER = {metric.name: metric.higher_is_better for metric in METRICS}
_IS_TRAINED_ON = {metric.name: metric.is_trained_on for metric in METRICS}


class Mean(NamedTuple):
    """A measure over several files.

    Attributes:
        value: None where no file has one.
        n_files: that have one.
        interval: of 95 %; None where there is none.
    """

    value: float | None
    n_files: int
    interval: Interval | None = None

    def in_percent(self) -> Mean:
        """A share, times 100."""
        interval = self.interval and Interval(*(100 * end for end in self.interval))
        return Mean(self.value and 100 * self.value, self.n_files, interval)


@dataclass(frozen=True)
class CodecSummary:
    """What one codec achieves.

    Attributes:
        codec: its name.
        kilobits_per_second: mean over files.
        n_files: all.
        means: of every measure, by name.
    """

    codec: str
    kilobits_per_second: Mean
    n_files: int
    means: dict[str, Mean]


def mean(rows: Sequence[Mapping[str, Any]], column: str) -> Mean:
    """Mean of a column over the rows where it is defined."""
    return ratio([row[column] for row in rows if row[column] is not None])


def word_error_rate(rows: Sequence[Mapping[str, Any]], column: str = "word errors") -> Mean:
    """All errors over all words (the column `words`), in percent, where both are defined."""
    defined = [row for row in rows if row[column] is not None]
    return ratio([row[column] for row in defined], [row["words"] for row in defined]).in_percent()


def word_error_ratio(errors: Sequence[int | None], originals: Sequence[int | None]) -> Mean:
    """All errors over those in the originals of the same files, where both are defined.

    Args:
        errors: in each file.
        originals: in the originals of the same files, in the same order.
    """
    pairs = [
        (ours, theirs)
        for ours, theirs in zip(errors, originals, strict=True)
        if ours is not None and theirs is not None
    ]
    return ratio([ours for ours, _ in pairs], [theirs for _, theirs in pairs])


def ratio(
    numerators: Sequence[float] | np.ndarray,
    denominators: Sequence[float] | np.ndarray | None = None,
) -> Mean:
    """A ratio of sums over recordings.

    Args:
        numerators: (N,), one for each recording.
        denominators: (N,), of the same; ones, which makes the ratio a mean, when None.
    """
    total = len(numerators) if denominators is None else sum(denominators)
    if not total:
        return Mean(None, 0)
    interval = ratio_interval(numerators, denominators)
    return Mean(float(sum(numerators) / total), len(numerators), interval)


def summarise(
    rows: Sequence[Mapping[str, Any]], originals: Sequence[Mapping[str, Any]]
) -> CodecSummary:
    """The rows of one codec in one, beside those of the originals of the same files."""
    means = {
        WORD_ERROR_RATE: word_error_rate(rows),
        WORD_ERROR_RATIO: word_error_ratio(
            *([row["word errors"] for row in of] for of in (rows, originals))
        ),
        INSERTION_RATE: word_error_rate(rows, "words put in"),
        **{metric.name: mean(rows, metric.name) for metric in METRICS},
    }
    return CodecSummary(rows[0]["codec"], mean(rows, "kbit/s"), len(rows), means)


def table_row(summary: CodecSummary) -> dict[str, str]:
    """A summary as a row of a table, which says so where a mean is not over all files."""
    row = {"codec": summary.codec, "kbit/s": cell(summary.kilobits_per_second, summary.n_files, 2)}
    for name, found in summary.means.items():
        decimals = 1 if name.endswith(("(%)", "(cents)")) else 3
        row[heading(name)] = cell(found, summary.n_files, decimals)
    return row


def heading(name: str) -> str:
    """The heading of a measure's column: which way is better, and whether it was trained on."""
    mark = f" {TRAINED_ON_MARK}" if _IS_TRAINED_ON.get(name) else ""
    return f"{name}{mark} {'↑' if _IS_HIGHER_BETTER.get(name) else '↓'}"


def cell(found: Mean, n_files: int, decimals: int) -> str:
    """A mean as text, with its interval, and the number of files it is over where not all."""
    if found.value is None:
        return "-"
    ends = [f"{end:.{decimals}f}" for end in found.interval or ()]
    # Of what is the same in all files, such as a recording's likeness to itself, rounding is left.
    interval = f" [{', '.join(ends)}]" if len(set(ends)) == 2 else ""
    missing = f" ({found.n_files} of {n_files} files)" if found.n_files < n_files else ""
    return f"{found.value:.{decimals}f}{interval}{missing}"
