"""What the rows of a report come to: means over files, and word errors over words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vqcodec.evaluation.bootstrap import Mean, ratio
from vqcodec.evaluation.quality import METRICS

BIT_RATE = "kbit/s"
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


def mean(rows: Sequence[Mapping[str, Any]], column: str) -> Mean:
    """Mean of a column over the rows where it is defined."""
    return ratio([row[column] for row in rows])


def word_error_rate(rows: Sequence[Mapping[str, Any]], column: str = "word errors") -> Mean:
    """All errors over all words (the column `words`), in percent, where both are defined."""
    return ratio([row[column] for row in rows], [row["words"] for row in rows]).in_percent()


def summarise(
    rows: Sequence[Mapping[str, Any]], originals: Sequence[Mapping[str, Any]]
) -> dict[str, Mean]:
    """The rows of one codec by column, beside those of the originals of the same files."""
    errors = ([row["word errors"] for row in of] for of in (rows, originals))
    return {
        BIT_RATE: mean(rows, BIT_RATE),
        WORD_ERROR_RATE: word_error_rate(rows),
        WORD_ERROR_RATIO: ratio(*errors),
        INSERTION_RATE: word_error_rate(rows, "words put in"),
        **{metric.name: mean(rows, metric.name) for metric in METRICS},
    }


def table_row(codec: str, means: Mapping[str, Mean]) -> dict[str, str]:
    """What `summarise` finds as a row of a table."""
    row = {"codec": codec, BIT_RATE: cell(means[BIT_RATE], 2)}
    for name, found in means.items():
        if name != BIT_RATE:
            row[heading(name)] = cell(found, 1 if name.endswith(("(%)", "(cents)")) else 3)
    return row


def heading(name: str) -> str:
    """The heading of a measure's column: which way is better, and whether it was trained on."""
    mark = f" {TRAINED_ON_MARK}" if _IS_TRAINED_ON.get(name) else ""
    return f"{name}{mark} {'↑' if _IS_HIGHER_BETTER.get(name) else '↓'}"


def cell(found: Mean, decimals: int) -> str:
    """A mean as text, with its interval, and the number of files it is over where not all."""
    if found.value is None:
        return "-"
    ends = [f"{end:.{decimals}f}" for end in found.interval or ()]
    # Of what is the same in all files, such as a recording's likeness to itself, rounding is left.
    interval = f" [{', '.join(ends)}]" if len(set(ends)) == 2 else ""
    is_partial = found.n_files < found.n_all
    missing = f" ({found.n_files} of {found.n_all} files)" if is_partial else ""
    return f"{found.value:.{decimals}f}{interval}{missing}"
