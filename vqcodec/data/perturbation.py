"""Perturbations of the encoder's input: who speaks is changed, what is said and its timing are not.

When the encoder hears a stranger but the decoder must answer in the true voice, the codes learn
to leave the voice out (as the information perturbation of Choi et al. 2021, NANSY,
arXiv 2110.14513).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

N_FFT, HOP_LENGTH = 1024, 256
# Cepstral coefficients below this quefrency draw the vocal tract, those above the pitch.
LIFTER_MS = 2.0
# Between samples so close together, a straight line will do.
OVERSAMPLING = 4


def perturb(
    waveform: Tensor,
    sample_rate: int,
    *,
    semitones: Tensor,
    formant_ratio: Tensor,
    equalizer: Tensor | None = None,
) -> Tensor:
    """Shift the pitch and stretch the spectral envelope, each by its own amount.

    A phase vocoder (Flanagan and Golden 1966) that reads its frames faster or slower than they
    were spoken, around instants that keep their time: that moves pitch and formants together.
    The envelope is then read where the wanted formants stand after that.

    Args:
        waveform: (B, T) float32.
        sample_rate: in Hz.
        semitones: (B,) of pitch, positive is higher; or (B, n_frames(T)), from moment to moment.
        formant_ratio: (B,) of formant frequencies; 1 keeps them.
        equalizer: (B, K) weights in nepers of cosines over the octaves, which colour the sound.

    Returns:
        (B, T) float32, every row at the RMS of the input.
    """
    speed = 2 ** (semitones / 12)
    if speed.dim() == 1:
        speed = speed[:, None].expand(-1, n_frames(waveform.shape[-1]))
    window = torch.hann_window(N_FFT, device=waveform.device)
    dense = _oversampled(waveform, speed.amax(1))
    spectrum = torch.fft.rfft(_frames(dense, speed, 0) * window)
    earlier = torch.fft.rfft(_frames(dense, speed, -HOP_LENGTH) * window)
    # How far every partial turns in a hop, at the new speed; the first frame keeps its phase.
    turn = (spectrum * earlier.conj()).angle()
    turn[:, 0] = spectrum[:, 0].angle()
    magnitude = spectrum.abs()
    envelope = _log_envelope(magnitude, sample_rate)
    log_gain = _stretched(envelope, formant_ratio[:, None] / speed) - envelope
    if equalizer is not None:
        log_gain = log_gain + _coloured(equalizer, envelope.shape[-1])[:, None]
    gain = log_gain.exp()
    changed = torch.istft(
        torch.polar(magnitude * gain, turn.cumsum(1)).transpose(1, 2),
        N_FFT,
        HOP_LENGTH,
        window=window,
        length=waveform.shape[-1],
    )
    power = changed.square().mean(-1, keepdim=True).clamp(min=1e-12)
    return changed * (waveform.square().mean(-1, keepdim=True) / power).sqrt()


def n_frames(n_samples: int) -> int:
    """Frames of `perturb`."""
    return 1 + n_samples // HOP_LENGTH


def _oversampled(waveform: Tensor, speed: Tensor) -> Tensor:
    """(B, T) -> (B, (T + 2 N_FFT) OVERSAMPLING), silence around, without what speed would alias."""
    padded = F.pad(waveform, (N_FFT, N_FFT))
    spectrum = torch.fft.rfft(padded)
    frequency = torch.linspace(0, 1, spectrum.shape[-1], device=waveform.device)
    audible = frequency * speed[:, None] < 1
    n_samples = OVERSAMPLING * padded.shape[-1]
    return OVERSAMPLING * torch.fft.irfft(spectrum * audible, n=n_samples)


def _frames(dense: Tensor, speed: Tensor, shift: int) -> Tensor:
    """(B, F, N_FFT) at the speed (B, F): frame k is read around k hops, `shift` samples away."""
    centre = N_FFT + HOP_LENGTH * torch.arange(speed.shape[1], device=dense.device)
    around = torch.arange(N_FFT, device=dense.device) - N_FFT // 2 + shift
    place = OVERSAMPLING * (centre[:, None] + speed[..., None] * around)
    place = place.clamp(0, dense.shape[-1] - 2).flatten(1)
    index = place.long()
    left, right = dense.gather(1, index), dense.gather(1, index + 1)
    return torch.lerp(left, right, place - index).unflatten(1, (-1, N_FFT))


def _log_envelope(magnitude: Tensor, sample_rate: int) -> Tensor:
    """(B, frames, bins) -> smooth natural-log envelope of the same shape, by cepstral liftering."""
    cepstrum = torch.fft.irfft((magnitude + 1e-4).log())
    keep = round(LIFTER_MS * 1e-3 * sample_rate)
    cepstrum[..., keep : N_FFT - keep + 1] = 0.0
    return torch.fft.rfft(cepstrum).real


def _stretched(envelope: Tensor, ratio: Tensor) -> Tensor:
    """(B, F, bins) -> the same with the value of bin b at bin b * ratio (B, F)."""
    last = envelope.shape[-1] - 1
    place = torch.arange(last + 1, device=ratio.device) / ratio[..., None]
    index = place.clamp(max=last - 1).long()
    part = (place - index).clamp(max=1.0)
    return torch.lerp(envelope.gather(2, index), envelope.gather(2, index + 1), part)


def _coloured(equalizer: Tensor, n_bins: int) -> Tensor:
    """(B, K) -> (B, n_bins) nepers: K cosines, of half a wave over all octaves and of more."""
    bins = torch.arange(n_bins, device=equalizer.device)
    place = (1 + bins / 8).log2() / math.log2(1 + n_bins / 8)
    order = torch.arange(1, equalizer.shape[1] + 1, device=equalizer.device)
    return equalizer @ (math.pi * order[:, None] * place).cos()
