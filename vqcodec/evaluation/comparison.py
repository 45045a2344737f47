"""A model beside reference codecs on the recordings of a corpus: the report on quality.

Results do not depend on how many processes work, nor on how often the run was interrupted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from vqcodec.audio import load, open_writer
from vqcodec.codec import Codec
from vqcodec.data.corpora import Utterance
from vqcodec.errors import VqcodecError
from vqcodec.evaluation import plots
from vqcodec.evaluation.alignment import align
from vqcodec.evaluation.baselines import baseline
from vqcodec.evaluation.cache import (
    OnProgress,
    Setup,
    cache_stem,
    map_in_processes,
    prepare_setup,
    read_or_make,
)
from vqcodec.evaluation.external import Coded, external_codec
from vqcodec.evaluation.page import Example, Player, page
from vqcodec.evaluation.quality import SAMPLE_RATE, measure, measure_each
from vqcodec.evaluation.report import clips, markdown_table, spread, write_report
from vqcodec.evaluation.summary import TRAINED_ON_NOTE, summarise, table_row
from vqcodec.files import write_atomically
from vqcodec.models import DecoderName
from vqcodec.models.codebook_usage import CollapseMonitor

ORIGINAL = "original"
N_EXAMPLES = 8

_NOTES = (
    "Means over files, in brackets the interval that holds them with 95 % confidence (bootstrap "
    "over files). WER is all errors over all words; it stands beside what the recogniser gets "
    "wrong in the originals of the same files, of which words put in are a part that it may "
    "have invented. kbit/s counts every byte of the .codes file with its header, of the bare "
    "Codec 2 stream, of the .opus file with its container, of what another codec calls its bits, "
    "and of the original's 16-bit samples. ↑ higher is better, ↓ lower. DNSMOS, which hears all "
    "at one level, is blind to naturalness. All but STOI and F0 punish a narrow band, which Codec "
    "2 has and Opus under 9 kbit/s; how much, the line `narrowband` tells, which is the original "
    "at 8 kHz."
)


class _Task(NamedTuple):
    """What a process is to do: one recording through every codec."""

    utterance: Utterance
    setup: Setup
    codecs: tuple[str, ...]
    output: Path
    is_example: bool


def compare(
    corpus: Path,
    output: Path,
    *,
    split: str = "test",
    model: str | None = None,
    decoder: DecoderName | None = None,
    refine: bool = False,
    baselines: Sequence[str] = (),
    limit: int | None = None,
    jobs: int = 1,
    recognizer: str | None = None,
    on_progress: OnProgress | None = None,
) -> str:
    """Send recordings through a model and reference codecs, and measure what comes out.

    Writes quality.csv (a line for each file and codec), quality.md, rate.png and index.html, which
    plays examples. Files that were measured before by the same model and setting are not again.

    Args:
        corpus: a folder as `vqcodec.data.corpora.utterances` lists it, or the manifest.csv in it.
        output: the folder to write; its `cache` holds what was measured.
        split: of the corpus.
        model: name or path; the default model when None.
        decoder: the model's best when None.
        refine: whether to measure refined codes, too (`Codec.encode`).
        baselines: reference codecs, as `vqcodec.evaluation.baselines.baseline` names them.
        limit: files at most, spread over the split.
        jobs: processes at a time; the calling script needs `if __name__ == "__main__"`.
        recognizer: as `vqcodec.evaluation.recognizers.find_recognizer` names it.
        on_progress: told what is done and what is waited for.

    Returns:
        The text of quality.md.

    Raises:
        DataError, AudioError: the corpus or one of its recordings cannot be read.
        VqcodecError: there is no such model, decoder or codec, a library or tool is missing, or the
            report would lie in the corpus.
        OSError: the folder cannot be written.
    """
    _check_names(baselines)
    folder = corpus.resolve()
    if folder in output.resolve().parents and not (folder / "manifest.csv").is_file():
        raise VqcodecError(
            f"{output}: lies in the corpus, which its examples would then be part of; name a "
            "folder beside it"
        )
    made_of = prepare_setup(model, decoder, recognizer, on_progress)
    utterances = clips(corpus, split, limit=limit)
    ours = our_label(made_of.decoder)
    refined = [our_label(made_of.decoder, refined=True)] if refine else []
    codecs = (ORIGINAL, ours, *refined, *baselines)
    played = _played(utterances)
    tasks = [
        _Task(utterance, made_of, codecs, output, utterance in played) for utterance in utterances
    ]
    records = map_in_processes(
        _measure_recording,
        tasks,
        jobs=jobs,
        name_of=lambda task: task.utterance.name,
        on_progress=on_progress,
    )

    rows = [record["row"] for found in records for record in found]
    codes = [
        record["codes"] for found in records for record in found if record["row"]["codec"] == ours
    ]
    by_codec = {label(name): [r for r in rows if r["codec"] == label(name)] for name in codecs}
    summaries = [summarise(own, by_codec[ORIGINAL]) for own in by_codec.values()]
    table = [table_row(summary) for summary in summaries]
    notes = [
        _about(made_of, split, rows),
        _codebook(made_of.codec(), codes),
        made_of.recognizer.about(),
        f"{TRAINED_ON_NOTE} {_NOTES}",
        f"Measured with {made_of.measured_with()}.",
    ]
    text = "\n\n".join([notes[0], markdown_table(table).rstrip(), *notes[1:]]) + "\n"
    write_report(output, "quality", rows, text)
    write_atomically(
        output / "rate.png", plots.rates(summaries, ours=(ours, *refined), original=ORIGINAL)
    )
    examples = [
        _example(task, found) for task, found in zip(tasks, records, strict=True) if task.is_example
    ]
    write_atomically(output / "index.html", page(notes, table, examples).encode())
    return text


def label(codec: str) -> str:
    """What tables call a codec, which may be the user's NAME=ACTION."""
    return codec.partition("=")[0].strip()


def _check_names(baselines: Sequence[str]) -> None:
    """Whether all are there, and each has a name of its own."""
    counts = Counter([ORIGINAL, *map(label, baselines)])
    for name in baselines:
        baseline(name)
        if counts[label(name)] > 1:
            raise VqcodecError(f"{label(name)}: names two codecs; give one another name")


def our_label(decoder: DecoderName, *, refined: bool = False) -> str:
    """Our name in the tables."""
    return f"vqcodec ({decoder}, refined)" if refined else f"vqcodec ({decoder})"


def _measure_recording(task: _Task) -> list[dict[str, Any]]:
    """What was found out with every codec; examples are left in the folder to be played."""
    found = []
    for codec in task.codecs:
        stem = _stem(task, codec)
        examples = _example_paths(task.output, stem) if task.is_example else []
        make = partial(_measure_codec, task, codec, examples)
        found.append(read_or_make(task.output / "cache" / f"{stem}.json", make, also=examples))
    return found


def _stem(task: _Task, codec: str) -> str:
    decoder = task.setup.decoder
    is_ours = codec in (our_label(decoder), our_label(decoder, refined=True))
    made_by = external_codec(codec).digest() if "=" in codec else ""
    return cache_stem(
        task.setup, task.utterance, label(codec), is_by_model=is_ours, made_by=made_by
    )


def _measure_codec(task: _Task, codec: str, example_paths: Sequence[Path]) -> dict[str, Any]:
    """A row of the CSV file and, of our codec, the codes (Q, N)."""
    utterance = task.utterance
    reference = load(utterance.path, SAMPLE_RATE)
    codes, decoder = None, task.setup.decoder
    refined = our_label(decoder, refined=True)
    if codec == ORIGINAL:
        coded = Coded(reference, 2 * len(reference))
    elif codec in (our_label(decoder), refined):
        made = task.setup.encode(utterance, refine=codec == refined)
        coded = Coded(task.setup.decode(made), len(made.to_bytes()))
        codes = made.codes.tolist()
    else:
        coded = baseline(codec)(reference)

    seconds = len(reference) / SAMPLE_RATE
    aligned = align(reference, coded.waveform)
    scores = measure(reference, aligned.waveform)
    listen = partial(task.setup.listen, utterance, aligned.waveform)
    misheard = measure_each({"WER": listen})
    errors, words, insertions = misheard.values["WER"] or (None, None, None)
    row = {
        "file": utterance.name,
        "speaker": utterance.speaker,
        "codec": label(codec),
        "seconds": seconds,
        "kbit/s": None if coded.n_bytes is None else 8 * coded.n_bytes / seconds / 1000,
        "lag (ms)": 1000 * aligned.lag / SAMPLE_RATE,
        "words": words,
        "word errors": errors,
        "words put in": insertions,
        **scores.values,
        "undefined": "; ".join(filter(None, (scores.undefined, misheard.undefined))),
    }
    for path in example_paths:
        _write_example(path, aligned.waveform)
    return {"row": row, "codes": codes}


def _played(utterances: Sequence[Utterance]) -> list[Utterance]:
    """Those to be heard: of as many speakers as may be."""
    occurrence: Counter[str] = Counter()
    rounds = []
    for utterance in utterances:
        occurrence[utterance.speaker] += 1
        rounds.append((occurrence[utterance.speaker], utterance.name, utterance))
    turns = [utterance for *_, utterance in sorted(rounds, key=lambda entry: entry[:2])]
    return spread(turns[: max(N_EXAMPLES, len(occurrence))], N_EXAMPLES)


def _example_paths(output: Path, stem: str) -> list[Path]:
    return [output / "examples" / f"{stem}{suffix}" for suffix in (".wav", ".png")]


def _write_example(path: Path, waveform: np.ndarray) -> None:
    if path.suffix == ".png":
        write_atomically(path, plots.spectrogram(waveform, SAMPLE_RATE))
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    rates = {"model_rate": SAMPLE_RATE, "output_rate": SAMPLE_RATE}
    with open_writer(path, n_samples=len(waveform), **rates) as writer:
        writer.write(waveform)


def _example(task: _Task, found: Sequence[dict[str, Any]]) -> Example:
    players = []
    for codec, record in zip(task.codecs, found, strict=True):
        paths = _example_paths(task.output, _stem(task, codec))
        audio, image = (path.relative_to(task.output).as_posix() for path in paths)
        row = record["row"]
        scores = [
            f"{name} {row[name]:.2f}"
            for name in ("STOI", "PESQ-WB", "speaker similarity")
            if row[name] is not None
        ]
        if row["words"]:
            scores.append(f"{row['word errors']} errors in {row['words']} words")
        rate = "" if row["kbit/s"] is None else f", {row['kbit/s']:.2f} kbit/s"
        players.append(Player(f"{row['codec']}{rate}", audio, image, scores))
    return Example(task.utterance.name, task.utterance.speaker, task.utterance.text, players)


def _about(made_of: Setup, split: str, rows: Sequence[dict[str, Any]]) -> str:
    seconds = {row["file"]: row["seconds"] for row in rows}
    return (
        f"Split {split}: {len(seconds)} files, {sum(seconds.values()) / 60:.1f} minutes, "
        f"{len({row['speaker'] for row in rows})} speakers; "
        f"{made_of.about()}."
    )


def _codebook(codec: Codec, codes: Sequence[list[list[int]]]) -> str:
    """How evenly the codes of all files use the codebook."""
    quantizer = codec.config.quantizer
    monitor = CollapseMonitor(quantizer.codebook_size, quantizer.n_codebooks)
    for one in codes:
        monitor.update(torch.tensor(one)[None])
    usage = monitor.usage()
    return (
        f"Codebook: perplexity {usage.perplexity:.1f} of {quantizer.codebook_size}, "
        f"{usage.used:.1%} of the codes used."
    )
