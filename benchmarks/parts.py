"""What benchmarks/speed.py times: each part runs alone, in a process of its own."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
import torch

import vqcodec
from vqcodec.evaluation.baselines import baseline
from vqcodec.inference.wavenet.graph import GraphSampler
from vqcodec.models.cost import part_costs
from vqcodec.models.interfaces import Condition
from vqcodec.models.mu_law import SILENCE
from vqcodec.models.wavenet import WaveNet

PEAK = "product"
LANES_PER_CORE = 16
MATRIX_SIZE = 1024
NAIVE_STEPS = 20


@dataclass(frozen=True)
class Request:
    """One part to be timed.

    Attributes:
        part: a key of `PARTS`.
        model: name or path; the default model when None.
        cores: that the process may use.
        seconds: of audio, for the parts whose length is free.
        repeats: of which the fastest counts: what else the machine does can only slow a part down.
            Before several there is one that does not count.
    """

    part: str
    model: str | None
    cores: int
    seconds: float
    repeats: int


@dataclass(frozen=True)
class Measured:
    """How a part did.

    Attributes:
        audio_s: seconds of audio that a call handles, over all streams.
        time_s: that the call took.
        gmacs: 10^9 multiplications and additions of the networks in a second of time, if known.
        memory_mb: largest resident memory of the process.
    """

    audio_s: float
    time_s: float
    gmacs: float | None
    memory_mb: float


class Part(NamedTuple):
    """A call that handles `audio_s` seconds, with `macs` of the networks for each of them."""

    audio_s: float
    call: Callable[[], object]
    macs: float | None = None


def noise(codec: vqcodec.Codec, seconds: float) -> np.ndarray:
    """White noise (T,): the time does not depend on the content."""
    n_samples = round(seconds * codec.sample_rate)
    return 0.1 * np.random.default_rng(0).standard_normal(n_samples, dtype=np.float32)


def macs_of(codec: vqcodec.Codec, *parts: str) -> float:
    """Multiplications and additions of parts for a second."""
    shapes = {name: weight.shape for name, weight in codec.model.state_dict().items()}
    costs = part_costs(codec.config, shapes)
    return sum(costs[part].macs_per_second for part in parts)


def encoding(codec: vqcodec.Codec, request: Request) -> Part:
    """From an array to codes."""
    samples, voice = noise(codec, request.seconds), next(iter(codec.voices))
    macs = macs_of(codec, "encoder", "quantizer")
    return Part(
        request.seconds, lambda: codec.encode(samples, codec.sample_rate, speaker=voice), macs
    )


def _encoded(codec: vqcodec.Codec, seconds: float) -> vqcodec.Codes:
    voice = next(iter(codec.voices))
    return codec.encode(noise(codec, seconds), codec.sample_rate, speaker=voice)


def fast_decoding(codec: vqcodec.Codec, request: Request) -> Part:
    """From codes to an array, by the fast decoder."""
    codes = _encoded(codec, request.seconds)
    macs = macs_of(codec, "fast")
    return Part(request.seconds, lambda: codec.decode(codes, decoder="fast"), macs)


def live_conversion(codec: vqcodec.Codec, request: Request) -> Part:
    """A stream in blocks of 20 ms to another voice."""
    samples, voice = noise(codec, request.seconds), next(iter(codec.voices))
    blocks = np.array_split(samples, round(request.seconds / 0.02))

    def call() -> object:
        stream = codec.stream_encode(iter(blocks), speaker=voice, gain=1.0)
        return sum(len(block) for block in codec.stream_decode(stream, decoder="fast"))

    return Part(request.seconds, call)


def _wavenet(codec: vqcodec.Codec) -> tuple[WaveNet, float]:
    wavenet = codec.model.wavenet
    assert wavenet is not None
    return wavenet, macs_of(codec, "wavenet")


def lanes(codec: vqcodec.Codec, n_lanes: int) -> Part:
    """The WaveNet alone with several recordings of a second side by side."""
    _, macs = _wavenet(codec)
    quantizer, n_codes = codec.config.quantizer, codec.sample_rate // codec.hop_length
    shape = n_lanes, quantizer.n_codebooks, n_codes
    codes = np.random.default_rng(0).integers(quantizer.codebook_size, size=shape)
    speaker = np.zeros(codec.config.speaker.dim, np.float32)
    conditions = [codec.engine.wavenet_condition(lane, speaker) for lane in codes]
    seeds = [[lane] for lane in range(n_lanes)]

    def call() -> object:
        return codec.engine.sample(conditions, seeds=seeds, temperature=1.0)

    return Part(n_lanes * n_codes * codec.hop_length / codec.sample_rate, call, macs)


def segments(codec: vqcodec.Codec, request: Request) -> Part:
    """One long recording through the WaveNet, cut where it is quiet and joined again."""
    codes, (_, macs) = _encoded(codec, request.seconds), _wavenet(codec)
    return Part(request.seconds, lambda: codec.decode(codes, decoder="wavenet"), macs)


def queues(codec: vqcodec.Codec, request: Request) -> Part:
    """The same WaveNet in plain PyTorch, with queues."""
    wavenet, macs = _wavenet(codec)
    latents = torch.zeros(1, codec.config.quantizer.dim, 10)
    with torch.no_grad():
        told = Condition(latents, torch.zeros(1, codec.config.speaker.dim))
        condition = wavenet.per_code(wavenet.informed(told, codec.model.fast))
    seconds = 10 * codec.hop_length / codec.sample_rate
    return Part(seconds, lambda: list(GraphSampler(wavenet, seeds=[0]).blocks(condition)), macs)


def naive(codec: vqcodec.Codec, request: Request) -> Part:
    """The same WaveNet without memory: its whole receptive field anew for every step."""
    wavenet, _ = _wavenet(codec)
    n_bands = wavenet.n_bands
    n_codes = -(-wavenet.receptive_field * n_bands // codec.hop_length)
    levels = torch.full((1, n_codes * codec.hop_length // n_bands, n_bands), SILENCE)
    latents = torch.zeros(1, codec.config.quantizer.dim, n_codes)
    told = Condition(latents, torch.zeros(1, codec.config.speaker.dim))

    @torch.no_grad()
    def call() -> object:
        informed = wavenet.informed(told, codec.model.fast)
        for _ in range(NAIVE_STEPS):
            share = wavenet(levels, informed)[0, -1].softmax(-1)
            levels.copy_(torch.roll(levels, -1, dims=1))
            levels[0, -1] = share.multinomial(1)[:, 0]
        return levels

    return Part(NAIVE_STEPS * n_bands / codec.sample_rate, call)


def encodec(codec: vqcodec.Codec, request: Request, *, decodes: bool) -> Part:
    """EnCodec for 24 kHz at 1.5 kbit/s with random weights, on a tensor in memory."""
    from encodec import EncodecModel

    model = EncodecModel.encodec_model_24khz(pretrained=False).eval()
    model.set_target_bandwidth(1.5)
    waveform = 0.1 * torch.randn(1, 1, round(request.seconds * model.sample_rate))
    if not decodes:
        return Part(request.seconds, torch.no_grad()(lambda: model.encode(waveform)))
    with torch.no_grad():
        frames = model.encode(waveform)
    return Part(request.seconds, torch.no_grad()(lambda: model.decode(frames)))


def codec2(codec: vqcodec.Codec, request: Request) -> Part:
    """Codec 2 at 2400 bit/s, c2enc and c2dec one after the other, their start included."""
    samples, run = noise(codec, request.seconds), baseline("codec2-2400")
    return Part(request.seconds, lambda: run(samples))


def product(codec: vqcodec.Codec, request: Request) -> Part:
    """A float32 matrix product: what the cores can do at best."""
    matrix = torch.randn(MATRIX_SIZE, MATRIX_SIZE)
    return Part(1.0, lambda: matrix @ matrix, MATRIX_SIZE**3)


PARTS: dict[str, tuple[str, Callable[[vqcodec.Codec, Request], Part]]] = {
    "encoding": ("encode", encoding),
    "encodec_encoding": ("EnCodec encode", partial(encodec, decodes=False)),
    "fast_decoding": ("decode, fast", fast_decoding),
    "encodec_decoding": ("EnCodec decode", partial(encodec, decodes=True)),
    "codec2": ("Codec 2, both ways", codec2),
    "live_conversion": ("convert live, fast", live_conversion),
    "one_stream": ("WaveNet, one stream", lambda codec, _: lanes(codec, 1)),
    "side_by_side": (
        f"WaveNet, {LANES_PER_CORE} streams a core",
        lambda codec, request: lanes(codec, LANES_PER_CORE * request.cores),
    ),
    "segments": ("WaveNet, a long recording in segments", segments),
    "queues": ("WaveNet, PyTorch with queues", queues),
    "naive": ("WaveNet, whole receptive field anew", naive),
    "gpu_1": ("WaveNet on a GPU, 1 stream", lambda codec, _: lanes(codec, 1)),
    "gpu_32": ("WaveNet on a GPU, 32 streams", lambda codec, _: lanes(codec, 32)),
    "gpu_512": ("WaveNet on a GPU, 512 streams", lambda codec, _: lanes(codec, 512)),
    PEAK: ("float32 matrix product", product),
}
"""Name -> title and how to make it ready."""


def measure(request: Request) -> Measured:
    """Time one part in this process, which is kept to the first of its cores."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: request.cores])
    torch.set_num_threads(request.cores)
    on_gpu = request.part.startswith("gpu")
    codec = vqcodec.load(request.model, device="cuda" if on_gpu else "cpu")
    part = PARTS[request.part][1](codec, request)
    times = []
    if request.repeats > 1:
        part.call()  # loads what is compiled, and fills caches
    for _ in range(request.repeats):
        start = time.perf_counter()
        part.call()
        times.append(time.perf_counter() - start)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    gmacs = None if part.macs is None else part.macs * part.audio_s / min(times) / 1e9
    return Measured(part.audio_s, min(times), gmacs, memory)
