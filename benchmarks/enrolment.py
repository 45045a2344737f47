"""How alike an enrolled voice is, by how much of it was heard; see benchmarks/README.md."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import torch
import typer
from command import numbers, run

import vqcodec
from vqcodec.audio import load
from vqcodec.errors import DataError
from vqcodec.evaluation.quality import SAMPLE_RATE, UndefinedMetricError, speaker_embedding
from vqcodec.evaluation.report import clips, markdown_table, spread, write_report
from vqcodec.extras import library
from vqcodec.files import write_atomically
from vqcodec.inference.units import NOBODY

MAX_TESTS, N_SOURCES = 3, 3
KINDS = ("reconstruction", "conversion")


class Person(NamedTuple):
    """A speaker at the model's rate.

    Attributes:
        name: of the speaker.
        enrolment: (T,) what a voice may be made from.
        tests: other recordings, each (any,).
    """

    name: str
    enrolment: np.ndarray
    tests: list[np.ndarray]


def person(corpus: Path, split: str, name: str, sample_rate: int) -> Person:
    """The last third of somebody's recordings, or the second half of a lone one, is the test."""
    recordings = [load(each.path, sample_rate) for each in clips(corpus, split, speaker=name)]
    if len(recordings) == 1:
        recordings = np.array_split(recordings[0], 2)
    n_tests = max(1, len(recordings) // 3)
    tests = spread(recordings[-n_tests:], MAX_TESTS)
    return Person(name, np.concatenate(recordings[:-n_tests]), tests)


def centre(waveforms: Sequence[np.ndarray], name: str) -> np.ndarray:
    """A speaker as the mean of the embeddings of recordings, (256,) of length 1."""
    try:
        mean = np.mean([speaker_embedding(waveform) for waveform in waveforms], axis=0)
    except UndefinedMetricError as error:
        raise DataError(f"{name}: {error} in a test recording; leave it out") from error
    direction: np.ndarray = mean / np.linalg.norm(mean)
    return direction


def similarity(waveforms: Sequence[np.ndarray], target: np.ndarray) -> float | None:
    """Mean cosine to a speaker over the recordings in which a voice is found."""
    found = []
    for waveform in waveforms:
        try:
            found.append(float(speaker_embedding(waveform) @ target))
        except UndefinedMetricError:
            continue
    return float(np.mean(found)) if found else None


def measured(
    codec: vqcodec.Codec, one: Person, others: Sequence[Person], lengths: Sequence[float]
) -> list[dict[str, Any]]:
    """Enroll somebody from more and more audio: a row of the CSV file for each voice."""
    rate = codec.sample_rate
    sources = [other.tests[0] for other in others]
    target = centre([*one.tests], one.name)
    # A reconstruction is not led away from the voice that its codes would carry.
    inputs = zip(KINDS, (one.tests, sources), (NOBODY, None), strict=True)
    codes = {
        kind: [codec.encode(each, rate, speaker=carried) for each in own]
        for kind, own, carried in inputs
    }
    row: dict[str, Any] = {"speaker": one.name, "seconds": 0.0, "voice": "not converted"}
    rows = [row | {"reconstruction": None, "conversion": similarity(sources, target)}]
    for seconds in lengths:
        audio = one.enrolment[: round(seconds * rate)]
        if len(audio) < round(seconds * rate):
            break
        for voice, tune in (("encoder", False), ("tuned", True)):
            speaker = codec.enroll(one.name, [audio], sample_rate=rate, tune=tune)
            scores = {
                kind: similarity(
                    [codec.decode(each, speaker=speaker, sample_rate=SAMPLE_RATE) for each in own],
                    target,
                )
                for kind, own in codes.items()
            }
            rows.append(row | {"seconds": seconds, "voice": voice} | scores)
    return rows


def mean(rows: Sequence[dict[str, Any]], kind: str, **wanted: object) -> float:
    """Over the speakers for whom it is defined."""
    values = [
        row[kind]
        for row in rows
        if row[kind] is not None and all(row[key] == value for key, value in wanted.items())
    ]
    return float(np.mean(values)) if values else float("nan")


def table(rows: Sequence[dict[str, Any]], lengths: Sequence[float]) -> str:
    """Means over speakers, a line for each length."""
    lines = []
    for seconds in lengths:
        line = {"enrolled from (s)": f"{seconds:g}"}
        line["speakers"] = str(sum(r["seconds"] == seconds for r in rows) // 2)
        for kind in KINDS:
            for voice, label in (("encoder", kind), ("tuned", f"{kind}, tuned")):
                line[label] = f"{mean(rows, kind, seconds=seconds, voice=voice):.3f}"
        lines.append(line)
    return markdown_table(lines)


def notes(rows: Sequence[dict[str, Any]]) -> str:
    """What the table says."""
    before = mean(rows, "conversion", voice="not converted")
    return (
        "Means over speakers of the cosine between speaker embeddings of what is decoded and of "
        "the speaker's own test recordings: his test recordings coded and decoded with the "
        f"enrolled voice, and recordings of up to {N_SOURCES} others converted to it, whose "
        f"similarity before is {before:.3f}. Longer enrolments are of the speakers who have so "
        "much audio; the thick lines of the plot are of those who have the longest. Test "
        "recordings are others than those to enroll from; of a speaker with a lone recording they "
        "are its halves.\n"
    )


def plot(rows: Sequence[dict[str, Any]], lengths: Sequence[float]) -> bytes:
    """A panel for each kind, as a PNG file.

    A thin line for each speaker, a thick one for the mean of those who reach the longest: others
    would bend it where they end.
    """
    figure = library("matplotlib.figure").Figure(figsize=(10, 4.5), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    names = sorted({row["speaker"] for row in rows})
    longest = [row["speaker"] for row in rows if row["seconds"] == lengths[-1]]
    through = [row for row in rows if row["speaker"] in longest]
    for axis, kind in zip(panels, KINDS, strict=True):
        for voice, colour in (("encoder", "tab:blue"), ("tuned", "tab:orange")):
            for name in names:
                own = [row for row in rows if (row["speaker"], row["voice"]) == (name, voice)]
                times = [row["seconds"] for row in own]
                axis.plot(times, [row[kind] for row in own], color=colour, alpha=0.25, marker=".")
            means = [mean(through, kind, seconds=seconds, voice=voice) for seconds in lengths]
            label = f"{voice}, mean of {len(set(longest))}"
            axis.plot(lengths, means, color=colour, linewidth=2.5, marker="o", label=label)
        if kind == "conversion":
            level = mean(through, kind, voice="not converted")
            axis.axhline(level, color="grey", linestyle="--", label="not converted")
        axis.set(title=kind, xlabel="enrolled from (s)", xscale="log", xticks=lengths)
        axis.set_xticklabels([f"{seconds:g}" for seconds in lengths])
        axis.minorticks_off()
        axis.grid(alpha=0.3)
    panels[0].set_ylabel("similarity to the speaker")
    panels[1].legend()
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=120)
    return file.getvalue()


def main(
    corpus: Annotated[Path, typer.Argument(help="Corpus folder, or the manifest.csv in it.")],
    split: Annotated[str, typer.Option(help="valid, test or test_unseen.")] = "test_unseen",
    seconds: Annotated[
        str, typer.Option(help="Of audio to enroll from, separated by commas.")
    ] = "2,5,10,30,60",
    limit: Annotated[
        int | None, typer.Option(min=1, help="Speakers at most, those with the most audio.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="Name or path of a model.")] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder.")] = Path("report"),
) -> None:
    """Enroll the speakers of a split from growing audio, with and without tuning.

    Writes enrolment.csv, enrolment.md and enrolment.png.
    """
    lengths = sorted(numbers(seconds, "--seconds"))
    library("matplotlib")  # missed now rather than after the work
    torch.set_num_threads(1)
    codec = vqcodec.load(model, device="cpu")
    names = sorted({each.speaker for each in clips(corpus, split)})
    everybody = [person(corpus, split, name, codec.sample_rate) for name in names]
    enough = [one for one in everybody if len(one.enrolment) >= lengths[0] * codec.sample_rate]
    people = sorted(enough, key=lambda one: -len(one.enrolment))[:limit]
    if len(people) < 2:
        raise DataError(
            f"{corpus}: split {split} has {len(people)} speakers with {lengths[0]:g} s to enroll "
            "from; two are needed"
        )
    rows = []
    for index, one in enumerate(people):
        others = [*people[index + 1 :], *people[:index]][:N_SOURCES]
        rows += measured(codec, one, others, lengths)
    reached = [length for length in lengths if any(row["seconds"] == length for row in rows)]
    page = (
        f"Split {split}: {len(people)} speakers; "
        f"model {codec.name} ({codec.fingerprint.hex()}).\n\n{table(rows, reached)}\n"
        f"{notes(rows)}\n![](enrolment.png)\n"
    )
    write_atomically(output / "enrolment.png", plot(rows, reached))
    write_report(output, "enrolment", rows, page)
    typer.echo(page)


if __name__ == "__main__":
    run(main)
