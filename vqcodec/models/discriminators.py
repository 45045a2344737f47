"""Discriminators: they tell decoded speech from true speech, and so teach the decoder.

Each looks at the complex spectrogram of one window length through two-dimensional convolutions, as
in UnivNet (Jang et al. 2021, arXiv 2106.07889) and EnCodec (Defossez et al. 2022, arXiv 2210.13438,
section 3.4). Magnitudes are compressed (Braun and Tashev 2020, arXiv 2009.12286), or nothing but
the strongest partials would be looked at.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

N_FFTS = (1024, 512, 256)
COMPRESSION = 0.3
SLOPE = 0.1


class Judgement(NamedTuple):
    """What one discriminator makes of a batch.

    Attributes:
        scores: (B, 1, frames, bands), high where the audio sounds true.
        features: (B, C, frames, bands) of every hidden layer.
    """

    scores: Tensor
    features: list[Tensor]


class SpectrogramDiscriminator(nn.Module):
    """Convolutions over frames and frequencies of a spectrogram whose hop is n_fft / 4."""

    # Kernel, stride and dilation over (frames, frequencies).
    LAYERS = (
        ((3, 9), (1, 1), (1, 1)),
        ((3, 9), (1, 2), (1, 1)),
        ((3, 9), (1, 2), (2, 1)),
        ((3, 9), (1, 2), (4, 1)),
        ((3, 3), (1, 1), (1, 1)),
    )

    def __init__(self, n_fft: int, channels: int) -> None:
        super().__init__()
        self.n_fft = n_fft
        widths = [2] + [channels] * (len(self.LAYERS) - 1)
        self.layers = nn.ModuleList(
            weight_norm(
                nn.Conv2d(width, channels, kernel, stride, _same(kernel, dilation), dilation)
            )
            for width, (kernel, stride, dilation) in zip(widths, self.LAYERS, strict=True)
        )
        self.scores = weight_norm(nn.Conv2d(channels, 1, 3, padding=1))
        self.register_buffer("window", torch.hann_window(n_fft), persistent=False)

    def forward(self, waveform: Tensor) -> Judgement:
        """Waveform (B, T) float32 at normalised level."""
        x = self._spectrogram(waveform)
        features = []
        for layer in self.layers:
            x = F.leaky_relu(layer(x), SLOPE)
            features.append(x)
        return Judgement(self.scores(x), features)

    def _spectrogram(self, waveform: Tensor) -> Tensor:
        """(B, T) -> (B, 2, frames, n_fft / 2 + 1): real and imaginary parts, compressed."""
        window: Tensor = self.window  # type: ignore[assignment]
        with torch.autocast(waveform.device.type, enabled=False):
            spectrum = torch.stft(
                waveform.float(), self.n_fft, self.n_fft // 4, window=window, return_complex=True
            )
            parts = torch.view_as_real(spectrum)
            # The floor keeps the gradient finite where there is silence.
            power = parts.square().sum(-1, keepdim=True) + 1e-4
            return (parts * power ** ((COMPRESSION - 1) / 2)).permute(0, 3, 2, 1)


class Discriminators(nn.Module):
    """One discriminator for every window length."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.members = nn.ModuleList(SpectrogramDiscriminator(n_fft, channels) for n_fft in N_FFTS)

    def forward(self, waveform: Tensor) -> list[Judgement]:
        """Waveform (B, T) at normalised level, T over 512 -> one judgement each."""
        return [member(waveform) for member in self.members]


def _same(kernel: tuple[int, int], dilation: tuple[int, int]) -> tuple[int, int]:
    """Padding that keeps the size at stride 1."""
    return (kernel[0] // 2 * dilation[0], kernel[1] // 2 * dilation[1])
