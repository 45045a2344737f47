"""Speed of the commands over a folder, by files at a time; see benchmarks/README.md."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer
from command import Output, publish, run

from vqcodec.audio import info
from vqcodec.errors import VqcodecError
from vqcodec.evaluation.report import markdown_table
from vqcodec.files import AUDIO_SUFFIXES, files_below


def timed(arguments: list[str], cores: set[int]) -> tuple[float, float, float]:
    """Wall and CPU seconds of a process that may use so many cores, and megabytes of its first.

    Raises:
        VqcodecError: it fails, in the words of its last line.
    """
    begun = time.perf_counter()
    with tempfile.TemporaryFile("w+") as told:
        process = subprocess.Popen(
            arguments,
            preexec_fn=lambda: os.sched_setaffinity(0, cores),
            stdout=subprocess.DEVNULL,
            stderr=told,
        )
        _, status, used = os.wait4(process.pid, 0)
        time_s, process.returncode = time.perf_counter() - begun, status
        if status:
            told.seek(0)
            lines = told.read().strip().splitlines() or ["no message"]
            raise VqcodecError(f"{' '.join(arguments[:4])}: {lines[-1]}")
    return time_s, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


def main(
    folder: Annotated[Path, typer.Argument(help="Recordings.", exists=True, file_okay=False)],
    others: Annotated[
        list[Path] | None,
        typer.Option("--other", metavar="PYTHON", help="With another vqcodec, to compare with."),
    ] = None,
    jobs: Annotated[list[int] | None, typer.Option(min=1, help="Files at a time.")] = None,
    speaker: Annotated[str, typer.Option(help="Whom to convert to.")] = "p225",
    repeats: Annotated[int, typer.Option(min=1, help="Of which the best counts.")] = 3,
    output: Output = Path("report"),
) -> None:
    """Time encode, decode and convert over a folder; write folders.csv and folders.md.

    Interpreters take turns, so that what else the machine does meets all of them.
    """
    pythons = [Path(sys.executable), *(others or [])]
    available = sorted(os.sched_getaffinity(0))
    paths = files_below(folder, AUDIO_SUFFIXES)
    seconds = sum(info(path).duration_s for path in paths)
    found: dict[tuple[str, str, int], list[tuple[float, float, float]]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        codes, made = f"{scratch}/codes", f"{scratch}/made"
        commands = {
            "encode": ["encode", str(folder), codes],
            "decode": ["decode", codes, made],
            "convert": ["convert", str(folder), "--speaker", speaker, "-o", made],
        }
        each = itertools.product(range(repeats), jobs or [1, 2], pythons)
        for (_, n, python), (name, arguments) in itertools.product(each, commands.items()):
            shutil.rmtree(codes if name == "encode" else made, ignore_errors=True)
            call = [str(python), "-m", "vqcodec", *arguments, "--jobs", str(n)]
            taken = timed(call, set(available[:n]))
            found.setdefault((name, str(python), n), []).append(taken)
    rows = []
    for (name, interpreter, n), times in sorted(found.items()):
        time_s, cpu_s, memory_mb = map(min, zip(*times, strict=True))
        row = {"command": name, "jobs": n, "python": interpreter, "wall (s)": time_s}
        row |= {"CPU (s)": cpu_s, "MB": memory_mb, "x real time": seconds / time_s}
        rows.append(row)
    table = markdown_table(
        [
            {
                key: f"{value:.4g}" if isinstance(value, float) else str(value)
                for key, value in row.items()
            }
            for row in rows
        ]
    )
    page = f"{len(paths)} recordings, {seconds:.0f} s; the best of {repeats}.\n\n{table}\n"
    publish(output, "folders", rows, page)


if __name__ == "__main__":
    run(main)
