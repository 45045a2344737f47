"""Throughput of encode-dataset, and other codecs beside it; see README.md."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import numpy as np
import soundfile
import torch
import typer
from command import Output, run
from loops import RATE, SECONDS, Measured, dac, encodec, loop, own_loops

from vqcodec.audio import load
from vqcodec.errors import VqcodecError
from vqcodec.evaluation.report import markdown_table, write_report
from vqcodec.extras import is_installed
from vqcodec.files import files_below
from vqcodec.inference.chunking import lone_threads

SAMPLES = Path(__file__).parents[1] / "samples"
OTHERS = 0.05  # of the recordings, which is enough to time slower codecs by


def recordings(folder: Path, n: int) -> list[Path]:
    """Speech of the samples, cut into pieces of five seconds, no two alike."""
    speech = np.concatenate([load(path, RATE) for path in sorted(SAMPLES.glob("*.wav"))])
    length = round(SECONDS * RATE)
    starts = np.random.default_rng(0).integers(len(speech) - length, size=n)
    for number, start in enumerate(starts):
        path = folder / f"s{number % 7}" / f"{number:05d}.flac"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, speech[start : start + length], RATE)
    return files_below(folder, [".flac"])


class Watch(threading.Thread):
    """Notes now and then the memory and the CPU time of a process and the workers of Ray.

    Attributes:
        sizes: moments, and megabytes of one of them.
        cpu_s: of each, by its number, as of the last look.
    """

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.pid = str(pid)
        self.sizes: list[tuple[float, float]] = []
        self.cpu_s: dict[str, float] = {}

    def run(self) -> None:
        """Look until the process has ended."""
        while Path("/proc", self.pid, "stat").exists():
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    own = path.parent.name == self.pid
                    if own or path.read_bytes().startswith(b"ray::_Worker"):
                        self._look(path.parent)
                except (OSError, IndexError):
                    continue  # it has ended
            time.sleep(0.2)

    def _look(self, path: Path) -> None:
        status = (path / "status").read_text().partition("VmRSS:")[2]
        self.sizes.append((time.monotonic(), int(status.split()[0]) / 1024))
        ticks = (path / "stat").read_text().rpartition(")")[2].split()[11:13]
        self.cpu_s[path.name] = sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")

    def halves(self) -> tuple[float, float]:
        """Megabytes at most in the first half of the time and in the second."""
        middle = (self.sizes[0][0] + self.sizes[-1][0]) / 2
        early = [size for seen, size in self.sizes if seen <= middle]
        return max(early), max(size for seen, size in self.sizes if seen > middle)


def dataset(source: Path, sink: Path, jobs: int, part_size: int) -> Measured:
    """Time encode-dataset, from the end of each worker's first part on.

    Raises:
        VqcodecError: it fails.
    """
    begun, cores = time.perf_counter(), sorted(os.sched_getaffinity(0))[:jobs]
    words = ["encode-dataset", str(source), "-o", str(sink), "--jobs", str(jobs)]
    process = subprocess.Popen(
        [sys.executable, "-m", "vqcodec", *words, "--part-size", str(part_size), "--quiet"],
        preexec_fn=lambda: os.sched_setaffinity(0, cores),
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    watch = Watch(process.pid)
    watch.start()
    if process.wait():
        raise VqcodecError(f"{sink}: encode-dataset ended with status {process.returncode}")
    whole_s = time.perf_counter() - begun
    done = sorted(
        (path.stat().st_mtime, json.loads(path.read_text())["seconds"])
        for path in sink.glob("vqcodec/parts/*.json")
    )
    first, last = done[jobs - 1][0], done[-1][0]
    speed = sum(seconds for _, seconds in done[jobs:]) / (last - first)
    per_cpu = sum(seconds for _, seconds in done) / sum(watch.cpu_s.values())
    what = f"encode-dataset, {'Ray' if jobs > 1 else 'one process'}"
    return Measured(what, jobs, speed, per_cpu, whole_s, watch.halves())


def main(
    n: Annotated[int, typer.Option("--recordings", min=8, help="Of five seconds each.")] = 2000,
    jobs: Annotated[int, typer.Option(min=1, help="Cores of the larger run.")] = 2,
    part_size: Annotated[int, typer.Option(min=1, help="Recordings of a part.")] = 50,
    output: Output = Path("report"),
) -> None:
    """Time encode-dataset and plain loops; write encode_dataset.csv and encode_dataset.md."""
    with tempfile.TemporaryDirectory() as scratch, lone_threads(1) as alone:
        source = Path(scratch, "in")
        paths = recordings(source, n)
        few = paths[: max(2, round(OTHERS * n))]
        rows = [own_loops(paths, n_jobs) for n_jobs in sorted({1, jobs})]
        for name, title, start in (("encodec", "EnCodec", encodec), ("dac", "DAC", dac)):
            if is_installed(name):
                other = torch.no_grad()(start())
                rows.append(alone.submit(loop, f"plain loop of {title}", other, few).result())
        for n_jobs in sorted({1, jobs}):
            rows.append(dataset(source, Path(scratch, f"out{n_jobs}"), n_jobs, part_size))
    table = markdown_table(
        [
            {
                "what": row.what,
                "cores": str(row.cores),
                "x real time": f"{row.speed:.1f}",
                "in a CPU second": f"{row.per_cpu:.1f}",
                "CPU hours for 1,000 h": f"{1000 / row.per_cpu:.1f}",
                "whole (s)": f"{row.whole_s:.0f}" if row.whole_s else "",
                "MB of a process, early and late": " ".join(f"{size:.0f}" for size in row.memory_mb)
                if any(row.memory_mb)
                else "",
            }
            for row in rows
        ]
    )
    page = f"{n} recordings of {SECONDS:g} s.\n\n{table}\n"
    write_report(output, "encode_dataset", [asdict(row) for row in rows], page)
    typer.echo(page)


if __name__ == "__main__":
    run(main)
