"""Whether the joins of a recording that was sampled in segments can be heard; see README.md."""

from __future__ import annotations

from itertools import accumulate
from pathlib import Path
from typing import Annotated, Any

import librosa
import numpy as np
import torch
import typer
from command import run

import vqcodec
from vqcodec import audio
from vqcodec.errors import VqcodecError
from vqcodec.evaluation.quality import SAMPLE_RATE, mel_distance, stoi
from vqcodec.evaluation.report import clips, markdown_table, write_report
from vqcodec.inference.decoding import wavenet_blocks
from vqcodec.inference.wavenet import segments
from vqcodec.models.speaker import from_int8

FRAME_LENGTH = 512  # samples, the length of a crossfade
LPC_ORDER = 16


def clicks(waveform: np.ndarray) -> np.ndarray:
    """(frames,) How far the largest prediction error of a frame stands out, in dB.

    A click is what the samples before do not foretell: the peak of the linear prediction residual
    over its median (Godsill and Rayner 1998, Digital Audio Restoration, section 5.2).
    """
    frames = librosa.util.frame(waveform + 1e-6, frame_length=FRAME_LENGTH, hop_length=FRAME_LENGTH)
    values = []
    for frame in frames.T:
        filter_taps = librosa.lpc(frame.astype(np.float64), order=LPC_ORDER)
        residual = np.abs(np.convolve(frame, filter_taps, "valid"))
        values.append(20 * np.log10(residual.max() / np.median(residual)))
    return np.array(values)


def main(
    corpus: Annotated[Path, typer.Argument(help="A folder of speakers, or its manifest.csv.")],
    model: Annotated[str | None, typer.Option(help="Name or path of a model.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Recordings.")] = 8,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder.")] = Path("report"),
) -> None:
    """Sample test recordings in segments and as a whole; write joins.csv and joins.md."""
    codec = vqcodec.load(model, device="cpu")
    n_cut = segments.LENGTH + segments.SLACK + segments.OVERLAP
    shortest_s = n_cut * codec.hop_length / codec.sample_rate
    long = [clip for clip in clips(corpus, "test") if audio.info(clip.path).duration_s > shortest_s]
    if not long:
        raise VqcodecError(f"{corpus}: no test recording is longer than {shortest_s:.1f} s")
    chosen = [long[i] for i in np.linspace(0, len(long) - 1, min(limit, len(long))).astype(int)]
    rows, everywhere, at_joins = [], [], []
    for clip in chosen:
        original = audio.load(clip.path, SAMPLE_RATE)
        codes = codec.encode(original, SAMPLE_RATE)
        segmented, joins = _segmented(codec, codes)
        wholes = {f"whole, seed {seed}": _whole(codec, codes, seed) for seed in (1, 2)}
        everywhere += [clicks(whole) for whole in wholes.values()]
        crossfades = [segmented[join : join + FRAME_LENGTH] for join in joins]
        at_joins += [clicks(fade) for fade in crossfades if len(fade) == FRAME_LENGTH]
        rows += [
            {
                "recording": clip.name,
                "sampled": kind,
                "stoi": stoi(original, decoded),
                "mel_distance": mel_distance(original, decoded),
            }
            for kind, decoded in {"in segments": segmented, **wholes}.items()
        ]
    inside, joined = np.concatenate(everywhere), np.concatenate(at_joins)
    loud = np.quantile(inside, 0.95)
    page = (
        f"{len(chosen)} recordings, {len(joined)} joins; model {codec.name}.\n\n{_table(rows)}\n"
        f"Peak of the prediction residual over its median, per {FRAME_LENGTH} samples: mean "
        f"{joined.mean():.2f} dB at joins, {inside.mean():.2f} dB anywhere in the recordings "
        f"sampled whole; over their 95th percentile ({loud:.2f} dB) lie "
        f"{np.mean(joined > loud):.1%} of the joins.\n"
    )
    write_report(output, "joins", rows, page)
    typer.echo(page)


def _table(rows: list[dict[str, Any]]) -> str:
    def mean(kind: str, metric: str) -> str:
        return f"{np.mean([row[metric] for row in rows if row['sampled'] == kind]):.4f}"

    return markdown_table(
        [
            {"sampled": kind, "STOI": mean(kind, "stoi"), "mel": mean(kind, "mel_distance")}
            for kind in dict.fromkeys(row["sampled"] for row in rows)
        ]
    )


def _segmented(codec: vqcodec.Codec, codes: vqcodec.Codes) -> tuple[np.ndarray, list[int]]:
    """Decode in segments; also where each but the first begins, in samples."""
    assert isinstance(codes.speaker, np.ndarray)
    vector = torch.from_numpy(from_int8(codes.speaker))[None]
    blocks = list(wavenet_blocks(codec.model, [codes.codes], vector, seed=1, temperature=1.0))
    waveform = np.concatenate(blocks)[: codes.n_samples] * np.float32(codes.gain)
    return waveform, list(accumulate(map(len, blocks)))[:-1]


def _whole(codec: vqcodec.Codec, codes: vqcodec.Codes, seed: int) -> np.ndarray:
    """Decode as one segment."""
    length = segments.LENGTH
    segments.LENGTH = codes.n_codes
    try:
        return codec.decode(codes, decoder="wavenet", seed=seed)
    finally:
        segments.LENGTH = length


if __name__ == "__main__":
    run(main)
