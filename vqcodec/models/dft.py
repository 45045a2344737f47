"""Frames and their Fourier transforms, in the form that a graph (models/graphs.py) can hold.

torch's own transforms are exported as something that runtimes refuse; at these lengths a matrix
product is as fast.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def frames(waveform: Tensor, length: int, step: int) -> Tensor:
    """`waveform.unfold(-1, length, step)` of (B, T), (B, N, length).

    A graph gathers what that picks; in blocks of whatever divides both, where it would be samples.
    """
    block = math.gcd(length, step)
    n_blocks = waveform.shape[1] // block
    blocks = waveform[:, : n_blocks * block].unflatten(1, (-1, block))
    return blocks.unfold(1, length // block, step // block).transpose(2, 3).flatten(2)


def _turns(n_fft: int, length: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Cosine and sine of 2 pi k n / n_fft, (n_fft // 2 + 1, length) each."""
    # Whole numbers of steps around the circle, which are exact, and follow in a graph from a range.
    k, n = (torch.arange(size, device=device) for size in (n_fft // 2 + 1, length))
    angles = (k[:, None] * n % n_fft).float() * (2 * math.pi / n_fft)
    return angles.cos(), angles.sin()


def power_spectrum(frames: Tensor) -> Tensor:
    """Frames (..., n_fft) -> |rfft|^2 (..., n_fft // 2 + 1)."""
    n_fft = frames.shape[-1]
    cosine, sine = _turns(n_fft, n_fft, frames.device)
    real, imaginary = frames @ cosine.T, frames @ sine.T
    return real * real + imaginary * imaginary


def inverse(magnitude: Tensor, phase: Tensor, n_fft: int) -> Tensor:
    """Spectra (..., n_fft // 2 + 1) in polar form -> `torch.fft.irfft` of them, (..., n_fft)."""
    half = n_fft // 2 + 1
    cosine, sine = _turns(n_fft, half, magnitude.device)
    # All but the first bin, and the last of an even length, stand for their mirror images, too.
    k = torch.arange(half, device=magnitude.device)
    share = (2 - ((k == 0) | (2 * k == n_fft)).float()) / n_fft
    scaled = magnitude * share
    # The second half of a frame mirrors the first, but for the sign of the sines.
    even = (scaled * phase.cos()) @ cosine
    odd = (scaled * phase.sin()) @ sine
    mirrored = (even + odd)[..., 1 : n_fft - half + 1].flip(-1)
    return torch.cat([even - odd, mirrored], dim=-1)
