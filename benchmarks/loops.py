"""Plain loops over recordings, which benchmarks/encode_dataset.py compares with."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

import vqcodec
from vqcodec.audio import load
from vqcodec.inference.chunking import compute_alone

SECONDS, RATE = 5.0, 16000


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


def loop(what: str, encode: Callable[[Path], Any], paths: list[Path]) -> Measured:
    """Encode one recording after another in this process, on one core."""
    encode(paths[0])
    begun = time.perf_counter(), time.process_time()
    for path in paths:
        encode(path)
    time_s, cpu_s = time.perf_counter() - begun[0], time.process_time() - begun[1]
    seconds = len(paths) * SECONDS
    return Measured(what, 1, seconds / time_s, seconds / cpu_s)


def _own_loop(paths: list[Path]) -> Measured:
    """`loop` of vqcodec."""
    compute_alone()
    codec = vqcodec.load(device="cpu", voices=False)
    return loop("plain loop of vqcodec", codec.encode, paths)


def own_loops(paths: list[Path], jobs: int) -> Measured:
    """As many plain loops of vqcodec side by side: what the machine does at most."""
    with ProcessPoolExecutor(jobs, get_context("spawn")) as pool:
        found = list(pool.map(_own_loop, [paths[number::jobs] for number in range(jobs)]))
    what = f"{jobs} plain loops of vqcodec" if jobs > 1 else found[0].what
    per_cpu = jobs / sum(1 / one.per_cpu for one in found)
    return Measured(what, jobs, sum(one.speed for one in found), per_cpu)


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
