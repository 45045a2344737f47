"""What reports are made from and made of: the clips of a corpus, and tables."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

from vqcodec.data.corpora import Utterance, utterances
from vqcodec.errors import DataError
from vqcodec.files import write_atomically

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
