"""Phone labels: files of HTK, HTS and TIMIT, Praat TextGrids and CTM, as intervals in seconds."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vqcodec.data.corpora import Utterance, utterances
from vqcodec.errors import DataError
from vqcodec.files import files_below
from vqcodec.format.textgrid import Interval

SILENCE = "sil"
UNLABELLED = -1
LABEL_SUFFIXES = (".lab", ".phn", ".textgrid", ".ctm")
# How far the last label may end from the end of its recording before its times are taken to be of
# another unit: some aligners label silence beyond it, and some people the first word alone.
MOST_BEYOND_S, LEAST_SHARE = 2.0, 0.02

_HTK_UNITS_PER_SECOND = 10**7
_TIMIT_RATE = 16_000
_PHONE_TIERS = {"phones", "phone", "phn", "phonemes", "phoneme", "segments", "segment", "mau"}
# What aligners and corpora call silences, pauses, noises and words that they do not know.
_SILENCES = {
    *("", "sil", "sp", "spn", "nsn", "pau", "ssil", "#", "##", "h#", "_", "<eps>", "epi"),
    *("<sil>", "<s>", "</s>", "<p:>", "<p>", "[sil]", "+nsn+", "+spn+", "[noise]", "[spn]", "brth"),
    *("silb", "sile", "silence", "pause"),
}
_STRESS = re.compile(r"^(A[AEHOWXY]|E[HRY]|I[HXY]|O[WY]|U[HWX]|AXR)[0-2]$", re.IGNORECASE)
_TONE = re.compile(r"^[^\W\d_]+[3-6]$")
_KALDI_POSITION = re.compile(r"_[BIES]$")
_HTS_CONTEXT = re.compile(r"-([^-+]+)\+")
# A string with its doubled quotes, or a number that stands alone; Praat ignores all else.
_TEXTGRID_TOKEN = re.compile(r'"((?:[^"]|"")*)"|(?<![^\s])(-?\d+(?:\.\d*)?(?:[eE][-+]?\d+)?)(?!\S)')


class LabelledClip(NamedTuple):
    """A recording, its phones, and whether maps and k-means may learn from it."""

    utterance: Utterance
    intervals: list[Interval]
    is_training: bool


class LabelledCorpus(NamedTuple):
    """Recordings with labels, sorted by name, and names of labels without a recording."""

    clips: list[LabelledClip]
    unused: list[str]


def phone_classes(labels: Iterable[str]) -> dict[str, str]:
    """The phones that the labels of a corpus mean, whatever their context, stress and position.

    Of HTK's and HTS's phones in context (`x^h-ah+l=ow@...`) the middle one is taken; Kaldi's
    `_B _I _E _S` go; every sort of silence, pause and noise is `SILENCE`. Capitals are kept: SAMPA
    needs them. The digits of ARPAbet's vowels are stress and go (`AH0`), unless the labels have
    tones, as pinyin does: a final digit of 3 to 6 in one of them keeps all digits (`ao1`).
    """
    plain = {label: _plain(label) for label in labels}
    if any(map(_TONE.match, plain.values())):
        return plain
    return {label: _STRESS.sub(r"\1", phone) for label, phone in plain.items()}


def _plain(label: str) -> str:
    """A phone without its context and position, silences alike."""
    if context := _HTS_CONTEXT.search(label):
        label = context[1]
    label = _KALDI_POSITION.sub("", label.strip())
    return SILENCE if label.lower() in _SILENCES else label


def read_labels(path: Path) -> dict[str, list[Interval]]:
    """Read the phones in a label file.

    Args:
        path: `.lab` (lines `start end phone`: whole numbers are HTK's 100 ns, others seconds),
            `.phn` (the same in TIMIT's samples, 16,000 a second),
            `.TextGrid` (Praat, long or short text; its only interval tier, or that named phones or
            alike) or `.ctm` (lines `recording channel start duration phone`).

    Returns:
        Recording -> its intervals in order, their labels as in the file. A .ctm names its
        recordings; other files are about the one of their own stem.

    Raises:
        DataError: it is not such a file, or its intervals overlap.
    """
    try:
        data = path.read_bytes()
        # Praat writes UTF-16 where a label is not ASCII.
        text = data.decode("utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    except (OSError, UnicodeError) as error:
        raise DataError(f"{path}: cannot be read ({error}); save it as UTF-8") from error
    suffix = path.suffix.lower()
    if suffix == ".ctm":
        found = _read_ctm(path, text)
    elif suffix == ".textgrid":
        found = {path.stem: _read_textgrid(path, text)}
    else:
        units_per_second = _TIMIT_RATE if suffix == ".phn" else _HTK_UNITS_PER_SECOND
        found = {path.stem: _read_lab(path, text, units_per_second)}
    for intervals in found.values():
        _check_order(path, intervals)
    return found


def read_folder(folder: Path) -> dict[str, list[Interval]]:
    """Read every label file at any depth, with labels as `phone_classes` says, by names.

    A name is the file's path below the folder without its suffix, such as `p225/p225_001`, or what
    a .ctm calls the recording. Raises DataError if there is none, one cannot be read, or two are
    about one recording.
    """
    labels: dict[str, list[Interval]] = {}
    for path in files_below(folder, LABEL_SUFFIXES):
        for stem, intervals in read_labels(path).items():
            is_ctm = path.suffix.lower() == ".ctm"
            name = stem if is_ctm else path.relative_to(folder).with_suffix("").as_posix()
            if name in labels:
                raise DataError(f"{path}: {name} has labels already; remove one of the files")
            labels[name] = intervals
    if not labels:
        raise DataError(f"{folder}: holds no label file (.lab, .phn, .TextGrid or .ctm)")
    phones = phone_classes(label for intervals in labels.values() for *_, label in intervals)
    return {
        name: [interval._replace(label=phones[interval.label]) for interval in intervals]
        for name, intervals in labels.items()
    }


def check_span(name: str, intervals: Sequence[Interval], duration_s: float) -> None:
    """Raise a DataError if labels end far beyond a recording, or soon after it begins."""
    end = intervals[-1].end
    if not LEAST_SHARE * duration_s <= end <= duration_s + MOST_BEYOND_S:
        raise DataError(
            f"{name}: its labels end at {end:.4g} s, and the recording at {duration_s:.4g} s; "
            "write the times of a .lab in units of 100 ns, or in seconds with a point, and name "
            "TIMIT's files, whose times are samples, .phn"
        )


def match_recordings(labels: Iterable[str], recordings: Sequence[str]) -> dict[str, str]:
    """Which recording each of some labels is about: that of its name, or else of its stem.

    Names are as of `read_folder` and of utterances; recordings of one stem are found by their whole
    name alone. Labels without a recording are left out.
    """
    stems = Counter(Path(name).name for name in recordings)
    known = {Path(name).name: name for name in recordings if stems[Path(name).name] == 1}
    known |= {name: name for name in recordings}
    owners = {name: known.get(name) or known.get(Path(name).name) for name in labels}
    return {name: owner for name, owner in owners.items() if owner is not None}


def read_labelled_corpus(labels: Path, recordings: Path) -> LabelledCorpus:
    """Find the recording of every label file.

    Where the corpus has a manifest.csv and labels in `train` and in other splits, `train` is the
    part to learn from. Elsewhere it is every other recording, in the order of names.

    Args:
        labels: folder of label files, named as the recordings or mirroring their folder.
        recordings: a folder as `vqcodec.data.corpora.utterances` lists it.

    Raises:
        DataError: no label has a recording, or only one has.
    """
    listed = utterances(recordings)
    read = read_folder(labels)
    owners = match_recordings(read, [utterance.name for utterance in listed])
    by_name = {utterance.name: utterance for utterance in listed}
    found = [(by_name[owners[name]], read[name]) for name in owners]
    unused = [name for name in read if name not in owners]
    if len(found) < 2:
        raise DataError(
            f"{labels}: {len(found)} of {len(found) + len(unused)} label files have a recording in "
            f"{recordings}; name them alike, such as {listed[0].name}.lab, or give --audio"
        )
    found.sort(key=lambda pair: pair[0].name)
    splits = {utterance.split for utterance, _ in found}
    has_splits = (recordings / "manifest.csv").is_file() and "train" in splits and len(splits) > 1
    clips = [
        LabelledClip(utterance, intervals, utterance.split == "train" if has_splits else i % 2 == 0)
        for i, (utterance, intervals) in enumerate(found)
    ]
    return LabelledCorpus(clips, unused)


def labels_at(
    intervals: Sequence[Interval], times: np.ndarray, classes: dict[str, int]
) -> np.ndarray:
    """The phone class at each of some times in seconds, (N,) int64, or `UNLABELLED`.

    The intervals are in order; phone classes that have no number in `classes` yet get one.
    """
    starts = np.array([interval.start for interval in intervals])
    ends = np.array([interval.end for interval in intervals])
    numbers = np.array([classes.setdefault(label, len(classes)) for *_, label in intervals])
    index = np.maximum(np.searchsorted(starts, times, side="right") - 1, 0)
    is_inside = (starts[index] <= times) & (times < ends[index])
    return np.where(is_inside, numbers[index], UNLABELLED)


def _read_lab(path: Path, text: str, units_per_second: int) -> list[Interval]:
    rows = [(line, row.split()) for line, row in enumerate(text.splitlines(), 1) if row.strip()]
    is_seconds = any("." in value for _, fields in rows for value in fields[:2])
    scale = 1 if is_seconds else units_per_second
    intervals = []
    for line, fields in rows:
        try:
            start, end = (float(value) / scale for value in fields[:2])
            intervals.append(Interval(start, end, fields[2]))
        except (ValueError, IndexError):
            raise DataError(
                f"{path}, line {line}: {' '.join(fields)!r} is not START END PHONE, in seconds or "
                f"units of 1/{units_per_second} s"
            ) from None
    return intervals


def _read_ctm(path: Path, text: str) -> dict[str, list[Interval]]:
    found: dict[str, list[Interval]] = defaultdict(list)
    for line, row in enumerate(text.splitlines(), 1):
        if not row.strip() or row.startswith(";;"):
            continue
        fields = row.split()
        try:
            start, duration = float(fields[2]), float(fields[3])
            found[fields[0]].append(Interval(start, start + duration, fields[4]))
        except (ValueError, IndexError):
            raise DataError(
                f"{path}, line {line}: {row!r} is not RECORDING CHANNEL START DURATION PHONE"
            ) from None
    return dict(found)


def _read_textgrid(path: Path, text: str) -> list[Interval]:
    """Long and short format alike are strings and numbers in one order."""
    tokens = [
        string.replace('""', '"') if number == "" else float(number)
        for string, number in _TEXTGRID_TOKEN.findall(text)
    ]
    try:
        tiers = _tiers(tokens)
    except (ValueError, IndexError, TypeError):
        raise DataError(
            f"{path}: not a TextGrid as Praat saves it as text; save it again"
        ) from None
    names = [name for name, _ in tiers]
    chosen = [
        intervals
        for name, intervals in tiers
        if re.split(r"[\s-]+", name.lower())[-1] in _PHONE_TIERS
    ] or [intervals for _, intervals in tiers]
    if len(chosen) != 1:
        raise DataError(
            f"{path}: has the interval tiers {', '.join(names) or '(none)'}; name the phones' one, "
            "and no other, phones"
        )
    return chosen[0]


def _tiers(tokens: list[str | float]) -> list[tuple[str, list[Interval]]]:
    """The interval tiers among a TextGrid's tokens; ValueError and others where it is none."""
    if not str(tokens[0]).startswith("ooTextFile") or tokens[1] != "TextGrid":
        raise ValueError
    position = 5  # file type, class, start, end, number of tiers
    tiers = []
    for _ in range(int(tokens[4])):
        kind, name, _, _, size = tokens[position : position + 5]
        position += 5
        width = 3 if kind == "IntervalTier" else 2
        cells = [tokens[position + i * width :][:width] for i in range(int(size))]
        position += width * len(cells)
        if kind == "IntervalTier":
            intervals = [
                Interval(float(start), float(end), str(label)) for start, end, label in cells
            ]
            tiers.append((str(name), intervals))
    return tiers


def _check_order(path: Path, intervals: Sequence[Interval]) -> None:
    if not intervals:
        raise DataError(f"{path}: holds no label; remove it")
    # Times are rounded by whoever wrote them.
    for before, after in zip(intervals, [*intervals[1:], None], strict=True):
        if before.end < before.start or (after and after.start < before.end - 1e-4):
            raise DataError(
                f"{path}: the label {before.label!r} at {before.start:g} s ends after the next "
                "begins; put the labels in order"
            )
