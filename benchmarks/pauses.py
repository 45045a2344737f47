"""How much of STOI is what stands in the pauses: it leaves out frames 40 dB under the loudest.

A frame's energy is that of all frequencies, though STOI compares those from 134 Hz on. A rumble
below them keeps pauses in, however quiet they are above it.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Annotated
from unittest.mock import patch

import numpy as np
import torch
import typer
from command import numbers, run
from torchaudio.functional import highpass_biquad

import vqcodec
from vqcodec.audio import load
from vqcodec.evaluation.quality import SAMPLE_RATE, UndefinedMetricError, stoi
from vqcodec.evaluation.report import clips, markdown_table, write_report
from vqcodec.extras import library

EVERYBODY = "all"
LOWEST = 134.0  # Hz, where the first of STOI's bands begins
HIGH_PASSED = f"from {LOWEST:.0f} Hz on"
NOTES = (
    "STOI of the recordings of a speaker, where frames that lie so much below the loudest are left "
    "out; 40 dB is STOI's own range. What changes with the range stands in the pauses. "
    f"{HIGH_PASSED}: at 40 dB, of recordings and decoded speech after a high-pass, which takes "
    "hardly anything that STOI compares.\n"
)


def main(
    corpus: Annotated[Path, typer.Argument(help="Corpus folder, or the manifest.csv in it.")],
    split: Annotated[str, typer.Option(help="train, valid, test or test_unseen.")] = "test",
    ranges: Annotated[str, typer.Option(help="In dB, separated by commas.")] = "40,35,30,25",
    limit: Annotated[int | None, typer.Option(min=1, help="Files at most.")] = None,
    model: Annotated[str | None, typer.Option(help="Name or path of a model.")] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder.")] = Path("report"),
) -> None:
    """Decode recordings and compare them; writes pauses.csv and pauses.md."""
    torch.set_num_threads(1)
    codec = vqcodec.load(model, device="cpu")
    decibels = numbers(ranges, "--ranges")
    names = [f"{each:g} dB" for each in decibels] + [HIGH_PASSED]
    found: dict[str, list[list[float]]] = defaultdict(list)
    with typer.progressbar(clips(corpus, split, limit=limit), label="decoding") as bar:
        for utterance in bar:
            reference = load(utterance.path, SAMPLE_RATE)
            decoded = codec.decode(codec.encode(utterance.path), sample_rate=SAMPLE_RATE)
            scores = [within(each, reference, decoded) for each in decibels]
            scores.append(within(40.0, high_passed(reference), high_passed(decoded)))
            for group in (utterance.speaker, EVERYBODY):
                found[group].append(scores)
    rows = [
        {"speaker": group, "files": str(len(scores))}
        | {
            name: f"{mean:.3f}"
            for name, mean in zip(names, np.nanmean(scores, axis=0), strict=True)
        }
        for group, scores in sorted(found.items(), key=lambda item: -len(item[1]))
    ]
    text = f"{markdown_table(rows)}\n{NOTES}"
    write_report(output, "pauses", rows, text)
    typer.echo(text)


def within(decibels: float, reference: np.ndarray, decoded: np.ndarray) -> float:
    """STOI with another dynamic range; not a number where it is undefined."""
    try:
        # The package's function of that name hides the module.
        with patch.object(library("pystoi.stoi"), "DYN_RANGE", decibels):
            return stoi(reference, decoded)
    except UndefinedMetricError:
        return float("nan")


def high_passed(waveform: np.ndarray) -> np.ndarray:
    """Without what lies below STOI's bands, by 12 dB an octave."""
    return highpass_biquad(torch.from_numpy(waveform), SAMPLE_RATE, LOWEST).numpy()


if __name__ == "__main__":
    run(main)
