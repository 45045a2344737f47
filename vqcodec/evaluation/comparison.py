"""A model beside reference codecs on the recordings of a corpus: the report on quality.

Results do not depend on how many processes work, nor on how often the run was interrupted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from vqcodec.audio import open_writer
from vqcodec.codec import Codec
from vqcodec.data.clips import duration
from vqcodec.data.corpora import Utterance
from vqcodec.errors import VqcodecError
from vqcodec.evaluation import plots
from vqcodec.evaluation.alignment import align
from vqcodec.evaluation.baselines import baseline
from vqcodec.evaluation.bootstrap import Mean
from vqcodec.evaluation.cache import (
    OnProgress,
    Setup,
    map_in_processes,
    prepare_setup,
    read_or_make,
)
from vqcodec.evaluation.degradation import CLEAN, check_condition, needs_babblers
from vqcodec.evaluation.page import Example, Player, page
from vqcodec.evaluation.quality import SAMPLE_RATE, measure, measure_each
from vqcodec.evaluation.report import (
    BIT_RATE,
    TRAINED_ON_NOTE,
    cell,
    clips,
    markdown_table,
    mean,
    spread,
    summarise,
    table_row,
    write_report,
)
from vqcodec.evaluation.treatments import (
    ORIGINAL,
    Recording,
    Treatment,
    all_treatments,
    babblers,
    codec_title,
    our_label,
)
from vqcodec.files import write_atomically
from vqcodec.models import DecoderChoice
from vqcodec.models.codebook_usage import CollapseMonitor
from vqcodec.models.cost import latency_ms, part_costs
from vqcodec.weights.registry import read_header

N_EXAMPLES = 8

_CODES_KEPT = "codes kept (%)"

_NOTES = (
    "Means over files, in brackets the interval that holds them with 95 % confidence (bootstrap "
    "over files). WER is all errors over all words; it stands beside what the recogniser gets "
    "wrong in the originals of the same files, of which words put in are a part that it may "
    "have invented. kbit/s counts every byte of the .codes file with its header, of the bare "
    "Codec 2 stream, of the .opus file with its container, of what another codec calls its bits, "
    "and of the original's 16-bit samples. ↑ higher is better, ↓ lower. DNSMOS, which hears all "
    "at one level, is blind to naturalness. All but STOI and F0 punish a narrow band, which Codec "
    "2 has and Opus under 9 kbit/s; how much, the line `narrowband` tells, which is the original "
    "at 8 kHz. A condition is that of the recording before it is coded; all are scored against the "
    "clean one. A generation is coded from what the one before it decoded, and the codes kept are "
    "those of the first that it has in their places."
)


class _Task(NamedTuple):
    """One recording through every codec in every condition; those of `behind` may babble."""

    utterance: Utterance
    setup: Setup
    treatments: tuple[Treatment, ...]
    behind: tuple[Utterance, ...]  # who babbles, if anybody
    output: Path
    is_example: bool

    def recording(self) -> Recording:
        """To be treated."""
        return Recording(self.setup, self.utterance, self.behind)


def compare(
    corpus: Path,
    output: Path,
    *,
    split: str = "test",
    model: str | None = None,
    decoder: DecoderChoice = "auto",
    refine: bool = False,
    baselines: Sequence[str] = (),
    conditions: Sequence[str] = (),
    generations: int = 1,
    limit: int | None = None,
    jobs: int = 1,
    recognizer: str | None = None,
    on_progress: OnProgress | None = None,
) -> str:
    """Send recordings through a model and reference codecs, and measure what comes out.

    Writes quality.csv (a line for each file, codec and condition), quality.md, rate.png and
    index.html, which plays examples. Files that were measured before by the same model and setting
    are not again.

    Args:
        corpus: a folder as `vqcodec.data.corpora.utterances` lists it, or the manifest.csv in it.
        output: the folder to write; its `cache` holds what was measured.
        split: of the corpus.
        model: name or path; the default model when None.
        decoder: by name; `auto` is the model's best.
        refine: whether to measure refined codes, too (`Codec.encode`).
        baselines: reference codecs, as `vqcodec.evaluation.baselines.baseline` names them.
        conditions: that every codec is measured in, too, against the clean recording (see
            `vqcodec.evaluation.degradation`).
        generations: how often to code what was decoded before; each is measured.
        limit: files at most, spread over the split.
        jobs: processes at a time; the calling script needs `if __name__ == "__main__"`.
        recognizer: as `vqcodec.evaluation.recognition.find_recognizer` names it.
        on_progress: told what is done and what is waited for.

    Returns:
        The text of quality.md.

    Raises:
        DataError, AudioError: the corpus or one of its recordings cannot be read.
        VqcodecError: there is no such model, decoder or codec, a library or tool is missing, or the
            report would lie in the corpus.
        OSError: the folder cannot be written.
    """
    _check_names(baselines, conditions)
    _check_place(corpus, output)
    made_of = prepare_setup(model, decoder, recognizer, on_progress)
    everybody = clips(corpus, split)
    utterances = spread(everybody, limit)
    ours = our_label(made_of.decoder)
    refined = [our_label(made_of.decoder, refined=True)] if refine else []
    codecs = (ORIGINAL, ours, *refined, *baselines)
    treatments = all_treatments(codecs, ours, conditions=conditions, generations=generations)
    people = everybody if any(map(needs_babblers, conditions)) else []
    tasks = _tasks(utterances, made_of, treatments, people, output)
    records = map_in_processes(
        _measure_recording,
        tasks,
        jobs=jobs,
        name_of=lambda task: task.utterance.name,
        on_progress=on_progress,
    )

    rows = [record["row"] for found in records for record in found]
    by_treatment = dict(zip(treatments, zip(*records, strict=True), strict=True))
    rows_of = {each: [one["row"] for one in found] for each, found in by_treatment.items()}
    originals = rows_of[Treatment(ORIGINAL)]
    means = {each: summarise(own, originals) for each, own in rows_of.items()}
    table = _table(rows_of, means)
    notes = [
        _about(made_of, split, rows),
        _codebook(made_of.codec(), [one["codes"] for one in by_treatment[Treatment(ours)]]),
        _cost(made_of),
        made_of.recognizer.about(),
        f"{TRAINED_ON_NOTE} {_NOTES}",
        f"Measured with {made_of.measured_with()}.",
    ]
    text = "\n\n".join([notes[0], markdown_table(table).rstrip(), *notes[1:]]) + "\n"
    write_report(output, "quality", rows, text)
    plotted = {codec_title(codec): means[Treatment(codec)] for codec in codecs}
    write_atomically(
        output / "rate.png", plots.rates(plotted, ours=(ours, *refined), original=ORIGINAL)
    )
    examples = [
        _example(task, found) for task, found in zip(tasks, records, strict=True) if task.is_example
    ]
    write_atomically(output / "index.html", page(notes, table, examples).encode())
    return text


def _tasks(
    utterances: Sequence[Utterance],
    setup: Setup,
    treatments: tuple[Treatment, ...],
    people: Sequence[Utterance],
    output: Path,
) -> list[_Task]:
    """A task for every recording; those of `people` may babble behind it."""
    played = _played(utterances)
    return [
        _Task(
            utterance=each,
            setup=setup,
            treatments=treatments,
            behind=babblers(each, people) if people else (),
            output=output,
            is_example=each in played,
        )
        for each in utterances
    ]


def _check_place(corpus: Path, output: Path) -> None:
    folder = corpus.resolve()
    if folder in output.resolve().parents and not (folder / "manifest.csv").is_file():
        raise VqcodecError(
            f"{output}: lies in the corpus, which its examples would then be part of; name a "
            "folder beside it"
        )


def _check_names(baselines: Sequence[str], conditions: Sequence[str]) -> None:
    """Whether all are there, and each codec has a name of its own."""
    for condition in conditions:
        check_condition(condition)
    counts = Counter([ORIGINAL, *map(codec_title, baselines)])
    for name in baselines:
        baseline(name)
        if counts[codec_title(name)] > 1:
            raise VqcodecError(f"{codec_title(name)}: names two codecs; give one another name")


def _measure_recording(task: _Task) -> list[dict[str, Any]]:
    """What was found out by every treatment; examples are left in the folder to be played."""
    recording = task.recording()
    found = []
    for treatment in task.treatments:
        name = recording.stem(treatment)
        examples = _example_paths(task, treatment, name)
        make = partial(_measure_treated, task, recording, treatment, examples)
        found.append(read_or_make(task.output / "cache" / f"{name}.json", make, also=examples))
    return found


def _measure_treated(
    task: _Task, recording: Recording, treatment: Treatment, example_paths: Sequence[Path]
) -> dict[str, Any]:
    """A row of the CSV file and, of our codec, the codes (Q, N)."""
    utterance = task.utterance
    reference = recording.in_condition(CLEAN)
    coded, codes, kept = recording.treat(treatment)
    seconds = len(reference) / SAMPLE_RATE
    aligned = align(reference, coded.waveform)
    scores = measure(reference, aligned.waveform)
    listen = partial(task.setup.listen, utterance, reference, aligned.waveform)
    misheard = measure_each({"WER": listen})
    errors, words, insertions = misheard.values["WER"] or (None, None, None)
    row = {
        "file": utterance.name,
        "speaker": utterance.speaker,
        "codec": treatment.title,
        "condition": treatment.condition,
        "seconds": seconds,
        BIT_RATE: None if coded.n_bytes is None else 8 * coded.n_bytes / seconds / 1000,
        "lag (ms)": 1000 * aligned.lag / SAMPLE_RATE,
        _CODES_KEPT: None if kept is None else 100 * kept,
        "words": words,
        "word errors": errors,
        "words put in": insertions,
        **scores.values,
        "undefined": "; ".join(filter(None, (scores.undefined, misheard.undefined))),
    }
    for path in example_paths:
        _write_example(path, aligned.waveform)
    return {"row": row, "codes": None if codes is None else codes.tolist()}


def _table(
    rows_of: Mapping[Treatment, Sequence[dict[str, Any]]],
    means: Mapping[Treatment, Mapping[str, Mean]],
) -> list[dict[str, str]]:
    """A row for each treatment; condition and codes kept have columns where there are any."""
    has_conditions = any(treatment.condition != CLEAN for treatment in rows_of)
    has_generations = any(treatment.generation > 1 for treatment in rows_of)
    table = []
    for treatment, rows in rows_of.items():
        row = table_row(treatment.title, means[treatment])
        if has_conditions:
            row = {"codec": row.pop("codec"), "condition": treatment.condition, **row}
        if has_generations:
            row[f"{_CODES_KEPT} ↑"] = cell(mean(rows, _CODES_KEPT), 1)
        table.append(row)
    return table


def _played(utterances: Sequence[Utterance]) -> list[Utterance]:
    """Those to be heard: of as many speakers as may be."""
    occurrence: Counter[str] = Counter()
    rounds = []
    for utterance in utterances:
        occurrence[utterance.speaker] += 1
        rounds.append((occurrence[utterance.speaker], utterance.name, utterance))
    turns = [utterance for *_, utterance in sorted(rounds, key=lambda entry: entry[:2])]
    return spread(turns[: max(N_EXAMPLES, len(occurrence))], N_EXAMPLES)


def _example_paths(task: _Task, treatment: Treatment, name: str) -> list[Path]:
    """What is to be played: every codec's first generation, of what was clean."""
    if not task.is_example or treatment != Treatment(treatment.codec):
        return []
    return [task.output / "examples" / f"{name}{suffix}" for suffix in (".wav", ".png")]


def _write_example(path: Path, waveform: np.ndarray) -> None:
    if path.suffix == ".png":
        write_atomically(path, plots.spectrogram(waveform, SAMPLE_RATE))
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    rates = {"model_rate": SAMPLE_RATE, "output_rate": SAMPLE_RATE}
    with open_writer(path, n_samples=len(waveform), **rates) as writer:
        writer.write(waveform)


def _example(task: _Task, found: Sequence[dict[str, Any]]) -> Example:
    recording, players = task.recording(), []
    for treatment, record in zip(task.treatments, found, strict=True):
        paths = _example_paths(task, treatment, recording.stem(treatment))
        if not paths:
            continue
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
        f"Split {split}: {len(seconds)} files, {duration(sum(seconds.values()))}, "
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


def _cost(made_of: Setup) -> str:
    """What each part of the model costs."""
    config = made_of.codec().config
    costs = part_costs(config, read_header(Path(made_of.model)).shapes)
    parts = [
        f"{part} {cost.parameters / 1e6:.2f} million parameters, "
        f"{cost.macs_per_second / 1e6:.1f} million multiply-accumulates"
        for part, cost in costs.items()
    ]
    latency = latency_ms(config, costs)[made_of.decoder]
    waits = "" if latency is None else f" Algorithmic latency: {latency:.0f} ms."
    return f"Cost of a second of audio: {'; '.join(parts)}.{waits}"
