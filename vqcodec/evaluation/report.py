"""What reports are made from and made of: the clips of a corpus, means over them, and tables."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from vqcodec.data.corpora import Utterance, utterances
from vqcodec.errors import DataError
from vqcodec.evaluation.bootstrap import Mean, ratio
from vqcodec.evaluation.quality import METRICS
from vqcodec.files import write_atomically

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

_Item = TypeVar("_Item")


def clips(corpus: Path, split: str, *, speaker: str | None = None) -> list[Utterance]:
    """Recordings of one split of a corpus, of one speaker if given, sorted by name.

    Args:
        corpus: a folder as `vqcodec.data.corpora.utterances` lists it, or the manifest.csv in it.
        split: `train`, `valid`, `test` or `test_unseen`.
        speaker: whose; everybody's when None.

    Raises:
        DataError: the corpus cannot be read, or has no such recording.
    """
    if corpus.is_file() and corpus.name != "manifest.csv":
        raise DataError(f"{corpus}: not a corpus; give a folder or its manifest.csv")
    root = corpus.parent if corpus.is_file() else corpus
    everything = [each for each in utterances(root) if speaker in (None, each.speaker)]
    found = [utterance for utterance in everything if utterance.split == split]
    if not found:
        whose = f" of {speaker}" if speaker else ""
        counts = Counter(utterance.split for utterance in everything)
        there = ", ".join(f"{n} in {name}" for name, n in sorted(counts.items())) or "none at all"
        raise DataError(
            f"{corpus}: no recording{whose} in split {split} ({there}); choose another "
            "split, or give the corpus a manifest.csv that says what belongs to it"
        )
    return found


def spread(items: Sequence[_Item], number: int | None) -> list[_Item]:
    """At most so many of the items, spread evenly over them; all of them when None."""
    if number is None or number >= len(items):
        return list(items)
    return [items[i] for i in np.linspace(0, len(items) - 1, number).round().astype(int)]


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


def markdown_table(rows: Sequence[Mapping[str, str]]) -> str:
    """Rows with the same keys as a Markdown table, the first column left, the others right."""
    columns = list(rows[0])
    lines = [columns, ["---"] + ["---:"] * (len(columns) - 1), *(list(r.values()) for r in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def write_report(
    output: Path, name: str, rows: Sequence[Mapping[str, object]], summary: str
) -> None:
    """Write rows of the same keys as `name`.csv and a Markdown page as `name`.md into a folder.

    The folder is made if need be. Floats have six digits; None is empty.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(rows[0])
    for row in rows:
        writer.writerow(
            f"{value:.6g}" if isinstance(value, float) else value for value in row.values()
        )
    write_atomically(output / f"{name}.csv", text.getvalue().encode())
    write_atomically(output / f"{name}.md", summary.encode())
