"""Speed on one core, beside EnCodec's architecture; see benchmarks/README.md."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Annotated

import numpy as np
import torch
import typer
from command import run

import vqcodec
from vqcodec import audio
from vqcodec.evaluation.report import markdown_table, write_report
from vqcodec.sampling.reference import ReferenceSampler

ENCODE, FAST = "vqcodec encode", "vqcodec decode (fast)"
WAVENET, REFERENCE = "vqcodec decode (wavenet)", "vqcodec decode (wavenet, reference sampler)"
SEGMENTS = "vqcodec decode (wavenet, long enough for 16 segments)"
ENCODEC_ENCODE, ENCODEC_DECODE = "EnCodec encode", "EnCodec decode"
MATRIX_SIZE = 1024
SEGMENTS_SECONDS = 32.0

Timed = dict[str, tuple[float, Callable[[], object]]]
"""Name -> seconds of audio that a call handles, and the call."""


def our_parts(codec: vqcodec.Codec, folder: Path, seconds: float) -> Timed:
    """Encode a sound file, and decode its codes by every decoder there is."""

    def recording(name: str, seconds: float) -> Path:
        # Noise will do: the time does not depend on the content.
        n_samples = round(seconds * codec.sample_rate)
        noise = 0.1 * np.random.default_rng(0).standard_normal(n_samples)
        rates = {"model_rate": codec.sample_rate, "output_rate": codec.sample_rate}
        with audio.open_writer(folder / name, n_samples=n_samples, **rates) as writer:
            writer.write(noise.astype(np.float32))
        return folder / name

    # A sampled second takes about a second, and the reference sampler minutes.
    longest, long, medium, short = (
        recording("longest.wav", SEGMENTS_SECONDS),
        recording("long.wav", seconds),
        recording("medium.wav", 1.0),
        recording("short.wav", 0.1),
    )
    # A model with a speaker table must be told who speaks.
    speaker = next(iter(codec.voices)) if codec.config.speaker.kind == "table" else None
    encoded = {path: codec.encode(path, speaker=speaker) for path in (longest, long, medium, short)}
    parts: Timed = {ENCODE: (seconds, lambda: codec.encode(long, speaker=speaker))}
    if codec.model.fast is not None:
        parts[FAST] = seconds, lambda: codec.decode(encoded[long], decoder="fast")
    if codec.model.wavenet is not None:
        parts[WAVENET] = 1.0, lambda: codec.decode(encoded[medium], decoder="wavenet")
        parts[SEGMENTS] = (
            SEGMENTS_SECONDS,
            lambda: codec.decode(encoded[longest], decoder="wavenet"),
        )
        parts[REFERENCE] = 0.1, lambda: sample_by_reference(codec, encoded[short])
    return parts


@torch.no_grad()
def sample_by_reference(codec: vqcodec.Codec, codes: vqcodec.Codes) -> list[torch.Tensor]:
    """Decode by the sampler in plain PyTorch, with a silent speaker vector."""
    wavenet = codec.model.wavenet
    assert wavenet is not None
    latents = codec.model.latents(torch.from_numpy(codes.codes.astype(np.int64))[None])
    condition = wavenet.condition(latents, torch.zeros(1, codec.config.speaker.dim))
    return list(ReferenceSampler(wavenet, seeds=[0]).blocks(condition))


def encodec_parts(seconds: float) -> Timed:
    """EnCodec for 24 kHz at 1.5 kbit/s with random weights, from and to a tensor in memory."""
    try:
        from encodec import EncodecModel
    except ImportError:
        typer.echo("EnCodec is left out: pip install 'vqcodec[bench]'", err=True)
        return {}
    model = EncodecModel.encodec_model_24khz(pretrained=False).eval()
    model.set_target_bandwidth(1.5)
    waveform = 0.1 * torch.randn(
        1, 1, round(seconds * model.sample_rate), generator=torch.Generator().manual_seed(0)
    )
    with torch.no_grad():
        frames = model.encode(waveform)
    return {
        ENCODEC_ENCODE: (seconds, torch.no_grad()(lambda: model.encode(waveform))),
        ENCODEC_DECODE: (seconds, torch.no_grad()(lambda: model.decode(frames))),
    }


def timed(call: Callable[[], object]) -> float:
    """Seconds that a call takes."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def main(
    model: Annotated[str | None, typer.Option(help="Name or path of a model.")] = None,
    seconds: Annotated[float, typer.Option(min=0.1, help="Length of the recording.")] = 10.0,
    repeats: Annotated[int, typer.Option(min=1, help="Of which the median counts.")] = 5,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder.")] = Path("report"),
) -> None:
    """Time a model and EnCodec on one thread of the CPU; write speed.csv and speed.md."""
    torch.set_num_threads(1)
    codec = vqcodec.load(model, device="cpu")
    matrix = torch.randn(MATRIX_SIZE, MATRIX_SIZE, generator=torch.Generator().manual_seed(0))
    with tempfile.TemporaryDirectory() as folder:
        parts = our_parts(codec, Path(folder), seconds) | encodec_parts(seconds)
        calls = {name: call for name, (_, call) in parts.items()}
        calls["matmul"] = lambda: matrix @ matrix
        for call in calls.values():
            call()
        # In turns, so that what else the machine does strikes all alike.
        rounds = [{name: timed(call) for name, call in calls.items()} for _ in range(repeats)]

    times = {name: median(one[name] for one in rounds) for name in calls}
    speeds = {name: length / times[name] for name, (length, _) in parts.items()}
    gflops = 2 * MATRIX_SIZE**3 / times["matmul"] / 1e9
    rivals = {ENCODE: ENCODEC_ENCODE, FAST: ENCODEC_DECODE}
    ratios = {
        ours: speeds[ours] / speeds[theirs]
        for ours, theirs in rivals.items()
        if ours in speeds and theirs in speeds
    }
    summary = [
        {
            "part": name,
            "audio (s)": f"{parts[name][0]:g}",
            "time (s)": f"{times[name]:.3g}",
            "audio seconds per second": f"{speed:.3g}",
            "ours / EnCodec": f"{ratios[name]:.2f}" if name in ratios else "",
        }
        for name, speed in speeds.items()
    ]
    page = (
        f"One thread, torch {torch.__version__}, model {codec.name}, medians of {repeats}.\n\n"
        f"{markdown_table(summary)}\n"
        f"This core: {gflops:.1f} GFLOP/s in torch's float32 product of two matrices of "
        f"{MATRIX_SIZE} by {MATRIX_SIZE}.\n"
    )
    rows = [
        {"part": name, "audio_s": parts[name][0] if name in parts else None, "time_s": one[name]}
        for one in rounds
        for name in calls
    ]
    write_report(output, "speed", rows, page)
    typer.echo(page)


if __name__ == "__main__":
    run(main)
