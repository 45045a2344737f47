"""Codes as phoneme-like units: sequences that other programs read and write. Imports no torch."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from vqcodec.errors import CodesError
from vqcodec.format.codes import Codes
from vqcodec.format.textgrid import Interval
from vqcodec.weights.voices import VECTOR_LENGTH, Speaker

# Who speaks when only the units are wanted, which depend neither on that nor on the pitch, which
# `Codec.encode` then does not track.
NOBODY = Speaker(np.zeros(VECTOR_LENGTH, np.int8))
# One code in five to seven is the one before it; so many without a repeat were collapsed.
MOST_WITHOUT_REPEATS = 250
_LONGEST = 10**8  # codes of one recording: days


class ReadUnits(NamedTuple):
    """Units (N,) int64, each as often as it lasts, and their model's fingerprint, if told."""

    units: npt.NDArray[np.int64]
    fingerprint: bytes | None = None


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
        """Take the codes of a recording as units; raises CodesError for several codebooks.

        Collapsed, consecutive repeats are one unit, as in Lakhotia et al. 2021 (arXiv 2102.01192,
        section 3).
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

    Collapsed units are followed by their durations in codes: `name|17 402 9|1 2 1`. Raises
    CodesError for a name with what separates the fields or the lines.
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


def read_units(path: str | os.PathLike[str]) -> dict[str, ReadUnits]:
    """Read what `text_line`, `json_line` and `npy_bytes` make, or others in their form.

    Args:
        path: `.txt` (lines `name|units` or `name|units|durations`, or of units alone, which are
            called by the file and, of several, their number), `.jsonl` or `.npy`.

    Returns:
        Name of a recording -> its units. Paths of a .jsonl lose their suffix and the folders that
        all of them have.

    Raises:
        CodesError: it cannot be read, two recordings have one name, durations are impossible, or
            repeats seem to be collapsed, and there are no durations.
    """
    path = Path(path)
    read = {".txt": _read_text, ".jsonl": _read_json, ".npy": _read_npy}.get(path.suffix.lower())
    if read is None:
        raise CodesError(f"{path}: no file of units; name a .txt, .jsonl or .npy")
    try:
        found = read(path)
    except OSError as error:
        raise CodesError(f"{path}: cannot be read ({error.strerror}); check the path") from None
    except (ValueError, TypeError, LookupError, AttributeError, OverflowError) as error:
        fault = " ".join(str(error).split()) or type(error).__name__
        raise CodesError(
            f"{path}: its units cannot be read ({fault}); write them as vqcodec units does"
        ) from None
    if not found:
        raise CodesError(f"{path}: holds no units; write a line of them for each recording")
    return found


def _read_text(path: Path) -> dict[str, ReadUnits]:
    text = path.read_text(encoding="utf-8", errors="surrogateescape")  # names of files need not be
    lines = [line for line in text.split("\n") if line.strip()]
    found = []
    for number, line in enumerate(lines, 1):
        *name, units = line.split("|")[:2]
        durations = line.split("|")[2:]
        if len(durations) > 1:
            raise ValueError(f"line {number} has more than a name, units and durations")
        default = path.stem if len(lines) == 1 else f"{path.stem}-{number}"
        found.append(((name or [default])[0], _expanded(units, *durations), None))
    return _named(found)


def _read_json(path: Path) -> dict[str, ReadUnits]:
    lines = path.read_text(encoding="utf-8").split("\n")
    records = [json.loads(line) for line in lines if line.strip()]
    audio = [Path(record.get("audio", f"{path.stem}-{n}")) for n, record in enumerate(records, 1)]
    above = os.path.commonpath([each.parent for each in audio]) if audio else ""
    return _named(
        (
            each.relative_to(above).with_suffix("").as_posix(),
            _expanded(record["units"], record.get("durations")),
            bytes.fromhex(record["model"]) if "model" in record else None,
        )
        for each, record in zip(audio, records, strict=True)
    )


def _read_npy(path: Path) -> dict[str, ReadUnits]:
    # Mapped, an array that is shorter than it claims is refused before it takes any memory.
    with path.open("rb") as file:
        if file.read(6) != b"\x93NUMPY":
            raise ValueError("it is no .npy file")
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    if array.ndim == 2 and len(array) != 2:
        raise ValueError(f"{len(array)} rows, not one of units or two of units and durations")
    rows = [array] if array.ndim == 1 else list(array)
    return _named([(path.stem, _expanded(*rows), None)])


def _named(
    found: Iterable[tuple[str, tuple[npt.NDArray[np.int64], bool], bytes | None]],
) -> dict[str, ReadUnits]:
    """Units by their names; ValueError if two have one, or no unit of any comes twice in a row."""
    named: dict[str, ReadUnits] = {}
    paths: set[Path] = set()  # `a` and `./a` are one
    n_plain = 0
    for name, (units, is_plain), fingerprint in found:
        if Path(name) in paths:
            raise ValueError(f"two recordings are called {name}")
        paths.add(Path(name))
        if (
            not Path(name).name
            or Path(name).is_absolute()
            or {"..", "\0"} & {*Path(name).parts, *name}
        ):
            raise ValueError(f"{name!r} cannot name a file")
        named[name] = ReadUnits(units, fingerprint)
        n_plain += len(units) if is_plain else 0
    has_repeats = any((np.diff(each.units) == 0).any() for each in named.values())
    if n_plain > MOST_WITHOUT_REPEATS and not has_repeats:
        raise ValueError(
            "no unit comes twice in a row, so repeats were collapsed, and there are no durations: "
            "add these, or leave --dedup out"
        )
    return named


def _expanded(units: Any, durations: Any = None) -> tuple[npt.NDArray[np.int64], bool]:
    """Units, each as often as it lasts, and whether that was not said; ValueError if impossible."""
    numbers = whole_numbers(units)
    if durations is None:
        return numbers, True
    lasting = whole_numbers(durations)
    is_possible = lasting.min() >= 1 and lasting.max() <= _LONGEST and lasting.sum() <= _LONGEST
    if lasting.shape != numbers.shape or not is_possible:
        raise ValueError(f"{lasting.size} durations of 1 code or more for {numbers.size} units")
    return np.repeat(numbers, lasting), False


def unit_array(units: Any, n_codebooks: int, model: str) -> npt.NDArray[Any]:
    """Units of whatever form as an array (n_codebooks, N).

    Raises CodesError if they are no integers, or not of as many codebooks as the model has.
    """
    try:
        array = np.atleast_2d(whole_numbers(units))
    except (ValueError, OverflowError, TypeError) as error:
        raise CodesError(f"these are no units: {error}") from None
    if len(array) != n_codebooks:
        raise CodesError(
            f"units of {len(array)} codebooks, and model {model} has {n_codebooks}; "
            "give (n_codebooks, N)"
        )
    return array


def whole_numbers(units: Any) -> npt.NDArray[np.int64]:
    """Integers in an array, tensor or list, or a text of them, as (N,) or (n_codebooks, N) int64.

    Raises ValueError if they are no whole numbers, or there are none.
    """
    given = units.split() if isinstance(units, str) else units
    if isinstance(given, list) and given and all(isinstance(unit, str) for unit in given):
        given = [int(unit) for unit in given]
    array = np.asarray(given)
    if array.ndim not in (1, 2) or array.dtype.kind not in "iu" or not array.size:
        raise ValueError("units are whole numbers, (N,) or (n_codebooks, N), N of 1 or more")
    return array.astype(np.int64)


def _spaced(values: Iterable[int]) -> str:
    return " ".join(map(str, values))
