"""TextGrid files, which Praat reads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Interval(NamedTuple):
    """A labelled stretch of a recording, start and end in seconds."""

    start: float
    end: float
    label: str


def textgrid(intervals: Sequence[Interval], *, tier: str) -> str:
    """One interval tier, without gaps and from 0 on, as a Praat TextGrid in the long text format.

    Source: Boersma and Weenink, Praat manual, "TextGrid file formats".
    """
    end = _number(intervals[-1].end)
    lines = [
        'File type = "ooTextFile"',
        'Object class = "TextGrid"',
        "",
        "xmin = 0",
        f"xmax = {end}",
        "tiers? <exists>",
        "size = 1",
        "item []:",
        "    item [1]:",
        '        class = "IntervalTier"',
        f"        name = {_quoted(tier)}",
        "        xmin = 0",
        f"        xmax = {end}",
        f"        intervals: size = {len(intervals)}",
    ]
    for number, interval in enumerate(intervals, 1):
        lines += [
            f"        intervals [{number}]:",
            f"            xmin = {_number(interval.start)}",
            f"            xmax = {_number(interval.end)}",
            f"            text = {_quoted(interval.label)}",
        ]
    return "\n".join(lines) + "\n"


def _number(seconds: float) -> str:
    return f"{seconds:.10g}"


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'
