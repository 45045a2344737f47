"""How far a decoded waveform is from the true one."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vqcodec.models.loss_config import PERIODICITY_SECONDS, LossConfig
from vqcodec.models.mel import mel_filterbank


class SpectralLoss(NamedTuple):
    """Scalars, each a mean over resolutions.

    Attributes:
        mel: L1 of log-mel magnitudes (natural log).
        log_stft: L1 of log magnitudes.
        convergence: Frobenius norm of the magnitude error over that of the target (Arik et al.
            2018, arXiv 1808.06719), which listens to the strong partials.
    """

    mel: Tensor
    log_stft: Tensor
    convergence: Tensor


class MultiResolutionSpectralLoss(nn.Module):
    """Spectral distances at several window lengths (Yamamoto et al. 2020, arXiv 1910.11480).

    The hop is a quarter of the window; the sample rate is in Hz.
    """

    # Length of the transform in samples, and how many mel bands.
    RESOLUTIONS = ((256, 32), (512, 64), (1024, 80), (2048, 128))
    # About 55 dB under the magnitude of level-normalised speech: what lies lower is not heard.
    FLOOR = 1e-2

    def __init__(self, sample_rate: int) -> None:
        super().__init__()
        self.n_ffts = [n_fft for n_fft, _ in self.RESOLUTIONS]
        for n_fft, n_mels in self.RESOLUTIONS:
            filters = mel_filterbank(n_fft // 2 + 1, n_mels, sample_rate)
            # A narrow band may fall between two bins; it would be a constant.
            filters = filters[:, filters.sum(0) > 0]
            self.register_buffer(f"window_{n_fft}", torch.hann_window(n_fft), persistent=False)
            self.register_buffer(f"filters_{n_fft}", filters, persistent=False)

    def _magnitude(self, waveform: Tensor, n_fft: int) -> Tensor:
        """(B, T) -> (B, frames, n_fft / 2 + 1)."""
        window = getattr(self, f"window_{n_fft}")
        spectrum = torch.stft(waveform, n_fft, n_fft // 4, window=window, return_complex=True)
        power = spectrum.real.square() + spectrum.imag.square()
        return (power.transpose(1, 2) + 1e-8).sqrt()

    def _log_mel(self, magnitude: Tensor, n_fft: int) -> Tensor:
        return (magnitude @ getattr(self, f"filters_{n_fft}") + self.FLOOR).log()

    def log_mel(self, waveform: Tensor, n_fft: int) -> Tensor:
        """(B, T) -> (B, frames, bands) natural log of mel magnitudes, of one resolution."""
        return self._log_mel(self._magnitude(waveform, n_fft), n_fft)

    def forward(self, output: Tensor, target: Tensor) -> SpectralLoss:
        """Waveforms (B, T) and (B, T) float32 -> scalars."""
        mel, log_stft, convergence = [], [], []
        for n_fft in self.n_ffts:
            wanted = self._magnitude(target, n_fft)
            got = self._magnitude(output, n_fft)
            mel.append(F.l1_loss(self._log_mel(got, n_fft), self._log_mel(wanted, n_fft)))
            log_stft.append(F.l1_loss((got + self.FLOOR).log(), (wanted + self.FLOOR).log()))
            # vector_norm has a gradient at zero, where the root of a sum of squares has none.
            error = torch.linalg.vector_norm(wanted - got, dim=(1, 2))
            norm = torch.linalg.vector_norm(wanted, dim=(1, 2)).clamp(min=1e-2)
            convergence.append((error / norm).mean())
        return SpectralLoss(
            torch.stack(mel).mean(), torch.stack(log_stft).mean(), torch.stack(convergence).mean()
        )


class IntelligibilityLoss(nn.Module):
    """1 - STOI: how badly the slow envelopes of speech bands are kept (Taal et al. 2011).

    "An algorithm for intelligibility prediction of time-frequency weighted noisy speech", IEEE
    TASLP 19(7); minimised as in Fu et al. 2018 (arXiv 1709.03658). Two things differ from the
    measure: the speech is not resampled to 10 kHz, and frames of silence are left out of the bands
    instead of the waveform. The bands reach up to 4.3 kHz.
    """

    SEGMENT = 30  # frames
    SILENCE = 1e-4  # under the loudest frame's energy: 40 dB
    CLIP = 1 + 10 ** (15 / 20)  # a band's frame counts with an error of -15 dB SDR at most
    POWER_FLOOR = 1e-6
    window: Tensor
    filters: Tensor

    def __init__(self, sample_rate: int) -> None:
        super().__init__()
        window_length = round(0.0256 * sample_rate)
        self.hop_length = window_length // 2
        self.n_fft = 2 << window_length.bit_length()
        frequency = torch.linspace(0.0, sample_rate / 2, self.n_fft // 2 + 1)
        centre = 150.0 * 2 ** (torch.arange(15) / 3)
        octaves = (frequency[:, None] / centre).log2()
        self.register_buffer("window", torch.hann_window(window_length), persistent=False)
        self.register_buffer("filters", (octaves.abs() < 1 / 6).float(), persistent=False)

    def _power(self, waveform: Tensor) -> Tensor:
        """(B, T) -> (B, frames, bins)."""
        spectrum = torch.stft(
            waveform,
            self.n_fft,
            self.hop_length,
            len(self.window),
            window=self.window,
            return_complex=True,
        )
        return (spectrum.real.square() + spectrum.imag.square()).transpose(1, 2)

    def _segments(self, power: Tensor, order: Tensor) -> Tensor:
        """Magnitudes of third octaves, (B, 15, segments, SEGMENT), of frames in an order."""
        bands = (power @ self.filters + self.POWER_FLOOR).sqrt().transpose(1, 2)
        return bands.gather(-1, order[:, None].expand_as(bands)).unfold(-1, self.SEGMENT, 1)

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        """Waveforms (B, T) and (B, T) float32 of 0.4 s or more -> scalar in [0, 2].

        It is zero for a target of which less than 0.4 s are heard.
        """
        power = self._power(target)
        # Of the whole frame: a rumble below the bands keeps a pause in, though they be quiet there.
        energy = power.sum(-1)
        is_heard = energy > self.SILENCE * energy.amax(-1, keepdim=True)
        order = is_heard.logical_not().int().argsort(dim=-1, stable=True)
        wanted, got = self._segments(power, order), self._segments(self._power(output), order)
        n_segments = is_heard.sum(-1, keepdim=True) - self.SEGMENT + 1
        is_speech = (torch.arange(wanted.shape[2], device=order.device) < n_segments).float()
        got = got * (wanted.norm(dim=-1, keepdim=True) / got.norm(dim=-1, keepdim=True))
        got = torch.minimum(got, self.CLIP * wanted)
        correlation = F.cosine_similarity(
            wanted - wanted.mean(-1, keepdim=True), got - got.mean(-1, keepdim=True), dim=-1
        )
        distance = (1 - correlation.mean(1)) * is_speech
        return (distance.sum(-1) / is_speech.sum(-1).clamp(min=1)).mean()


class PeriodicityLoss(nn.Module):
    """How differently two voices repeat themselves: L1 of their short-time autocorrelations.

    Over that of the window, and in shares of the frame's energy, the autocorrelation says how
    voiced a frame is and at what pitch (Boersma 1993, "Accurate short-term analysis of the
    fundamental frequency", IFA Proceedings 17). Spectra alone hardly miss a melody that is gone.
    """

    HIGHEST, LOWEST = 500.0, 60.0  # Hz, of pitch
    HARMONICS = 2000.0  # Hz; above them frames are less periodic than they sound
    SILENCE = 1e-3  # under the loudest frame's energy: 30 dB
    ENERGY_FLOOR = 1e-4
    window: Tensor
    is_heard: Tensor
    of_window: Tensor

    def __init__(self, sample_rate: int) -> None:
        super().__init__()
        window_length = round(PERIODICITY_SECONDS * sample_rate)
        self.hop_length, self.n_fft = window_length // 4, 2 << (window_length - 1).bit_length()
        self.lags = slice(round(sample_rate / self.HIGHEST), round(sample_rate / self.LOWEST))
        window = torch.hann_window(window_length)
        frequency = torch.linspace(0.0, sample_rate / 2, self.n_fft // 2 + 1)
        of_window = torch.fft.irfft(torch.fft.rfft(window, self.n_fft).abs().square())
        self.register_buffer("window", window, persistent=False)
        self.register_buffer("is_heard", (frequency < self.HARMONICS).float(), persistent=False)
        self.register_buffer("of_window", of_window[self.lags] / of_window[0], persistent=False)

    def autocorrelation(self, waveform: Tensor) -> tuple[Tensor, Tensor]:
        """(B, T) -> (B, frames, lags) normalised, and the energies (B, frames)."""
        frames = waveform.unfold(-1, len(self.window), self.hop_length)
        frames = (frames - frames.mean(-1, keepdim=True)) * self.window
        spectrum = torch.fft.rfft(frames, self.n_fft)
        power = (spectrum.real.square() + spectrum.imag.square()) * self.is_heard
        products = torch.fft.irfft(power, self.n_fft)
        energy = products[..., 0]
        normalised = products[..., self.lags] / (energy[..., None] + self.ENERGY_FLOOR)
        return normalised / self.of_window, energy

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        """Waveforms (B, T) and (B, T) float32 of 64 ms or more -> scalar, 0 or more."""
        (got, _), (wanted, energy) = self.autocorrelation(output), self.autocorrelation(target)
        is_speech = (energy > self.SILENCE * energy.amax(-1, keepdim=True)).float()
        distance = (wanted - got).abs().mean(-1)
        return ((distance * is_speech).sum(-1) / is_speech.sum(-1).clamp(min=1)).mean()


class WaveformLosses(NamedTuple):
    """Scalars of the losses in this file; those that have no weight are zero."""

    mel: Tensor
    log_stft: Tensor
    convergence: Tensor
    stoi: Tensor
    periodicity: Tensor

    def weighted(self, weights: LossConfig) -> Tensor:
        """Their sum."""
        return torch.stack(
            [getattr(weights, name) * loss for name, loss in zip(self._fields, self, strict=True)]
        ).sum()


class WaveformLoss(nn.Module):
    """Every distance between a decoded waveform and the true one that has a weight."""

    def __init__(self, sample_rate: int, weights: LossConfig) -> None:
        super().__init__()
        self.spectral = MultiResolutionSpectralLoss(sample_rate)
        self.stoi = IntelligibilityLoss(sample_rate) if weights.stoi else None
        self.periodicity = PeriodicityLoss(sample_rate) if weights.periodicity else None

    def forward(self, output: Tensor, target: Tensor) -> WaveformLosses:
        """Waveforms (B, T) and (B, T) float32 -> scalars, whatever the autocast."""
        zero = output.new_zeros(())
        with torch.autocast(output.device.type, enabled=False):
            mel, log_stft, convergence = self.spectral(output, target)
            stoi = zero if self.stoi is None else self.stoi(output, target)
            periodicity = zero if self.periodicity is None else self.periodicity(output, target)
        return WaveformLosses(mel, log_stft, convergence, stoi, periodicity)
