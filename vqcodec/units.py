"""Codes as phoneme-like units: sequences that other programs read. Imports no torch."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from vqcodec.codes import Codes
from vqcodec.errors import CodesError
from vqcodec.speakers import VECTOR_LENGTH, Speaker

# Who speaks when only the units are wanted, which do not depend on it.
NOBODY = Speaker(np.zeros(VECTOR_LENGTH, np.int8))


class Interval(NamedTuple):
    """A labelled stretch of a recording, start and end in seconds."""

    start: float
    end: float
    label: str


@dataclass(frozen=True, eq=False)
class Units:
    """The units of one recording.

    Attributes:
        units: (N,) int64 in [0, codebook_size).
        durations: (N,) int64, codes that each unit lasts; all 1 unless repeats are collapsed.
        collapsed: whether repeats are collapsed.
        frame_rate: codes a second.
        duration_s: of the recording in seconds, at most the units' own and less than a code under.
        fingerprint: of the model, as hexadecimal digits.
    """

    units: npt.NDArray[np.int64]
    durations: npt.NDArray[np.int64]
    collapsed: bool
    frame_rate: float
    duration_s: float
    fingerprint: str

    @classmethod
    def of(cls, codes: Codes, *, collapse: bool = False) -> Units:
        """Take the codes of a recording as units.

        Args:
            codes: of one codebook.
            collapse: make one unit of consecutive repeats, as in Lakhotia et al. 2021 (arXiv
                2102.01192, section 3).

        Raises:
            CodesError: several codebooks: their codes are no sequence of single units.
        """
        if codes.n_codebooks != 1:
            raise CodesError(
                f"has {codes.n_codebooks} codes at a time, which are no sequence of units; "
                "use a model with one codebook"
            )
        units = codes.codes[0].astype(np.int64)
        durations = np.ones_like(units)
        if collapse:
            starts = np.flatnonzero(np.diff(units, prepend=-1))
            durations = np.diff(starts, append=len(units))
            units = units[starts]
        frame_rate = codes.sample_rate / codes.hop_length
        return cls(
            units, durations, collapse, frame_rate, codes.duration_s, codes.fingerprint.hex()
        )

    def intervals(self) -> list[Interval]:
        """Where each unit is in time; the last one ends with the recording."""
        ends = np.cumsum(self.durations) / self.frame_rate
        ends[-1] = self.duration_s
        starts = [0.0, *ends[:-1].tolist()]
        labels = map(str, self.units.tolist())
        return list(map(Interval, starts, ends.tolist(), labels))


def text_line(name: str, units: Units) -> str:
    """A line `name|17 402 9`, as fairseq's unit manifests have it.

    Collapsed units are followed by their durations in codes: `name|17 402 9|1 2 1`.

    Raises:
        CodesError: the name holds what separates the fields or the lines.
    """
    if set(name) & set("|\r\n"):
        raise CodesError(
            f"{name!r}: a name with | or a line break cannot stand in a .txt; write .jsonl"
        )
    fields = [name, _spaced(units.units)]
    if units.collapsed:
        fields.append(_spaced(units.durations))
    return "|".join(fields) + "\n"


def json_line(audio: str, units: Units) -> str:
    """A line of JSON: audio, units, durations (in codes, if collapsed), frame_rate (Hz), model."""
    record: dict[str, object] = {"audio": audio, "units": units.units.tolist()}
    if units.collapsed:
        record["durations"] = units.durations.tolist()
    record |= {"frame_rate": units.frame_rate, "model": units.fingerprint}
    return json.dumps(record, ensure_ascii=False) + "\n"


def npy_bytes(units: Units) -> bytes:
    """A .npy file, int64: units (N,), or collapsed units and their durations (2, N)."""
    file = io.BytesIO()
    array = np.stack([units.units, units.durations]) if units.collapsed else units.units
    np.save(file, array, allow_pickle=False)
    return file.getvalue()


def textgrid(intervals: Sequence[Interval], *, tier: str) -> str:
    """One interval tier as a Praat TextGrid in the long text format.

    Source: Boersma and Weenink, Praat manual, "TextGrid file formats".

    Args:
        intervals: without gaps, the first one at 0.
        tier: its name.
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


def _spaced(values: Iterable[int]) -> str:
    return " ".join(map(str, values))


def _number(seconds: float) -> str:
    return f"{seconds:.10g}"


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'
