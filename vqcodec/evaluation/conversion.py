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
from vqcodec.evaluation.cache import (
    OnProgress,
    Setup,
    cache_stem,
    map_in_processes,
    prepare_setup,
    read_or_make,
)
from vqcodec.evaluation.quality import (
    SAMPLE_RATE,
    f0_correlation,
    measure_each,
    speaker_embedding,
)
from vqcodec.evaluation.report import clips, markdown_table, spread, write_report
from vqcodec.evaluation.summary import TRAINED_ON_NOTE, cell, heading, mean, word_error_rate
from vqcodec.models import DecoderName

MIN_RECORDINGS = 6

_NOTES = (
    "Means over files of the cosine between speaker embeddings: of the original and the target "
    "(what no conversion gives), of the converted recording and the target, and of the converted "
    "recording and the source. Target and source are the means of their own recordings. F0 "
    "correlation is with the source. WER: what a recogniser mishears, all errors over all words, "
    "in the conversion, in the plain reconstruction and in the original."
)


class _Task(NamedTuple):
    """What a process is to do: one recording in its own voice and in others."""

    utterance: Utterance
    setup: Setup
    targets: tuple[str, ...]  # none for a recording that only says what its speaker is like
    refine: bool
    cache: Path


class _Found(NamedTuple):
    """What became of a recording: records as `_measured` makes them."""

    embedding: np.ndarray | None
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
    decoder: DecoderName | None = None,
    refine: bool = False,
    limit: int | None = None,
    jobs: int = 1,
    recognizer: str | None = None,
    on_progress: OnProgress | None = None,
) -> str:
    """Convert the recordings of every voice to every other, and measure who speaks then.

    Writes conversion.csv (a line for each file and target) and conversion.md. Conversions that
    were measured before by the same model and setting are not again.

    Args:
        corpus: as of `comparison.compare`.
        output: the folder to write; its `cache` holds what was measured.
        speakers: two voices or more; by default those of the model with six recordings or more.
        split: of the corpus.
        model: name or path; the default model when None.
        decoder: the model's best when None.
        refine: whether conversions and reconstructions are of refined codes (`Codec.encode`).
        limit: recordings of each voice at most; the others still count towards what it is like.
        jobs: processes at a time; the calling script needs `if __name__ == "__main__"`.
        recognizer: as `vqcodec.evaluation.recognizers.find_recognizer` names it.
        on_progress: told what is done and what is waited for.

    Returns:
        The text of conversion.md.

    Raises:
        DataError, AudioError: the corpus or one of its recordings cannot be used.
        SpeakerError: the model does not know a voice.
        VqcodecError: there is no such model or decoder, or a library is missing.
        OSError: the folder cannot be written.
    """
    made_of = prepare_setup(model, decoder, recognizer, on_progress)
    codec = made_of.codec()
    names = list(dict.fromkeys(speakers)) or _voices(corpus, split, list(codec.voices))
    if len(names) < 2:
        raise DataError(f"{corpus}: a conversion needs two voices, not {len(names)}; name more")
    for name in names:
        codec.speaker(name)
    tasks = []
    for name in names:
        recordings = clips(corpus, split, speaker=name)
        converted = recordings if limit is None else spread(recordings, limit)
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
    pairs = [
        _pair([row for row in rows if (row["source"], row["target"]) == pair])
        for pair in itertools.permutations(names, 2)
    ]
    n_reached = sum(pair["target > source"] == "yes" for pair in pairs)
    overall = {**_pair(rows), "source": "all", "target": "all"}
    overall["target > source"] = f"{n_reached} of {len(pairs)}"
    of_what = made_of.about() + (", refined codes" if refine else "")
    text = (
        f"Split {split}; {of_what}.\n\n"
        f"{markdown_table([*pairs, overall])}\n{_NOTES}\n\n"
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

    def voice() -> dict[str, Any]:
        return measure_each({"embedding": lambda: speaker_embedding(reference()).tolist()}).values

    embedding = record("voice", voice)["embedding"]
    embedding = None if embedding is None else np.asarray(embedding)
    if not task.targets:
        return _Found(embedding, {}, {}, {})
    return _Found(
        embedding,
        record("recognised", lambda: _measured(task, reference(), reference())),
        converted("reconstructed", None),
        {name: converted(f"as {name}", name) for name in task.targets},
    )


def _measured(task: _Task, reference: np.ndarray, waveform: np.ndarray) -> dict[str, Any]:
    """What is measured of any form of a recording; None where undefined, with the reasons."""
    aligned = align(reference, waveform).waveform
    found = measure_each(
        {
            "embedding": lambda: speaker_embedding(waveform).tolist(),
            "F0 correlation": partial(f0_correlation, reference, aligned),
            "WER": partial(task.setup.listen, task.utterance, aligned),
        }
    )
    return {**found.values, "undefined": found.undefined}


def _all_rows(utterances: Sequence[Utterance], found: Sequence[_Found]) -> list[dict[str, Any]]:
    """The rows of the CSV file."""
    voices: dict[str, list[np.ndarray]] = {utterance.speaker: [] for utterance in utterances}
    for utterance, one in zip(utterances, found, strict=True):
        if one.embedding is not None:
            voices[utterance.speaker].append(one.embedding)
    centres = {name: _centre(name, own) for name, own in voices.items()}
    pairs = zip(utterances, found, strict=True)
    return [row for utterance, one in pairs for row in _rows(utterance, one, centres)]


def _centre(name: str, embeddings: Sequence[np.ndarray]) -> np.ndarray:
    """A speaker as the mean of the embeddings (256,) of the recordings, of length 1."""
    if not embeddings:
        raise DataError(f"{name}: no voice is found in any recording; name other speakers")
    centre = np.mean(embeddings, axis=0)
    direction: np.ndarray = centre / np.linalg.norm(centre)
    return direction


def _cosine(embedding: np.ndarray | None, centre: np.ndarray) -> float | None:
    return None if embedding is None else float(embedding @ centre)


def _rows(
    utterance: Utterance, found: _Found, centres: dict[str, np.ndarray]
) -> list[dict[str, Any]]:
    """A row of the CSV file for every target."""
    rows = []
    for target, record in found.conversions.items():
        voice = None if record["embedding"] is None else np.asarray(record["embedding"])
        forms = {"": record, " of reconstruction": found.reconstruction}
        forms[" of original"] = found.original
        rows.append(
            {
                "file": utterance.name,
                "source": utterance.speaker,
                "target": target,
                "original to target": _cosine(found.embedding, centres[target]),
                "to target": _cosine(voice, centres[target]),
                "to source": _cosine(voice, centres[utterance.speaker]),
                "F0 correlation": record["F0 correlation"],
                # Words are those of the text: as many in every form.
                **{
                    f"word errors{of}": form["WER"] and form["WER"][0] for of, form in forms.items()
                },
                "words": record["WER"] and record["WER"][1],
                "undefined": record["undefined"],
            }
        )
    return rows


def _pair(rows: Sequence[dict[str, Any]]) -> dict[str, str]:
    """Rows with one source and target as a row of the summary."""
    table = {"source": rows[0]["source"], "target": rows[0]["target"]}
    for name in ("original to target", "to target", "to source"):
        table[name] = cell(mean(rows, name), len(rows), 3)
    defined = [row for row in rows if row["to target"] is not None]
    nearer = sum(row["to target"] > row["to source"] for row in defined)
    reached = sum(row["to target"] - row["to source"] for row in defined) > 0
    table["target > source"] = ("yes" if reached else "no") if defined else "-"
    table["nearer to target"] = f"{nearer} of {len(defined)}"
    table[heading("F0 correlation")] = cell(mean(rows, "F0 correlation"), len(rows), 3)
    for of in ("", " of reconstruction", " of original"):
        rate = word_error_rate(rows, f"word errors{of}")
        table[f"WER{of} (%)"] = cell(rate, len(rows), 1)
    return table
