"""Speaker vectors as they are stored and told to decoders: knows no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

# Chosen on validation recordings: nearest to the target there (docs/decisions.md).
GUIDANCE = 0.4

Vectors = TypeVar("Vectors", np.ndarray, "Tensor")


def guided(target: Vectors, source: Vectors) -> Vectors:
    """What a decoder is told for a conversion: the target, and away from the source.

    Codes keep something of the voice that spoke them. This makes up for it, as classifier-free
    guidance (Ho and Salimans 2022, arXiv 2207.12598) leads a sampler away from what it would do
    unasked. All vectors are (..., S), and the result has the targets' lengths: decoders have met no
    other.
    """
    beyond = target + GUIDANCE * (target - source)
    return beyond * (_norm(target) / _norm(beyond).clip(min=1e-12))


def _norm(vectors: Vectors) -> Vectors:
    # torch knows NumPy's names of these arguments.
    return (vectors * vectors).sum(axis=-1, keepdims=True) ** 0.5  # type: ignore[call-overload]


def mean_vector(vectors: np.ndarray) -> np.ndarray:
    """Speaker vectors (n, S) -> the stored form of their mean, (S,) int8, as a voice.

    It is brought to the grid as `models.speaker.to_grid` does.
    """
    mean = vectors.mean(axis=0)
    unit = mean / _norm(mean).clip(min=1e-12) * np.float32(len(mean) ** 0.5)
    return (unit * 32).round().clip(-128, 127).astype(np.int8)


def to_int8(vector: np.ndarray) -> np.ndarray:
    """A speaker vector (S,) on the grid -> its stored form, (S,) int8."""
    return (vector * 32).round().astype(np.int8)


def from_int8(stored: np.ndarray) -> np.ndarray:
    """The stored form (S,) int8 -> the speaker vector (S,) float32."""
    return stored.astype(np.float32) / 32
