"""Harmonics of the pitch: what an autoregressive decoder hears of where a period of it begins.

A sampler that drifts out of voicing does not find back by itself; sines of the pitch, as they drive
the source-filter models of Wang et al. 2019 (arXiv 1810.11946), keep its time. In use their phase
is the sum of the frequencies from the start on. In training it follows the fundamental of the
recording, or it would tell nothing about that.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from vqcodec.models.pitch import HIGHEST_HZ, LOWEST_HZ, N_BINS, SAMPLE_RATE

# At least two periods of most voices, so that a Hann window leaves the second harmonic out.
WINDOW_LENGTH = 481


def pitch_frequency(pitch: Tensor, step_length: int) -> Tensor:
    """Cycles per step (B, N), 0 where unvoiced, of `PitchStream.features` (B, C, N)."""
    bins = pitch[:, :N_BINS]
    centres = torch.linspace(math.log(LOWEST_HZ), math.log(HIGHEST_HZ), N_BINS, device=pitch.device)
    log_f0 = (bins * centres[:, None]).sum(1)
    return log_f0.exp() * (step_length / SAMPLE_RATE) * (bins.sum(1) > 0.5)


def period(frequency: Tensor, n_taps: int) -> Tensor:
    """Cycles per step -> whole steps of a period, 0 where unvoiced.

    `n_taps` are to lie about a period ago, all of them in the past.
    """
    steps = (1 / frequency.clamp(min=1e-6) + 0.5).floor().long().clamp(min=n_taps // 2 + 1)
    return steps * (frequency > 0)


def summed_phase(frequency: Tensor) -> Tensor:
    """Cycles per step (B, S) -> cycles in [0, 1) since the start, (B, S)."""
    return frequency.double().cumsum(-1).remainder(1).float()


def followed_phase(phase: Tensor, waveform: Tensor) -> Tensor:
    """Turn phases so that they are 0 where the fundamental of a waveform is at its peak.

    From cycles (B, S) of `summed_phase` and a waveform (B, T), T a multiple of S, to cycles (B, S).
    """
    step_length = waveform.shape[-1] // phase.shape[-1]
    angle = 2 * math.pi * phase.repeat_interleave(step_length, -1)
    demodulated = torch.stack([waveform * angle.cos(), -waveform * angle.sin()], 1)
    window = torch.hann_window(WINDOW_LENGTH, periodic=False, device=waveform.device)
    with torch.autocast(waveform.device.type, enabled=False):
        smoothed = F.conv1d(
            demodulated.flatten(0, 1)[:, None],
            window[None, None],
            stride=step_length,
            padding=WINDOW_LENGTH // 2,
        )
    cosine, sine = smoothed[:, 0].unflatten(0, (-1, 2)).unbind(1)
    return (phase + torch.atan2(sine, cosine) / (2 * math.pi)).remainder(1)


def harmonic_waves(phase: Tensor, frequency: Tensor, n_harmonics: int) -> Tensor:
    """Cosines, then sines of the first K harmonics, (..., 2K); 0 where unvoiced.

    The phase (...) is in cycles, the frequency (...) in cycles per step.
    """
    number = torch.arange(1, n_harmonics + 1, device=phase.device)
    angle = 2 * math.pi * phase[..., None] * number
    return torch.cat([angle.cos(), angle.sin()], -1) * (frequency > 0)[..., None]
