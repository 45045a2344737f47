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
from vqcodec.errors import DataError, VqcodecError
from vqcodec.inference.code_search import CodeSearch
from vqcodec.models.speaker import from_int8

SEGMENT_LENGTH = 1024  # codes
STEPS = 12


class BigramCosts:
    """What a code costs after the one before it, by bigrams interpolated with unigrams.

    Witten and Bell 1991, "The zero-frequency problem", IEEE Trans. Information Theory 37(4).

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
        bigrams = counts.view(size, size)
        unigrams = bigrams.sum(0) + 0.5
        n_successors = (bigrams > 0).sum(1, keepdim=True).clamp(min=1)
        smoothed = bigrams + n_successors * unigrams / unigrams.sum()
        self.bits = -(smoothed / (bigrams.sum(1, keepdim=True) + n_successors)).log2()

    def __call__(self, codes: Tensor) -> Tensor:
        """Codes (B, N) -> (B, N, K) bits; of a first code, as if after itself."""
        return self.bits[torch.cat([codes[:, :1], codes[:, :-1]], dim=1)]


def batches(clips: Sequence[Clip], length: int, size: int) -> Iterator[list[tuple[int, int, int]]]:
    """Segments, the longest first, so that few are padded: clip, first sample, samples.

    Args:
        clips: to be cut.
        length: of a segment in samples.
        size: segments in a batch.
    """
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
    """The codes of every clip, by a search of `size` segments at a time.

    Raises:
        DataError: there are no clips, or they are at another rate.
        VqcodecError: the model is not one whose codes can be refined.
    """
    if not clips:
        raise DataError(f"{data.root}: holds no training recordings; prepare some")
    if data.sample_rate != codec.sample_rate:
        raise DataError(
            f"{data.root}: prepared at {data.sample_rate} Hz, the model wants "
            f"{codec.sample_rate} Hz: prepare again with --sample-rate"
        )
    plain = [codec.encode(data.read(clip), data.sample_rate) for clip in clips]
    costs = BigramCosts(
        [codes.codes[0] for codes in plain], codec.config.quantizer.codebook_size, codec.device
    )
    search = CodeSearch(codec.model, costs, STEPS)
    vectors = [codes.speaker for codes in plain if isinstance(codes.speaker, np.ndarray)]
    voices = torch.from_numpy(np.stack([from_int8(vector) for vector in vectors]))
    found = [np.empty_like(codes.codes) for codes in plain]
    for segments in batches(clips, SEGMENT_LENGTH * codec.hop_length, size):
        n_codes = -(-segments[0][2] // codec.hop_length)
        waveform = np.zeros((len(segments), n_codes * codec.hop_length), np.float32)
        for row, (number, start, n_samples) in zip(waveform, segments, strict=True):
            row[:n_samples] = data.read(clips[number], start, n_samples)
        speaker = voices[[number for number, _, _ in segments]]
        best = search(torch.from_numpy(waveform).to(codec.device), speaker.to(codec.device))
        for row, (number, start, _) in zip(best[:, 0].cpu().numpy(), segments, strict=True):
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
