"""How well a prior predicts codes, beside simpler models; see docs/prior.md."""

from __future__ import annotations

import time
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import numpy as np
import torch
import typer
from command import run
from counting import Predictor, coded_splits, counting_models

import vqcodec
from vqcodec.data.prepared import PreparedData
from vqcodec.evaluation.report import markdown_table, write_report
from vqcodec.models.speaker import from_int8
from vqcodec.prior import Prior, load
from vqcodec.training.prior_data import CodedClip

ALONE, TOLD = "transformer, speaker unknown", "transformer"


def transformers(prior: Prior) -> dict[str, Predictor]:
    """The prior, told who speaks and not."""

    def bits(clip: CodedClip, vector: np.ndarray) -> np.ndarray:
        found = prior.model.bits(torch.from_numpy(clip.codes), torch.from_numpy(vector))
        return found.numpy()

    return {
        ALONE: lambda clip: bits(clip, np.zeros(len(clip.vector), np.float32)),
        TOLD: lambda clip: bits(clip, from_int8(clip.vector)),
    }


def sampling_speed(prior: Prior, seconds: float, repeats: int) -> float:
    """Seconds of speech sampled in a second of the processor, the median of some runs."""
    speaker = vqcodec.Speaker(np.zeros(64, np.int8))
    times = []
    for seed in range(repeats + 1):
        start = time.process_time()
        prior.sample(seconds, speaker=speaker, seed=seed)
        times.append(time.process_time() - start)
    return seconds / median(times[1:])


def main(
    data: Annotated[Path, typer.Argument(help="A folder that vqcodec prepare made.")],
    prior: Annotated[Path | None, typer.Option(help="A prior file.")] = None,
    model: Annotated[str | None, typer.Option(help="Name or path of a model.")] = None,
    splits: Annotated[str, typer.Option(help="Separated by commas.")] = "valid,test,test_unseen",
    codes: Annotated[
        Path, typer.Option(help="Where the clips' codes are kept from one run to the next.")
    ] = Path("report/codes.safetensors"),
    seconds: Annotated[float, typer.Option(min=0.1, help="To sample.")] = 10.0,
    repeats: Annotated[int, typer.Option(min=1, help="Of which the median counts.")] = 5,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder.")] = Path("report"),
) -> None:
    """Measure bits per code and the speed of sampling; write prior.csv and prior.md."""
    torch.set_num_threads(1)
    codec = vqcodec.load(model, device="cpu")
    loaded = load(codec, prior)
    names = splits.split(",")
    coded = coded_splits(codec, PreparedData(data), names, codes)

    size = codec.config.quantizer.codebook_size
    models = counting_models([clip for _, clip in coded["train"]], size) | transformers(loaded)
    rows: list[dict[str, Any]] = []
    summary = [{"model": label} for label in models]
    for name in names:
        totals = np.zeros(len(models))
        for clip, known in coded[name]:
            bits = {label: predict(known) for label, predict in models.items()}
            totals += [own.sum() for own in bits.values()]
            row = {"file": clip.name, "speaker": clip.speaker, "split": name}
            rows.append({**row, **{label: float(own.mean()) for label, own in bits.items()}})
        n_codes = sum(len(known.codes) for _, known in coded[name])
        for line, total in zip(summary, totals, strict=True):
            line[name] = f"{total / n_codes:.3f}"
    speed = sampling_speed(loaded, seconds, repeats)
    page = (
        f"Bits per code; model {codec.name} ({codec.fingerprint.hex()}).\n\n"
        f"{markdown_table(summary)}\n"
        f"Sampling: {speed:.2f} seconds of speech in a second of one core, {seconds:g} s at a "
        f"time, median of {repeats}, without decoding.\n"
    )
    write_report(output, "prior", rows, page)
    typer.echo(page)


if __name__ == "__main__":
    run(main)
