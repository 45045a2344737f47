"""Sound quality of a model beside reference codecs; see benchmarks/README.md."""

from __future__ import annotations

import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from pathlib import Path
from typing import Annotated, Any, NamedTuple, cast

import numpy as np
import torch
import typer
from command import run

import vqcodec
from vqcodec.audio import load
from vqcodec.codec import Decoder
from vqcodec.data.corpora import Utterance
from vqcodec.evaluation.baselines import Coded, baseline
from vqcodec.evaluation.quality import METRICS, SAMPLE_RATE, align, measure
from vqcodec.evaluation.report import clips, markdown_table, write_report
from vqcodec.training.monitor import CollapseMonitor


class Task(NamedTuple):
    """What a process is to do: one recording through every codec."""

    utterance: Utterance
    model: str | None
    decoder: Decoder
    baselines: tuple[str, ...]


class Measured(NamedTuple):
    """One recording: a row of the CSV file for every codec, and our codes (Q, N)."""

    rows: list[dict[str, Any]]
    codes: np.ndarray


@cache
def loaded(model: str | None) -> vqcodec.Codec:
    """The model, once in every process."""
    torch.set_num_threads(1)
    return vqcodec.load(model)


def our_label(decoder: str) -> str:
    """Our name in the tables."""
    return f"vqcodec ({decoder})"


def measure_clip(task: Task) -> Measured:
    """Encode, decode, align and measure one recording with every codec."""
    utterance, codec = task.utterance, loaded(task.model)
    reference = load(utterance.path, SAMPLE_RATE)
    # A model with a speaker table is told who speaks; any other hears it.
    speaker = utterance.speaker if codec.config.speaker.kind == "table" else None
    codes = codec.encode(utterance.path, speaker=speaker)
    decoded = codec.decode(codes, decoder=task.decoder, sample_rate=SAMPLE_RATE)
    results = {our_label(task.decoder): Coded(decoded, len(codes.to_bytes()))}
    results |= {name: baseline(name)(reference) for name in task.baselines}

    rows = []
    seconds = len(reference) / SAMPLE_RATE
    for name, coded in results.items():
        aligned = align(reference, coded.waveform)
        scores = measure(reference, aligned.waveform)
        reasons = [f"{key}: {score.reason}" for key, score in scores.items() if score.reason]
        rows.append(
            {
                "file": utterance.name,
                "speaker": utterance.speaker,
                "codec": name,
                "seconds": seconds,
                "kbit/s": 8 * coded.n_bytes / seconds / 1000,
                "lag (ms)": 1000 * aligned.lag / SAMPLE_RATE,
                **{key: score.value for key, score in scores.items()},
                "undefined": "; ".join(reasons),
            }
        )
    return Measured(rows, codes.codes)


def summarised(rows: Sequence[dict[str, Any]], name: str) -> dict[str, str]:
    """A codec's row of the summary: means over the files where a measure is defined."""
    own = [row for row in rows if row["codec"] == name]
    summary = {"codec": name, "kbit/s": f"{np.mean([row['kbit/s'] for row in own]):.2f}"}
    for metric in METRICS:
        values = [row[metric.name] for row in own if row[metric.name] is not None]
        mean = f"{np.mean(values):.3f}" if values else "-"
        missing = f" ({len(values)} of {len(own)} files)" if len(values) < len(own) else ""
        arrow = "↑" if metric.higher_is_better else "↓"
        summary[f"{metric.name} {arrow}"] = mean + missing
    return summary


def codebook_line(codec: vqcodec.Codec, codes: Sequence[np.ndarray]) -> str:
    """How evenly the codes of all files use the codebook."""
    quantizer = codec.config.quantizer
    monitor = CollapseMonitor(quantizer.codebook_size, quantizer.n_codebooks)
    for one in codes:
        monitor.update(torch.from_numpy(one.astype(np.int64))[None])
    usage = monitor.usage()
    return (
        f"Codebook: perplexity {usage.perplexity:.1f} of {quantizer.codebook_size}, "
        f"{usage.used:.1%} of the codes used."
    )


def main(
    corpus: Annotated[Path, typer.Argument(help="Corpus folder, or the manifest.csv in it.")],
    split: Annotated[str, typer.Option(help="valid, test or test_unseen.")] = "test",
    model: Annotated[str | None, typer.Option(help="Name or path of a model.")] = None,
    decoder: Annotated[str, typer.Option(help="fast or wavenet.")] = "fast",
    baselines: Annotated[
        str, typer.Option(help="Reference codecs, separated by commas; may be empty.")
    ] = "codec2-1200,codec2-2400,codec2-3200,opus-6",
    limit: Annotated[
        int | None, typer.Option(min=1, help="Files at most, spread over the split.")
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Processes, each with one thread.")] = 1,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder.")] = Path("report"),
) -> None:
    """Measure a model and reference codecs; write quality.csv and quality.md."""
    names = tuple(name for name in baselines.split(",") if name)
    for name in names:
        baseline(name)
    codec = loaded(model)
    utterances = clips(corpus, split, limit=limit)
    wanted = cast(Decoder, decoder)
    tasks = [Task(utterance, model, wanted, names) for utterance in utterances]
    # Forked processes would inherit torch's threads in an unknown state.
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")) as pool:
        measured = list(pool.map(measure_clip, tasks))

    rows = [row for one in measured for row in one.rows]
    minutes = sum(one.rows[0]["seconds"] for one in measured) / 60
    table = markdown_table([summarised(rows, name) for name in (our_label(decoder), *names)])
    page = (
        f"Split {split}: {len(measured)} files, {minutes:.1f} minutes, "
        f"{len({utterance.speaker for utterance in utterances})} speakers; "
        f"model {codec.name} ({codec.fingerprint.hex()}).\n\n{table}\n"
        f"{codebook_line(codec, [one.codes for one in measured])}\n\n"
        "Means over files. kbit/s counts every byte of the .codes file with its header, of the "
        "bare Codec 2 stream, and of the .opus file with its container. ↑ higher is better, "
        "↓ lower.\n"
    )
    write_report(output, "quality", rows, page)
    typer.echo(page)


if __name__ == "__main__":
    run(main)
