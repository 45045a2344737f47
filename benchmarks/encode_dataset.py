"""Throughput of encode-dataset, and other codecs beside it; see README.md."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import soundfile
import torch
import typer
from command import Output, run

import vqcodec
from vqcodec.audio import load
from vqcodec.errors import VqcodecError
from vqcodec.evaluation.report import markdown_table, write_report
from vqcodec.extras import is_installed
from vqcodec.files import files_below
from vqcodec.inference.chunking import lone_threads

SECONDS, RATE = 5.0, 16000
SAMPLES = Path(__file__).parents[1] / "samples"
OTHERS = 0.05  # of the recordings, which is enough to time slower codecs by


@dataclass(frozen=True)
class Measured:
    """One way through the recordings.

    Attributes:
        what: it is.
        cores: that it was given.
        speed: seconds of audio in a second, the start of processes left out.
        per_cpu: seconds of audio in a CPU second of what encodes, whatever else the machine does.
        whole_s: seconds from the command to its end; 0 of a loop in this process.
        memory_mb: of a worker at most, in the first half of the run and in the second.
    """

    what: str
    cores: int
    speed: float
    per_cpu: float
    whole_s: float = 0.0
    memory_mb: tuple[float, float] = (0.0, 0.0)


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


def loop(what: str, encode: Callable[[Path], Any], paths: list[Path]) -> Measured:
    """Encode one recording after another in this process, on one core."""
    encode(paths[0])
    begun = time.perf_counter(), time.process_time()
    for path in paths:
        encode(path)
    time_s, cpu_s = time.perf_counter() - begun[0], time.process_time() - begun[1]
    seconds = len(paths) * SECONDS
    return Measured(what, 1, seconds / time_s, seconds / cpu_s)


def encodec() -> Callable[[Path], Any]:
    """EnCodec for 24 kHz at 1.5 kbit/s with random weights."""
    from encodec import EncodecModel

    model = EncodecModel.encodec_model_24khz(pretrained=False).eval()
    model.set_target_bandwidth(1.5)
    return lambda path: model.encode(torch.from_numpy(load(path, 24000))[None, None])


def dac() -> Callable[[Path], Any]:
    """The Descript Audio Codec for 16 kHz with random weights."""
    from dac.model.dac import DAC

    rates = [2, 4, 5, 8]
    model = DAC(
        encoder_rates=rates, decoder_rates=rates[::-1], sample_rate=RATE, n_codebooks=12
    ).eval()
    return lambda path: model.encode(
        model.preprocess(torch.from_numpy(load(path, RATE))[None, None], RATE)
    )


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
        codec = vqcodec.load(device="cpu", voices=False)
        rows = [alone.submit(loop, "plain loop of vqcodec", codec.encode, paths).result()]
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
