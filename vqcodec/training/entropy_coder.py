"""The entropy coder of a trained codec: its tables are fitted to codes of the training split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from vqcodec.codec import Codec
from vqcodec.data.clips import AudioClips, Clip
from vqcodec.errors import DataError
from vqcodec.format.ngram_coder import NgramModel
from vqcodec.inference.units import NOBODY
from vqcodec.training import ngram_fit

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
        steps: As of `ngram_fit.fit`; the pitch takes `PITCH_TABLES`' at most.
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
    tables = ngram_fit.fit(codes, size, steps=steps, device=device)
    if codec.config.pitch is None:
        return tables
    sizes = {**PITCH_TABLES, "steps": min(steps, PITCH_TABLES["steps"])}
    own = ngram_fit.fit(pitches, codec.config.pitch.alphabet_size, **sizes)
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
