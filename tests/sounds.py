"""Sounds that are no speech, and files of them as vqcodec writes them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from vqcodec import audio


def tone(n_samples: int, sample_rate: int, level: float = 0.3) -> np.ndarray:
    return (level * np.sin(2 * np.pi * 220 * np.arange(n_samples) / sample_rate)).astype("f4")


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return 0.1 * np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def write(path, samples: np.ndarray, *, model_rate: int = 16000, output_rate: int = 16000, n=None):
    n_samples = len(samples) if n is None else n
    with audio.open_writer(
        path, model_rate=model_rate, output_rate=output_rate, n_samples=n_samples
    ) as writer:
        writer.write(samples)
    return writer


def gain(samples: np.ndarray, sample_rate: int = 16000) -> float:
    return audio.open_recording(samples, sample_rate).gain()


def decibels(ratio: float) -> float:
    return 20 * float(np.log10(ratio))


def pieces(array: np.ndarray, length: int) -> Iterator[np.ndarray]:
    """An array (..., T) in pieces of a length, the last one shorter."""
    return (array[..., at : at + length] for at in range(0, array.shape[-1], length))
