"""What refined codes are worth, by the steps of the search and by what a bit costs in it."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from command import numbers, run

import vqcodec
from vqcodec.audio import load
from vqcodec.data.corpora import Utterance
from vqcodec.evaluation.quality import (
    SAMPLE_RATE,
    UndefinedMetricError,
    estoi,
    f0_correlation,
    pesq_wb,
    stoi,
    voicing_error,
)
from vqcodec.evaluation.report import clips, markdown_table, write_report
from vqcodec.inference import code_search

MEASURES = {
    "STOI ↑": stoi,
    "ESTOI ↑": estoi,
    "PESQ-WB ↑": pesq_wb,
    "F0 correlation ↑": f0_correlation,
    "voicing error ↓": voicing_error,
}
NOTES = (
    "Means over the files for which a measure is defined, on one core. Speed is that of encoding, "
    "in seconds of audio per second; `bit penalty` is `BIT_PENALTY` of "
    "vqcodec/inference/code_search.py, for a code of 8 ms.\n"
)


def measured(
    codec: vqcodec.Codec, utterances: list[Utterance], *, steps: int, bit_penalty: float
) -> dict[str, Any]:
    """A row of the table; without steps, of the encoder's own codes."""
    code_search.STEPS, code_search.BIT_PENALTY = steps, bit_penalty
    scores, n_bytes, seconds, elapsed = [], 0, 0.0, 0.0
    for utterance in utterances:
        reference = load(utterance.path, SAMPLE_RATE)
        start = time.perf_counter()
        codes = codec.encode(utterance.path, refine=steps > 0)
        elapsed += time.perf_counter() - start
        decoded = codec.decode(codes, sample_rate=SAMPLE_RATE)
        scores.append([scored(measure, reference, decoded) for measure in MEASURES.values()])
        n_bytes += len(codes.to_bytes())
        seconds += codes.duration_s
    means = np.nanmean(scores, axis=0)
    return {
        "steps": str(steps or "-"),
        "bit penalty": f"{bit_penalty:g}" if steps else "-",
        "speed": f"{seconds / elapsed:.2f}",
        "kbit/s": f"{8 * n_bytes / seconds / 1000:.2f}",
        **{name: f"{mean:.3f}" for name, mean in zip(MEASURES, means, strict=True)},
    }


def scored(
    measure: Callable[[np.ndarray, np.ndarray], float], reference: np.ndarray, decoded: np.ndarray
) -> float:
    """What a measure finds; not a number where it is undefined."""
    try:
        return measure(reference, decoded)
    except UndefinedMetricError:
        return float("nan")


def main(
    corpus: Annotated[Path, typer.Argument(help="Corpus folder, or the manifest.csv in it.")],
    split: Annotated[str, typer.Option(help="train, valid, test or test_unseen.")] = "valid",
    steps: Annotated[str, typer.Option(help="Separated by commas.")] = "10,20,40,80",
    bit_penalties: Annotated[
        str, typer.Option(help="Separated by commas.")
    ] = "0,0.00125,0.005,0.01",
    limit: Annotated[int | None, typer.Option(min=1, help="Files at most.")] = 12,
    model: Annotated[str | None, typer.Option(help="Name or path of a model.")] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder.")] = Path("report"),
) -> None:
    """Encode recordings with more and less effort; writes refine.csv and refine.md."""
    torch.set_num_threads(1)
    codec = vqcodec.load(model, device="cpu")
    utterances = clips(corpus, split, limit=limit)
    usual = code_search.STEPS, code_search.BIT_PENALTY
    settings = [(0, 0.0), *((int(each), usual[1]) for each in numbers(steps, "--steps"))]
    settings += [
        (usual[0], each) for each in numbers(bit_penalties, "--bit-penalties") if each != usual[1]
    ]
    rows = []
    with typer.progressbar(settings, label="refining") as bar:
        for n_steps, bit_penalty in bar:
            rows.append(measured(codec, utterances, steps=n_steps, bit_penalty=bit_penalty))
    text = f"{markdown_table(rows)}\n{NOTES}"
    write_report(output, "refine", rows, text)
    typer.echo(text)


if __name__ == "__main__":
    run(main)
