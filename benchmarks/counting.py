"""The codes of a prepared corpus, and what predicts them: counts, and a prior."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from vqcodec.codec import Codec
from vqcodec.data.prepared import Clip, PreparedData
from vqcodec.errors import DataError
from vqcodec.models.speaker_vector import from_int8
from vqcodec.prior import Prior
from vqcodec.training.prior_data import CodedClip, encode_clips

ORDER_0, ORDER_1, PRIOR = "order 0", "order 1 (interpolated)", "transformer"

Predictor = Callable[[CodedClip], np.ndarray]
"""A clip -> bits of each of its codes."""


def coded_splits(
    codec: Codec, data: PreparedData, names: list[str], store: Path
) -> dict[str, list[tuple[Clip, CodedClip]]]:
    """The clips of the training split and of others, with their codes.

    Args:
        codec: of one codebook.
        data: the prepared folder.
        names: of the other splits.
        store: the file that keeps the codes from one run to the next.

    Raises:
        DataError: a split is empty; and as `encode_clips`.
    """
    by_split = {name: data.split(name) for name in ("train", *names)}
    for name, clips in by_split.items():
        if not clips:
            raise DataError(f"{data.root}: no clip in split {name}; choose others with --splits")
    wanted = [clip for clips in by_split.values() for clip in clips]
    found = iter(zip(wanted, encode_clips(codec, data, wanted, store), strict=True))
    return {name: [next(found) for _ in clips] for name, clips in by_split.items()}


def counting_models(clips: list[CodedClip], codebook_size: int) -> dict[str, Predictor]:
    """Models that count the codes of the training clips.

    Order 1 interpolates with order 0 by how many codes have followed the last one (Witten and Bell
    1991), and order 0 adds a half to every count.
    """
    begin = codebook_size
    single = np.bincount(np.concatenate([clip.codes for clip in clips]), minlength=begin) + 0.5
    single /= single.sum()
    pairs = np.zeros((codebook_size + 1, codebook_size))
    for clip in clips:
        np.add.at(pairs, (np.append(begin, clip.codes[:-1]), clip.codes), 1)
    # After a code that never occurred, order 0 alone.
    n_following = np.maximum((pairs > 0).sum(1, keepdims=True), 1)
    pairs = (pairs + n_following * single) / (pairs.sum(1, keepdims=True) + n_following)
    return {
        ORDER_0: lambda clip: -np.log2(single[clip.codes]),
        ORDER_1: lambda clip: -np.log2(pairs[np.append(begin, clip.codes[:-1]), clip.codes]),
    }


def prior_model(prior: Prior) -> dict[str, Predictor]:
    """The prior, told who speaks."""

    def bits(clip: CodedClip) -> np.ndarray:
        speaker = torch.from_numpy(from_int8(clip.vector))
        return prior.model.bits(torch.from_numpy(clip.codes), speaker).numpy()

    return {PRIOR: bits}
