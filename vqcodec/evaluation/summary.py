"""What the rows of a report come to: means over files, and word errors over words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from vqcodec.evaluation.quality import METRICS

WORD_ERROR_RATE = "WER (%)"

_IS_HIGHER_BETTER = {
    **{metric.name: metric.higher_is_better for metric in METRICS},
    WORD_ERROR_RATE: False,
}


class Mean(NamedTuple):
    """A measure over several files.

    Attributes:
        value: None where no file has one.
        n_files: that have one.
    """

    value: float | None
    n_files: int


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
    kilobits_per_second: float
    n_files: int
    means: dict[str, Mean]


def mean(rows: Sequence[Mapping[str, Any]], column: str) -> Mean:
    """Mean of a column over the rows where it is defined."""
    values = [row[column] for row in rows if row[column] is not None]
    return Mean(float(np.mean(values)) if values else None, len(values))


def word_error_rate(rows: Sequence[Mapping[str, Any]], column: str = "word errors") -> Mean:
    """All errors over all words (the column `words`), in percent, where both are defined."""
    defined = [row for row in rows if row[column] is not None]
    if not defined:
        return Mean(None, 0)
    rate = sum(row[column] for row in defined) / sum(row["words"] for row in defined)
    return Mean(100 * rate, len(defined))


def summarise(rows: Sequence[Mapping[str, Any]]) -> CodecSummary:
    """The rows of one codec in one."""
    means = {metric.name: mean(rows, metric.name) for metric in METRICS}
    means[WORD_ERROR_RATE] = word_error_rate(rows)
    kilobits_per_second = float(np.mean([row["kbit/s"] for row in rows]))
    return CodecSummary(rows[0]["codec"], kilobits_per_second, len(rows), means)


def table_row(summary: CodecSummary) -> dict[str, str]:
    """A summary as a row of a table, which says so where a mean is not over all files."""
    row = {"codec": summary.codec, "kbit/s": f"{summary.kilobits_per_second:.2f}"}
    for name, found in summary.means.items():
        arrow = "↑" if _IS_HIGHER_BETTER[name] else "↓"
        row[f"{name} {arrow}"] = cell(found, summary.n_files, 1 if "%" in name else 3)
    return row


def cell(found: Mean, n_files: int, decimals: int) -> str:
    """A mean as text, with the number of files it is over where that is not all."""
    if found.value is None:
        return "-"
    missing = f" ({found.n_files} of {n_files} files)" if found.n_files < n_files else ""
    return f"{found.value:.{decimals}f}{missing}"
