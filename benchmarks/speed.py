"""Speed and memory of every part on one core and on two; see benchmarks/README.md."""

from __future__ import annotations

import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated

import torch
import typer
from command import Output, publish, run
from parts import PARTS, PEAK, Measured, Request, measure

from vqcodec.evaluation.report import markdown_table

GROWING = ("encoding", "fast_decoding", "segments")
LENGTHS = (10.0, 100.0, 1000.0)
SECONDS = {"segments": 64.0}
"""Of audio: enough segments for the lanes of two cores."""


def timed(request: Request) -> Measured:
    """Time a part in a process of its own."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(measure, request).result()


def speed(measured: Measured) -> float:
    """Seconds of audio in a second."""
    return measured.audio_s / measured.time_s


def table(measured: dict[tuple[str, int], Measured], cores: list[int]) -> str:
    """One row for each part, in columns for each number of cores."""
    rows = []
    for part, (title, _) in PARTS.items():
        if part == PEAK:
            continue
        row = {"part": title}
        for n in cores:
            found, peak = measured.get((part, n)), measured[PEAK, n].gmacs
            assert peak is not None
            row |= {
                f"x real time, {n}": f"{speed(found):.3g}" if found else "",
                f"GMAC/s, {n}": f"{found.gmacs:.3g}" if found and found.gmacs else "",
                f"of peak, {n}": f"{found.gmacs / peak:.0%}" if found and found.gmacs else "",
                f"MB, {n}": f"{found.memory_mb:.0f}" if found else "",
            }
        if any(list(row.values())[1:]):
            rows.append(row)
    return markdown_table(rows)


def growth_table(growth: dict[tuple[str, float], Measured]) -> str:
    """How time and memory grow with the length of a recording."""
    rows = [
        {
            "part": PARTS[part][0],
            **{f"{length:g} s": f"{growth[part, length].time_s:.3g} s" for length in LENGTHS},
            **{f"MB, {length:g} s": f"{growth[part, length].memory_mb:.0f}" for length in LENGTHS},
        }
        for part in GROWING
    ]
    return markdown_table(rows)


def main(
    model: Annotated[str | None, typer.Option(help="Name or path of a model.")] = None,
    seconds: Annotated[float, typer.Option(min=1, help="Length of the recordings.")] = 10.0,
    repeats: Annotated[int, typer.Option(min=2, help="Of which the fastest counts.")] = 2,
    parts: Annotated[
        str, typer.Option(metavar="A,B", help="Only these of benchmarks/parts.py, without growth.")
    ] = "",
    output: Output = Path("report"),
) -> None:
    """Time every part; write speed.csv and speed.md."""
    cores = [n for n in (1, 2) if n <= len(os.sched_getaffinity(0))]
    measured: dict[tuple[str, int], Measured] = {}
    for part in (*parts.split(","), PEAK) if parts else PARTS:
        for n in cores:
            is_idle = part.startswith("gpu") and (n > 1 or not torch.cuda.is_available())
            if is_idle or (part == "codec2" and n > 1):
                continue
            measured[part, n] = timed(Request(part, model, n, SECONDS.get(part, seconds), repeats))
            typer.echo(f"{part}, {n}: {speed(measured[part, n]):.3g} x real time", err=True)
    grown = {
        (part, length): timed(Request(part, model, cores[-1], length, 1))
        for part in (() if parts else GROWING)
        for length in LENGTHS
    }

    peaks = ", ".join(f"{measured['product', n].gmacs:.1f} on {n}" for n in cores)
    name = Path(model).stem if model else "by default"
    page = (
        f"torch {torch.__version__}, model {name}, the best of {repeats}; "
        f"{' and '.join(map(str, cores))} core(s).\n\n{table(measured, cores)}\n"
        f"Peak: float32 products of torch, in GMAC/s: {peaks}.\n"
    )
    if grown:
        page += f"\nGrowth, on {cores[-1]} core(s):\n\n{growth_table(grown)}"
    rows = [
        {"part": part, "cores": n, **asdict(found)} for (part, n), found in measured.items()
    ] + [{"part": part, "cores": cores[-1], **asdict(found)} for (part, _), found in grown.items()]
    publish(output, "speed", rows, page)


if __name__ == "__main__":
    run(main)
