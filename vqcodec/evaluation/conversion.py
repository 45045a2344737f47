"""Voices of a model turned into each other: the report on conversion.

Results do not depend on how many processes work, nor on how often the run was interrupted.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vqcodec.audio import load
from vqcodec.data.corpora import Utterance
from vqcodec.errors import DataError
from vqcodec.evaluation.alignment import align
from vqcodec.evaluation.bootstrap import ratio
from vqcodec.evaluation.cache import (
    OnProgress,
    Setup,
    cache_stem,
    map_in_processes,
    prepare_setup,
    read_or_make,
)
from vqcodec.evaluation.pitch_and_level import level_in_pauses, level_in_speech, mean_pitch
from vqcodec.evaluation.quality import (
    SAMPLE_RATE,
    check_pair,
    f0_correlation,
    measure_each,
    speaker_embedding,
    voicing_error,
)
from vqcodec.evaluation.report import (
    INSERTION_RATE,
    TRAINED_ON_NOTE,
    WORD_ERROR_RATIO,
    cell,
    clips,
    heading,
    markdown_table,
    mean,
    spread,
    word_error_rate,
    write_report,
)
from vqcodec.models import DecoderChoice

MIN_RECORDINGS = 6

_PITCH_DISTANCE = "pitch distance (semitones)"
_AGAINST_SOURCE = (
    *("F0 correlation", "voicing error"),
    *("level in speech (dB)", "level in pauses (dB)"),
)
_SEXES = {"female": "women", "male": "men"}

_NOTES = (
    "Means over files of the cosine between speaker embeddings: of the original and the target "
    "(what two different people have, and no conversion gives), of the converted recording and the "
    "target, and of the converted recording and the source. Target and source are the means of "
    "their own recordings. F0 correlation, voicing error and levels, where the source speaks and "
    "where it pauses, are against the source; the pitch distance is that of the mean pitch from "
    "the target's, whatever its sign. WER: what a recogniser mishears, all errors over all words, "
    "in the conversion, in the plain reconstruction and in the original; words put in are of the "
    "conversion. In brackets the interval that holds a value with 95 % confidence (bootstrap over "
    "files)."
)


class _Person(NamedTuple):
    """What a speaker is like, in the mean over the recordings.

    Attributes:
        embedding: (256,) of length 1.
        mean_pitch: in semitones above 1 Hz; None where no recording has one.
    """

    embedding: np.ndarray
    mean_pitch: float | None

    def similarity(self, voice: dict[str, Any]) -> float | None:
        """Cosine to the embedding of a recording."""
        embedding = voice["embedding"]
        return None if embedding is None else float(np.asarray(embedding) @ self.embedding)

    def pitch_distance(self, voice: dict[str, Any]) -> float | None:
        """How far the mean pitch of a recording lies from theirs, in semitones."""
        if voice["mean pitch"] is None or self.mean_pitch is None:
            return None
        return abs(voice["mean pitch"] - self.mean_pitch)


class _Task(NamedTuple):
    """One recording, to be converted to each target; without any, only its voice is heard."""

    utterance: Utterance
    setup: Setup
    targets: tuple[str, ...]  # none for a recording that only says what its speaker is like
    refine: bool
    cache: Path


class _Found(NamedTuple):
    """What became of a recording: records of `_of_voice` and as `_measured` makes them."""

    voice: dict[str, Any]
    original: dict[str, Any]
    reconstruction: dict[str, Any]
    conversions: dict[str, dict[str, Any]]


def convert_pairs(
    corpus: Path,
    output: Path,
    *,
    speakers: Sequence[str] = (),
    split: str = "test",
    model: str | None = None,
    decoder: DecoderChoice = "auto",
    refine: bool = False,
    limit: int | None = None,
    jobs: int = 1,
    recognizer: str | None = None,
    on_progress: OnProgress | None = None,
) -> str:
    """Convert the recordings of every voice to every other, and measure who speaks then.

    Writes conversion.csv (a line for each file and target) and conversion.md, whose text it
    returns. Conversions that were measured before by the same model and setting are not measured
    again. Other arguments, and errors, are as of `comparison.compare`. By default the voices are
    those of the model with six recordings or more; `limit` recordings of each are converted, and
    the others still count towards what it is like; `refine` makes conversions and reconstructions
    of refined codes.
    """
    made_of = prepare_setup(model, decoder, recognizer, on_progress)
    codec = made_of.codec()
    names = list(dict.fromkeys(speakers)) or _voices(corpus, split, list(codec.voices))
    if len(names) < 2:
        raise DataError(f"{corpus}: a conversion needs two voices, not {len(names)}; name more")
    known = {name: codec.speaker(name).info.sex or "" for name in names}
    tasks = []
    for name in names:
        recordings = clips(corpus, split, speaker=name)
        converted = spread(recordings, limit)
        others = tuple(other for other in names if other != name)
        tasks += [
            _Task(each, made_of, others if each in converted else (), refine, output / "cache")
            for each in recordings
        ]
    found = map_in_processes(
        _work_on,
        tasks,
        jobs=jobs,
        name_of=lambda task: task.utterance.name,
        on_progress=on_progress,
    )
    rows = _all_rows([task.utterance for task in tasks], found)
    told = {task.utterance.speaker: task.utterance.sex for task in tasks if task.utterance.sex}
    of_what = made_of.about() + (", refined codes" if refine else "")
    text = (
        f"Split {split}; {of_what}.\n\n"
        f"{markdown_table(_table(rows, names, known | told))}\n{_NOTES}\n\n"
        f"{TRAINED_ON_NOTE}\n\n"
        f"{made_of.recognizer.about()}\n\n"
        f"Measured with {made_of.measured_with()}.\n"
    )
    write_report(output, "conversion", rows, text)
    return text


def _voices(corpus: Path, split: str, known: Sequence[str]) -> list[str]:
    counts = Counter(utterance.speaker for utterance in clips(corpus, split))
    found = [name for name in known if counts[name] >= MIN_RECORDINGS]
    if len(found) < 2:
        raise DataError(
            f"{corpus}: {len(found)} voices of the model have {MIN_RECORDINGS} recordings or more "
            f"in split {split}, and a conversion needs two; name the speakers, or another split"
        )
    return found


def _work_on(task: _Task) -> _Found:
    setup, utterance = task.setup, task.utterance
    reference = cache(partial(load, utterance.path, SAMPLE_RATE))

    def record(what: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        return read_or_make(task.cache / f"{cache_stem(setup, utterance, what)}.json", make)

    codes = cache(partial(setup.encode, utterance, refine=task.refine))

    def converted(what: str, target: str | None) -> dict[str, Any]:
        """Said by another voice; by its own where there is no target."""

        def said() -> dict[str, Any]:
            return _measured(task, reference(), setup.decode(codes(), target))

        return record(f"{what}, refined" if task.refine else what, said)

    voice = record("voice", lambda: measure_each(_of_voice(reference(), reference())).values)
    if not task.targets:
        return _Found(voice, {}, {}, {})
    return _Found(
        voice,
        record("recognised", lambda: _measured(task, reference(), reference())),
        converted("reconstructed", None),
        {name: converted(f"as {name}", name) for name in task.targets},
    )


def _of_voice(reference: np.ndarray, waveform: np.ndarray) -> dict[str, Callable[[], Any]]:
    """Measures of who speaks, and how high; nobody does in what is made of silence."""

    def heard(measure: Callable[[np.ndarray], Any]) -> Any:
        check_pair(reference, reference)
        return measure(waveform)

    return {
        "embedding": lambda: heard(speaker_embedding).tolist(),
        "mean pitch": partial(heard, mean_pitch),
    }


def _measured(task: _Task, reference: np.ndarray, waveform: np.ndarray) -> dict[str, Any]:
    """What is measured of any form of a recording; None where undefined, with the reasons."""
    aligned = align(reference, waveform).waveform
    found = measure_each(
        {
            **_of_voice(reference, waveform),
            "F0 correlation": partial(f0_correlation, reference, aligned),
            "voicing error": partial(voicing_error, reference, aligned),
            "level in speech (dB)": partial(level_in_speech, reference, aligned),
            "level in pauses (dB)": partial(level_in_pauses, reference, aligned),
            "WER": partial(task.setup.listen, task.utterance, reference, aligned),
        }
    )
    return {**found.values, "undefined": found.undefined}


def _all_rows(utterances: Sequence[Utterance], found: Sequence[_Found]) -> list[dict[str, Any]]:
    """The rows of the CSV file."""
    voices: dict[str, list[dict[str, Any]]] = {utterance.speaker: [] for utterance in utterances}
    for utterance, one in zip(utterances, found, strict=True):
        voices[utterance.speaker].append(one.voice)
    people = {name: _person(name, own) for name, own in voices.items()}
    pairs = zip(utterances, found, strict=True)
    return [row for utterance, one in pairs for row in _rows(utterance, one, people)]


def _person(name: str, voices: Sequence[dict[str, Any]]) -> _Person:
    embeddings = [voice["embedding"] for voice in voices if voice["embedding"] is not None]
    if not embeddings:
        raise DataError(f"{name}: no voice is found in any recording; name other speakers")
    centre = np.mean(embeddings, axis=0)
    direction: np.ndarray = centre / np.linalg.norm(centre)
    return _Person(direction, mean(voices, "mean pitch").value)


def _rows(utterance: Utterance, found: _Found, people: dict[str, _Person]) -> list[dict[str, Any]]:
    """A row of the CSV file for every target."""
    rows = []
    source = people[utterance.speaker]
    for name, record in found.conversions.items():
        target = people[name]
        forms = {"": record, " of reconstruction": found.reconstruction}
        forms[" of original"] = found.original
        rows.append(
            {
                "file": utterance.name,
                "source": utterance.speaker,
                "target": name,
                "original to target": target.similarity(found.voice),
                "to target": target.similarity(record),
                "to source": source.similarity(record),
                **{measure: record[measure] for measure in _AGAINST_SOURCE},
                _PITCH_DISTANCE: target.pitch_distance(record),
                # Words are those of the text: as many in every form.
                **{
                    f"word errors{of}": form["WER"] and form["WER"][0] for of, form in forms.items()
                },
                "words": record["WER"] and record["WER"][1],
                "words put in": record["WER"] and record["WER"][2],
                "undefined": record["undefined"],
            }
        )
    return rows


def _table(
    rows: Sequence[dict[str, Any]], names: Sequence[str], sexes: dict[str, str]
) -> list[dict[str, str]]:
    """A row for each pair, for each direction between the sexes, and for all."""
    pairs = {
        pair: [row for row in rows if (row["source"], row["target"]) == pair]
        for pair in itertools.permutations(names, 2)
    }
    directions = {
        (source, target): {
            (a, b): own for (a, b), own in pairs.items() if (sexes[a], sexes[b]) == (source, target)
        }
        for source, target in itertools.product(_SEXES, repeat=2)
    }
    return [
        *map(_pair, pairs.values()),
        *(
            _several(list(own.values()), _SEXES[source], _SEXES[target])
            for (source, target), own in directions.items()
            if own
        ),
        _several(list(pairs.values()), "all", "all"),
    ]


def _several(pairs: Sequence[list[dict[str, Any]]], source: str, target: str) -> dict[str, str]:
    """The rows of several pairs as a row of the summary."""
    n_reached = sum(_pair(rows)["target > source"] == "yes" for rows in pairs)
    whole = _pair([row for rows in pairs for row in rows])
    reached = f"{n_reached} of {len(pairs)}"
    return {**whole, "source": source, "target": target, "target > source": reached}


def _pair(rows: Sequence[dict[str, Any]]) -> dict[str, str]:
    """Rows with one source and target as a row of the summary."""
    table = {"source": rows[0]["source"], "target": rows[0]["target"]}
    for name in ("original to target", "to target", "to source"):
        table[name] = cell(mean(rows, name), 3)
    defined = [row for row in rows if row["to target"] is not None]
    nearer = sum(row["to target"] > row["to source"] for row in defined)
    reached = sum(row["to target"] - row["to source"] for row in defined) > 0
    table["target > source"] = ("yes" if reached else "no") if defined else "-"
    table["nearer to target"] = f"{nearer} of {len(defined)}"
    for name in (*_AGAINST_SOURCE, _PITCH_DISTANCE):
        is_level = "dB" in name  # best at 0
        title = name if is_level else heading(name)
        table[title] = cell(mean(rows, name), 1 if is_level else 3)
    for of in ("", " of reconstruction", " of original"):
        rate = word_error_rate(rows, f"word errors{of}")
        table[f"WER{of} (%)"] = cell(rate, 1)
    errors, originals = ([row[f"word errors{of}"] for row in rows] for of in ("", " of original"))
    table[WORD_ERROR_RATIO] = cell(ratio(errors, originals), 3)
    table[INSERTION_RATE] = cell(word_error_rate(rows, "words put in"), 1)
    return table
