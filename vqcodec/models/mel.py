"""Mel spectra, on the mel scale of HTK: 2595 log10(1 + f / 700), f in Hz.

Reference: Young et al., "The HTK Book", section 5.4. Weights and spectra are, to the bit, those of
torchaudio's `melscale_fbanks` and `MelSpectrogram` with their defaults, with which the models were
trained.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vqcodec.models import dft


def mel_filterbank(n_freqs: int, n_mels: int, sample_rate: int) -> Tensor:
    """Triangular filters, each of peak 1, whose corners are evenly spaced in mel.

    They are (n_freqs, n_mels) float32 in [0, 1], over bins from 0 Hz to half the sample rate. A
    filter that falls between two bins is zero.
    """
    f_max = sample_rate // 2
    mels = torch.linspace(0.0, 2595.0 * math.log10(1.0 + f_max / 700.0), n_mels + 2)
    corners = 700.0 * (10.0 ** (mels / 2595.0) - 1.0)
    slopes = corners - torch.linspace(0, f_max, n_freqs)[:, None]
    widths = corners.diff()
    rising, falling = -slopes[:, :-2] / widths[:-1], slopes[:, 2:] / widths[1:]
    return torch.minimum(rising, falling).clamp(min=0)


class MelSpectrogram(nn.Module):
    """Magnitudes of a short-time Fourier transform, in mel bands up to half the sample rate.

    The Hann window is as long as the transform, and frame n is centred on sample n * hop_length.
    The power is that of the magnitudes: 1, or 2 for energies.
    """

    def __init__(
        self, sample_rate: int, *, n_fft: int, hop_length: int, n_mels: int, power: float = 2.0
    ) -> None:
        super().__init__()
        self.n_fft, self.hop_length, self.power = n_fft, hop_length, power
        # Named as in torchaudio, and so in model files.
        self.spectrogram, self.mel_scale = nn.Module(), nn.Module()
        self.spectrogram.register_buffer("window", torch.hann_window(n_fft))
        self.mel_scale.register_buffer("fb", mel_filterbank(n_fft // 2 + 1, n_mels, sample_rate))

    def forward(self, waveform: Tensor) -> Tensor:
        """Waveform (B, T), T > n_fft / 2 -> (B, n_mels, 1 + T // hop_length)."""
        window = self.spectrogram.get_buffer("window")
        if torch.compiler.is_exporting():
            room = self.n_fft // 2, self.n_fft // 2
            padded = F.pad(waveform[:, None], room, mode="reflect")[:, 0]
            frames = dft.frames(padded, self.n_fft, self.hop_length)
            powers = dft.power_spectrum(frames * window) ** (self.power / 2)
        else:
            spectrum = torch.stft(
                waveform, self.n_fft, self.hop_length, window=window, return_complex=True
            ).transpose(1, 2)
            powers = spectrum.abs() if self.power == 1 else spectrum.abs().pow(self.power)
        return (powers @ self.mel_scale.get_buffer("fb")).transpose(1, 2)
