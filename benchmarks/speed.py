"""Speed and memory of every part on one core and on two; see benchmarks/README.md."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import torch
import typer
from command import run
from parts import PARTS, Measured, Request

from vqcodec.errors import VqcodecError
from vqcodec.evaluation.report import markdown_table, write_report

TITLES = {
    "encoding": "encode",
    "encodec_encoding": "EnCodec encode",
    "fast_decoding": "decode, fast",
    "encodec_decoding": "EnCodec decode",
    "codec2": "Codec 2, both ways",
    "live_conversion": "convert live, fast",
    "one_stream": "WaveNet, one stream",
    "side_by_side": "WaveNet, 16 streams a core",
    "segments": "WaveNet, a long recording in segments",
    "queues": "WaveNet, PyTorch with queues",
    "naive": "WaveNet, whole receptive field anew",
    "gpu_1": "WaveNet on a GPU, 1 stream",
    "gpu_32": "WaveNet on a GPU, 32 streams",
    "gpu_512": "WaveNet on a GPU, 512 streams",
}
GROWING = ("encoding", "fast_decoding", "segments")
LENGTHS = (10.0, 100.0, 1000.0)
SECONDS = {"segments": 64.0}
"""Of audio: enough segments for the lanes of two cores."""


def timed(request: Request) -> Measured:
    """Time a part in a process of its own.

    Raises:
        VqcodecError: the part fails, in the words of its last line.
    """
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name("parts.py"), json.dumps(asdict(request))],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no message"]
        raise VqcodecError(f"{request.part}: {lines[-1]}")
    return Measured(**json.loads(done.stdout))


def speed(measured: Measured) -> float:
    """Seconds of audio in a second."""
    return measured.audio_s / measured.time_s


def table(measured: dict[tuple[str, int], Measured], cores: list[int]) -> str:
    """One row for each part, in columns for each number of cores."""
    rows = []
    for part, title in TITLES.items():
        row = {"part": title}
        for n in cores:
            found, peak = measured.get((part, n)), measured["product", n].gmacs
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
            "part": TITLES[part],
            **{f"{length:g} s": f"{growth[part, length].time_s:.3g} s" for length in LENGTHS},
            **{f"MB, {length:g} s": f"{growth[part, length].memory_mb:.0f}" for length in LENGTHS},
        }
        for part in GROWING
    ]
    return markdown_table(rows)


def plot(
    path: Path,
    measured: dict[tuple[str, int], Measured],
    growth: dict[tuple[str, float], Measured],
    cores: list[int],
) -> None:
    """Bars of the speeds; lines of time and memory over length."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (bars, lines) = pyplot.subplots(
        1, 2, figsize=(13, 5), width_ratios=(3, 2), layout="constrained"
    )
    parts = [part for part in TITLES if any((part, n) in measured for n in cores)]
    for index, n in enumerate(cores):
        heights = [speed(measured[p, n]) if (p, n) in measured else 0 for p in parts]
        places = [at + 0.4 * index for at in range(len(parts))]
        drawn = bars.barh(places, heights, 0.4, label=f"{n} core{'s' * (n > 1)}")
        bars.bar_label(drawn, [f"{h:.3g}" if h else "" for h in heights], padding=2, fontsize=8)
    bars.set_yticks([at + 0.2 for at in range(len(parts))], [TITLES[p] for p in parts])
    bars.axvline(1, color="black", linewidth=0.8)
    bars.set(xscale="log", xlabel="seconds of audio in a second")
    bars.margins(x=0.15)
    bars.invert_yaxis()
    bars.legend(loc="lower right")
    for part in GROWING if growth else ():
        times = [growth[part, length].time_s for length in LENGTHS]
        memory = growth[part, LENGTHS[-1]].memory_mb
        lines.plot(LENGTHS, times, "o-", label=f"{TITLES[part]} ({memory:.0f} MB at the end)")
    lines.plot(LENGTHS, LENGTHS, "k--", linewidth=0.8, label="real time")
    lines.set(xscale="log", yscale="log", xlabel="recording (s)", ylabel="time (s)")
    figure.legend(handles=lines.get_lines(), loc="outside lower right", ncols=2, fontsize=8)
    figure.savefig(path, dpi=120)


def main(
    model: Annotated[str | None, typer.Option(help="Name or path of a model.")] = None,
    seconds: Annotated[float, typer.Option(min=1, help="Length of the recordings.")] = 10.0,
    repeats: Annotated[int, typer.Option(min=2, help="Of which the fastest counts.")] = 2,
    parts: Annotated[
        str, typer.Option(metavar="A,B", help="Only these of benchmarks/parts.py, without growth.")
    ] = "",
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder.")] = Path("report"),
) -> None:
    """Time every part; write speed.csv, speed.md and speed.png."""
    cores = [n for n in (1, 2) if n <= len(os.sched_getaffinity(0))]
    measured: dict[tuple[str, int], Measured] = {}
    for part in (*parts.split(","), "product") if parts else PARTS:
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
    write_report(output, "speed", rows, page)
    plot(output / "speed.png", measured, grown, cores)
    typer.echo(page)


if __name__ == "__main__":
    run(main)
