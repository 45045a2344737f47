r"""Refine the codes of a prepared folder's training recordings, many segments at a time: on a GPU.

    python scripts/refine_corpus.py speech-2k data/corpus -o data/codes
    vqcodec train speech_2k_gpu_refined.yaml data.root=data/corpus data.codes=data/codes

For training (`data.codes`), not for keeping: the segments do not hear what stands around them, the
search is shorter than that of `vqcodec encode --refine`, and a code costs what it does after the
one before it in the encoder's own codes, which a GPU looks up faster than the entropy coder
computes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from torch import Tensor

import vqcodec
from vqcodec import Codes
from vqcodec.data.prepared import Clip, PreparedData
from vqcodec.errors import VqcodecError
from vqcodec.training.refine import Search

SEGMENT_LENGTH = 1024  # codes
STEPS = 12


class BigramCosts:
    """What codes cost after the one before: order 1, the less of it the fewer codes were seen.

    Interpolated with the codes' own frequencies by Witten and Bell (1991, "The zero-frequency
    problem", IEEE Trans. Information Theory 37(4)).

    Args:
        sequences: (n,) codes of recordings.
        codebook_size: K.
        device: of the table, K * K of 4 bytes.
    """

    def __init__(
        self, sequences: Sequence[np.ndarray], codebook_size: int, device: torch.device
    ) -> None:
        size = codebook_size
        pairs = np.concatenate(
            [codes[:-1].astype(np.int64) * size + codes[1:] for codes in sequences]
        )
        counts = torch.from_numpy(np.bincount(pairs, minlength=size * size)).to(device, torch.float)
        counts = counts.view(size, size)
        alone = counts.sum(0) + 0.5
        unseen = (counts > 0).sum(1, keepdim=True).clamp(min=1)
        shares = counts + unseen * alone / alone.sum()
        self.bits = -(shares / (counts.sum(1, keepdim=True) + unseen)).log2()

    def __call__(self, codes: Tensor) -> Tensor:
        """Codes (B, N) -> (B, N, K) bits; of a first code, as if after itself."""
        return self.bits[torch.cat([codes[:, :1], codes[:, :-1]], dim=1)]


def batches(clips: Sequence[Clip], length: int, size: int) -> Iterator[list[tuple[int, int, int]]]:
    """Segments by length, so that few are filled up: number of the clip, first sample, samples."""
    segments = [
        (number, start, min(length, clip.n_samples - start))
        for number, clip in enumerate(clips)
        for start in range(0, clip.n_samples, length)
    ]
    segments.sort(key=lambda segment: -segment[2])
    for first in range(0, len(segments), size):
        yield segments[first : first + size]


def refined(
    codec: vqcodec.Codec, data: PreparedData, clips: Sequence[Clip], size: int
) -> Iterator[Codes]:
    """Of every clip.

    Raises:
        VqcodecError: the model is not one whose codes can be refined.
    """
    plain = [codec.encode(data.read(clip), data.sample_rate) for clip in clips]
    costs = BigramCosts(
        [codes.codes[0] for codes in plain], codec.config.quantizer.codebook_size, codec.device
    )
    search = Search(codec.model, costs, STEPS)
    found = [np.empty_like(codes.codes) for codes in plain]
    for segments in batches(clips, SEGMENT_LENGTH * codec.hop_length, size):
        n_codes = -(-segments[0][2] // codec.hop_length)
        waveform = np.zeros((len(segments), n_codes * codec.hop_length), np.float32)
        for row, (number, start, n_samples) in zip(waveform, segments, strict=True):
            row[:n_samples] = data.read(clips[number], start, n_samples)
        heard = torch.from_numpy(waveform).to(codec.device)
        with torch.no_grad():
            speaker = codec.model.speaker(heard)
        best = search(heard, speaker)[:, 0].cpu().numpy()
        for row, (number, start, _) in zip(best, segments, strict=True):
            into = found[number][0, start // codec.hop_length :][:SEGMENT_LENGTH]
            into[:] = row[: len(into)]
    for codes, better in zip(plain, found, strict=True):
        yield replace(codes, codes=better)


def main(
    model: Annotated[str, typer.Argument(help="A packaged model, or a model file.")],
    data: Annotated[Path, typer.Argument(help="A prepared folder.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="A folder for the code files.")],
    batch_size: Annotated[int, typer.Option(min=1, help="Segments at a time.")] = 48,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
) -> None:
    """Write a code file for every training recording."""
    try:
        codec, prepared = vqcodec.load(model, device=device), PreparedData(data)
        clips = prepared.split("train")
        for clip, codes in zip(clips, refined(codec, prepared, clips, batch_size), strict=True):
            path = output / f"{clip.name}.codes"
            path.parent.mkdir(parents=True, exist_ok=True)
            codes.save(path)
    except VqcodecError as error:
        raise SystemExit(f"refine_corpus.py: {error}") from None


if __name__ == "__main__":
    typer.run(main)
