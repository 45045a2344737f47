"""Fitting the tables of the entropy coder (`vqcodec.format.ngram_coder`) to codes of a corpus."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from vqcodec.codec import Codec
from vqcodec.data.clips import AudioClips, Clip
from vqcodec.errors import DataError
from vqcodec.format.header import CHUNK_LENGTH
from vqcodec.format.ngram_coder import NgramModel
from vqcodec.format.ngram_layers import (
    CONTEXT_PLACES,
    EMBEDDING_PLACES,
    LARGEST_UNIT,
    UNIT_PLACES,
    WEIGHT_PLACES,
)
from vqcodec.inference.units import NOBODY

BATCH_SIZE = 1024
LEARNING_RATE = 4e-3
DROPOUT = 0.1
# More units or a longer context gain less than a bit a second (docs/decisions.md).
PITCH_TABLES: dict[str, Any] = {"n_context": 8, "width": 16, "units": 64, "steps": 6000}


def fit_entropy_coder(
    codec: Codec,
    data: AudioClips,
    *,
    hours: float | None = None,
    steps: int = 16_000,
    more: Sequence[np.ndarray] = (),
) -> NgramModel:
    """Fit tables to codes, and those of the pitch where the codec tells it.

    Every recording is encoded twice, the second time from half a hop later on: other codes of the
    same speech, as a recording that begins there would have.

    Args:
        codec: Whose codes they are.
        data: What it was trained on, at any rate.
        hours: Of recordings drawn by a fixed seed, at least one; None takes all.
        steps: As of `fit_tables`; the pitch takes `PITCH_TABLES`' at most.
        more: Further codes, (Q, n) each, such as refined ones.

    Returns:
        Tables for codes of Q codebooks, and in `streams` those for the symbols of the pitch.

    Raises:
        DataError: The training split is empty.
    """
    half_hop = codec.hop_length * data.sample_rate // (2 * codec.sample_rate)
    has_pitch = codec.config.pitch is not None
    codes, pitches = list(more), []
    for clip in _drawn(data, hours):
        encoded = codec.encode(
            data.read(clip), data.sample_rate, speaker=None if has_pitch else NOBODY
        )
        codes.append(encoded.codes)
        if has_pitch:
            pitches.append(encoded.symbols["pitch"][None])
        if half_hop < clip.n_samples:
            shifted = data.read(clip, half_hop)
            codes.append(codec.encode(shifted, data.sample_rate, speaker=NOBODY).codes)
    size, device = codec.config.quantizer.codebook_size, codec.device
    tables = fit_tables(codes, size, steps=steps, device=device)
    if codec.config.pitch is None:
        return tables
    sizes = {**PITCH_TABLES, "steps": min(steps, PITCH_TABLES["steps"])}
    own = fit_tables(pitches, codec.config.pitch.alphabet_size, **sizes)
    return replace(tables, streams={"pitch": own})


def _drawn(data: AudioClips, hours: float | None) -> list[Clip]:
    clips = data.split("train")
    if not clips:
        raise DataError(f"{data.root}: no recordings of split train to fit the entropy coder to")
    if hours is None:
        return clips
    order = np.random.default_rng(0).permutation(len(clips))
    ends = np.cumsum([clips[index].n_samples for index in order]) / data.sample_rate / 3600
    return [clips[index] for index in order[: 1 + np.searchsorted(ends, hours)]]


class _Network(nn.Module):
    """`NgramModel` in training: floats, rounded as the integers are, the gradient passed by."""

    def __init__(
        self, n_codebooks: int, codebook_size: int, n_context: int, *, width: int, units: int
    ) -> None:
        super().__init__()
        q, k, half = n_codebooks, codebook_size, units // 2

        def normal(deviation: float, *shape: int) -> nn.Parameter:
            return nn.Parameter(torch.randn(shape) * deviation)

        self.embedding = normal(0.5, q, k + 1, width)
        self.context = normal((n_context * width) ** -0.5, q, n_context, width, units)
        self.context_bias = nn.Parameter(torch.zeros(q, units))
        self.hidden = normal((2 / units) ** 0.5, q, units, half)
        self.hidden_bias = nn.Parameter(torch.zeros(q, half))
        self.output = normal(half**-0.5, q, half, k)
        self.output_bias = nn.Parameter(torch.zeros(q, k))
        sums = EMBEDDING_PLACES + CONTEXT_PLACES, UNIT_PLACES + WEIGHT_PLACES
        self.places = {
            "embedding": EMBEDDING_PLACES,
            "context": CONTEXT_PLACES,
            "context_bias": sums[0],
            "hidden": WEIGHT_PLACES,
            "hidden_bias": sums[1],
            "output": WEIGHT_PLACES,
            "output_bias": sums[1],
        }

    def integers(self, name: str) -> Tensor:
        """A table, rounded, in its own units."""
        limit = 1 << (15 if name.endswith("bias") else 7)
        scaled = getattr(self, name) * (1 << self.places[name])
        return scaled.round().clamp(-limit, limit - 1)

    def forward(self, before: Tensor, book: int) -> Tensor:
        """Logits to base 2 of the codes (B, K) of one codebook after the C codes (B, C) before."""
        tables = {
            name: _straight_through(getattr(self, name), self.integers(name) / (1 << places))
            for name, places in self.places.items()
        }
        n_codebooks, n_context = self.context.shape[:2]
        places = [(book - 1 - i) % n_codebooks for i in range(n_context)]
        books = torch.tensor(places, device=before.device)
        # functional.embedding: its gradient is far faster than that of an index.
        rows = before + books * (self.embedding.shape[1])
        heard = functional.embedding(rows, tables["embedding"].flatten(0, 1)).flatten(1)
        units = heard @ tables["context"][book].flatten(0, 1) + tables["context_bias"][book]
        units = self._units(units) @ tables["hidden"][book] + tables["hidden_bias"][book]
        return self._units(units) @ tables["output"][book] + tables["output_bias"][book]

    def _units(self, sums: Tensor) -> Tensor:
        step = 1 << UNIT_PLACES
        clipped = sums.clamp(0, LARGEST_UNIT / step)
        rounded = (clipped * step + 0.5).floor() / step
        return functional.dropout(_straight_through(clipped, rounded), DROPOUT, self.training)


def _straight_through(value: Tensor, rounded: Tensor) -> Tensor:
    return value + (rounded - value).detach()


def fit_tables(
    sequences: Sequence[np.ndarray],
    codebook_size: int,
    *,
    n_context: int = 12,
    width: int = 48,
    units: int = 256,
    steps: int = 16_000,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> NgramModel:
    """Fit tables to the codes of recordings, (Q, n) each; DataError if there are none.

    Args:
        sequences: of codes.
        codebook_size: K.
        n_context: C, the codes that the next one is guessed from.
        width: D, of the embedding.
        units: H, of the first layer; the second has half as many.
        steps: of 1024 codes of each codebook.
        seed: of the start and the batches.
        device: to compute on; another makes the same tables but for rounding.
    """
    if not sequences:
        raise DataError("no codes to fit the entropy coder to")
    n_codebooks = sequences[0].shape[0]
    stream, places = _stream(sequences, codebook_size, n_context)
    stream = stream.to(device)
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = _Network(n_codebooks, codebook_size, n_context, width=width, units=units)
        network.to(device)
        optimizer = torch.optim.AdamW(network.parameters(), LEARNING_RATE, weight_decay=0.01)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, LEARNING_RATE, total_steps=steps, pct_start=0.1
        )
        offsets = torch.arange(1, n_context + 1)
        for _ in range(steps):
            losses = []
            for book, own in enumerate(places):
                chosen = own[torch.randint(len(own), (BATCH_SIZE,), generator=generator)]
                before = stream[(chosen[:, None] - offsets).to(device)]
                logits = network(before, book) * math.log(2)
                losses.append(functional.cross_entropy(logits, stream[chosen.to(device)]))
            optimizer.zero_grad()
            torch.stack(losses).mean().backward()
            optimizer.step()
            schedule.step()
    return _tables(network)


def _stream(
    sequences: Sequence[np.ndarray], codebook_size: int, n_context: int
) -> tuple[Tensor, list[Tensor]]:
    """All chunks in one row, time-major, "before the chunk" before each; each codebook's places."""
    n_codebooks = sequences[0].shape[0]
    start = np.full(n_context, codebook_size, np.int64)
    parts: list[np.ndarray] = []
    places: list[list[np.ndarray]] = [[] for _ in range(n_codebooks)]
    end = 0
    for codes in sequences:
        for first in range(0, codes.shape[1], CHUNK_LENGTH):
            chunk = codes[:, first : first + CHUNK_LENGTH].T.ravel().astype(np.int64)
            parts += [start, chunk]
            end += n_context
            for book, own in enumerate(places):
                own.append(np.arange(end + book, end + len(chunk), n_codebooks))
            end += len(chunk)
    return torch.from_numpy(np.concatenate(parts)), [
        torch.from_numpy(np.concatenate(own)) for own in places
    ]


@torch.no_grad()
def _tables(network: _Network) -> NgramModel:
    def table(name: str) -> np.ndarray:
        kind = np.int16 if name.endswith("bias") else np.int8
        return network.integers(name).cpu().numpy().astype(kind)

    arrays: dict[str, Any] = {name: table(name) for name in network.places}
    return NgramModel(**arrays)
