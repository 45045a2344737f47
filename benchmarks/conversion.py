"""How far a converted voice moves to its target; see benchmarks/README.md."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, cast

import numpy as np
import typer
from command import run

import vqcodec
from vqcodec.audio import load
from vqcodec.codec import Decoder
from vqcodec.data.corpora import Utterance
from vqcodec.errors import DataError
from vqcodec.evaluation.quality import SAMPLE_RATE, UndefinedMetricError, speaker_embedding
from vqcodec.evaluation.report import clips, markdown_table, write_report

SCORES = ("original to target", "to target", "to source")


def embedded(utterance: Utterance) -> np.ndarray:
    """Speaker embedding (256,) of a recording as it is."""
    try:
        return speaker_embedding(load(utterance.path, SAMPLE_RATE))
    except UndefinedMetricError as error:
        raise DataError(f"{utterance.path}: {error}; leave it out of the corpus") from error


def centre(utterances: Sequence[Utterance]) -> np.ndarray:
    """A speaker as the mean of the embeddings of the recordings, (256,) of length 1."""
    mean = np.mean([embedded(utterance) for utterance in utterances], axis=0)
    direction: np.ndarray = mean / np.linalg.norm(mean)
    return direction


def convert_clip(
    codec: vqcodec.Codec, utterance: Utterance, centres: dict[str, np.ndarray], decoder: Decoder
) -> list[dict[str, Any]]:
    """Convert one recording to every other speaker: a row of the CSV file for each."""
    source, original = utterance.speaker, embedded(utterance)
    table = codec.config.speaker.kind == "table"
    codes = codec.encode(utterance.path, speaker=source if table else None)
    rows = []
    for target in centres:
        if target == source:
            continue
        converted = codec.decode(codes, speaker=target, decoder=decoder, sample_rate=SAMPLE_RATE)
        row: dict[str, Any] = {"file": utterance.name, "source": source, "target": target}
        row["original to target"] = float(original @ centres[target])
        row |= {"to target": None, "to source": None, "undefined": ""}
        try:
            voice = speaker_embedding(converted)
            row["to target"] = float(voice @ centres[target])
            row["to source"] = float(voice @ centres[source])
        except UndefinedMetricError as error:
            row["undefined"] = str(error)
        rows.append(row)
    return rows


def summarised(rows: Sequence[dict[str, Any]], source: str, target: str) -> dict[str, str]:
    """Means over rows, as a row of the summary."""
    defined = [row for row in rows if not row["undefined"]]
    nearer = sum(row["to target"] > row["to source"] for row in defined)
    summary = {"source": source, "target": target}
    for score in SCORES:
        values = [row[score] for row in rows if row[score] is not None]
        summary[score] = f"{np.mean(values):.3f}" if values else "-"
    summary["nearer to target"] = f"{nearer} of {len(rows)}"
    return summary


def main(
    corpus: Annotated[Path, typer.Argument(help="Corpus folder, or the manifest.csv in it.")],
    speakers: Annotated[str, typer.Option(help="Two voices or more, separated by commas.")],
    number: Annotated[int, typer.Option("--clips", min=1, help="Per source.")] = 5,
    model: Annotated[str | None, typer.Option(help="Name or path of a model.")] = None,
    decoder: Annotated[str, typer.Option(help="fast or wavenet.")] = "fast",
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder.")] = Path("report"),
) -> None:
    """Convert test clips between all ordered pairs; write conversion.csv and conversion.md."""
    names = speakers.split(",")
    codec = vqcodec.load(model)
    for name in names:
        codec.speaker(name)
    centres = {name: centre(clips(corpus, "test", speaker=name)) for name in names}
    rows = [
        row
        for name in names
        for utterance in clips(corpus, "test", speaker=name, limit=number)
        for row in convert_clip(codec, utterance, centres, cast(Decoder, decoder))
    ]
    pairs = [
        summarised([row for row in rows if (row["source"], row["target"]) == pair], *pair)
        for pair in itertools.permutations(names, 2)
    ]
    page = (
        f"Model {codec.name} ({codec.fingerprint.hex()}), decoder {decoder}.\n\n"
        f"{markdown_table([*pairs, summarised(rows, 'all', 'all')])}\n"
        "Means over files of the cosine between speaker embeddings: of the original and the "
        "target (what no conversion gives), of the converted recording and the target, and of the "
        "converted recording and the source. Target and source are the means of their test clips.\n"
    )
    write_report(output, "conversion", rows, page)
    typer.echo(page)


if __name__ == "__main__":
    run(main)
