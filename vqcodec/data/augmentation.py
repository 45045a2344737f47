"""Sound as it reaches a microphone in use: noise, other talkers, a room, a narrow band.

The encoder hears a segment so, and what is to be decoded stays clean: codes learn to leave out what
is not speech (joint compression and enhancement, SoundStream, arXiv 2107.03312, section 3.6).
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from vqcodec.audio.level import TARGET_RMS
from vqcodec.data.data_config import AugmentationConfig

N_TALKERS = 4

_KINDS = ("noise", "talkers", "room", "band", "room and noise", "room, noise and band")
_PROBABILITIES = (0.3, 0.2, 0.15, 0.15, 0.1, 0.1)
# Noise: its slope in an octave, the colour beside that, and how often and how far it swells.
_SLOPE_DB, _COLOUR_TERMS, _COLOUR_DB = (-8.0, 3.0), 5, 5.0
_SWELLING, _SWELL_DB, _SWELL_SECONDS = 0.5, 8.0, 0.125
# Rooms: how far the direct sound is above the reflections, and when these begin.
_DIRECT_DB, _FIRST_REFLECTION_S, _DAMPED_ABOVE_HZ = (-3.0, 12.0), (0.001, 0.006), 6000.0
# Bands: their ends and the orders of the filters; how often few levels are left, and clipping.
_LOW_HZ, _HIGH_HZ, _ORDERS = (20.0, 450.0), (2800.0, 8000.0), (2, 4, 8, 20)
_COMPANDED, _LEVELS = 0.4, (31, 63, 127)
_CLIPPED, _CLIPPED_AT = 0.15, (0.2, 0.6)


def augment(
    waveform: Tensor,
    talkers: Tensor,
    rng: np.random.Generator,
    config: AugmentationConfig,
    sample_rate: int,
) -> Tensor:
    """A segment (T,) as it is somewhere else, at the level that normalisation would give it there.

    It and what others say, (N_TALKERS, T), are float32 at normalised level.
    """
    kind = rng.choice(_KINDS, p=_PROBABILITIES)
    changed = waveform
    if "room" in kind:
        changed = _in_a_room(changed, rng, config, sample_rate)
    if "noise" in kind:
        noise = _noise(len(waveform), rng, sample_rate, waveform.device)
        changed = _mixed(changed, noise, rng.uniform(*config.snr_db))
    if "talkers" in kind:
        n_talkers = int(rng.integers(1, len(talkers) + 1))
        gains = torch.tensor(10 ** (rng.uniform(-6, 0, n_talkers) / 20), dtype=torch.float32)
        babble = gains.to(talkers.device) @ talkers[:n_talkers]
        changed = _mixed(changed, babble, rng.uniform(*config.snr_db))
    if "band" in kind:
        changed = _in_a_band(changed, rng, sample_rate)
    return changed


def _mixed(waveform: Tensor, noise: Tensor, snr_db: float) -> Tensor:
    """Both, as loud together as speech is alone."""
    power = noise.square().mean()
    if power <= 0:
        return waveform
    ratio = 10 ** (-snr_db / 20)
    # By the level of the recording, not of the segment: noise is as loud in pauses.
    return (waveform + noise * (TARGET_RMS * ratio * power.rsqrt())) / math.hypot(1, ratio)


def _filtered(waveform: Tensor, gain: Tensor, n_fft: int) -> Tensor:
    """(T,) through a filter (n_fft // 2 + 1,), as loud as before."""
    spectrum = torch.fft.rfft(waveform, n_fft) * gain
    filtered = torch.fft.irfft(spectrum, n_fft)[: len(waveform)]
    return _as_loud(filtered, waveform)


def _as_loud(waveform: Tensor, other: Tensor) -> Tensor:
    quiet = 1e-8  # in a pause there is nothing to compare
    power, wanted = waveform.square().mean() + quiet, other.square().mean() + quiet
    return waveform * (wanted / power).sqrt()


def _colour(frequencies: Tensor, rng: np.random.Generator, n_terms: int, rms_db: float) -> Tensor:
    """A smooth random gain in dB, of cosines over the octaves."""
    octaves = (frequencies.clamp(min=40) / 40).log2()
    place = octaves / octaves[-1]
    orders = np.arange(1, n_terms + 1)
    amplitudes = rms_db * rng.standard_normal(n_terms) / orders**0.5
    waves = torch.stack([(math.pi * order * place).cos() for order in orders.tolist()])
    return torch.tensor(amplitudes, dtype=torch.float32, device=frequencies.device) @ waves


def _frequencies(n_fft: int, sample_rate: int, device: torch.device) -> Tensor:
    return torch.fft.rfftfreq(n_fft, 1 / sample_rate, device=device)


def _noise(
    n_samples: int, rng: np.random.Generator, sample_rate: int, device: torch.device
) -> Tensor:
    """(n_samples,) of a random colour, which in half of all segments swells and fades."""
    white = torch.from_numpy(rng.standard_normal(n_samples, np.float32)).to(device)
    frequencies = _frequencies(n_samples, sample_rate, device)
    slope = rng.uniform(*_SLOPE_DB) * (frequencies.clamp(min=40) / 1000).log2()
    gain_db = slope + _colour(frequencies, rng, _COLOUR_TERMS, _COLOUR_DB)
    noise = torch.fft.irfft(torch.fft.rfft(white) * 10 ** (gain_db / 20), n_samples)
    if rng.random() < _SWELLING:
        n_points = max(2, round(n_samples / sample_rate / _SWELL_SECONDS))
        points = rng.standard_normal(n_points) * rng.uniform(0, _SWELL_DB)
        swell = np.interp(np.linspace(0, n_points - 1, n_samples), np.arange(n_points), points)
        noise = noise * torch.from_numpy(10 ** (swell / 20)).float().to(device)
    return noise


def _in_a_room(
    waveform: Tensor, rng: np.random.Generator, config: AugmentationConfig, sample_rate: int
) -> Tensor:
    """Reflections as noise that decays (Polack 1988), treble faster, after the direct sound."""
    seconds = rng.uniform(*config.reverberation_s)
    n_samples = max(2, round(seconds * sample_rate))
    time = np.arange(n_samples) / sample_rate
    white = rng.standard_normal(n_samples)
    damping = rng.uniform(0.4, 1.0)
    both = [white * 10 ** (-3 * time / own) for own in (seconds, seconds * damping)]
    bass, treble = np.fft.rfft(both)
    share = np.minimum(np.fft.rfftfreq(n_samples, 1 / sample_rate) / _DAMPED_ABOVE_HZ, 1)
    reflections = np.fft.irfft(bass * (1 - share) + treble * share, n_samples)
    reflections[time < rng.uniform(*_FIRST_REFLECTION_S)] = 0
    loudness = 10 ** (-rng.uniform(*_DIRECT_DB) / 20)
    response = loudness * reflections / max(float(np.linalg.norm(reflections)), 1e-9)
    response[0] += 1
    n_fft = len(waveform) + n_samples
    there = torch.from_numpy(response.astype(np.float32)).to(waveform.device)
    return _filtered(waveform, torch.fft.rfft(there, n_fft), n_fft)


def _in_a_band(waveform: Tensor, rng: np.random.Generator, sample_rate: int) -> Tensor:
    """A telephone, a cheap microphone: a band with slopes, and sometimes few levels or clipping."""
    n_samples = len(waveform)
    frequencies = _frequencies(n_samples, sample_rate, waveform.device)
    low, high = (bottom * (top / bottom) ** rng.random() for bottom, top in (_LOW_HZ, _HIGH_HZ))
    steep, steeper = rng.choice(_ORDERS, 2).tolist()
    # The magnitudes of Butterworth filters.
    gain = (1 + (low / frequencies.clamp(min=1)) ** (2 * steep)).rsqrt()
    gain = gain * (1 + (frequencies / high) ** (2 * steeper)).rsqrt()
    gain = gain * 10 ** (_colour(frequencies, rng, 4, 3.0) / 20)
    heard = _filtered(waveform, gain, n_samples)
    peak = heard.abs().max().clamp(min=1e-9)
    if rng.random() < _COMPANDED:
        mu, levels = 10 ** rng.uniform(1.3, 2.5), int(rng.choice(_LEVELS))
        compressed = heard.sign() * (mu * heard.abs() / peak).log1p() / math.log1p(mu)
        rounded = (compressed * levels).round() / levels
        heard = rounded.sign() * (rounded.abs() * math.log1p(mu)).expm1() / mu * peak
    if rng.random() < _CLIPPED:
        most = rng.uniform(*_CLIPPED_AT) * peak
        heard = heard.clamp(-most, most)
    return heard
