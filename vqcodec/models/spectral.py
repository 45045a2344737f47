"""The fast decoder: latents become a waveform in one pass, through an inverse STFT.

ConvNeXt blocks at the code rate predict the magnitude and the phase of every frame, as in Vocos
(Siuzdak 2023, arXiv 2306.00814); the speaker vector sets scale and shift of every block's
normalisation (adaptive layer norm, Perez et al. 2018, arXiv 1709.07871).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vqcodec.models.config import SpectralDecoderConfig


class ConvNeXtBlock(nn.Module):
    """Depthwise convolution, speaker-conditioned layer norm, and a two-layer perceptron.

    Args:
        channels: width in and out.
        expansion: hidden width of the perceptron over `channels`.
        kernel_size: of the depthwise convolution, odd.
        speaker_dim: S.
        scale: initial size of the residual branch.
    """

    def __init__(
        self, channels: int, expansion: int, kernel_size: int, speaker_dim: int, scale: float
    ) -> None:
        super().__init__()
        self.depthwise = nn.Conv1d(
            channels, channels, kernel_size, padding=kernel_size // 2, groups=channels
        )
        self.norm = nn.LayerNorm(channels, elementwise_affine=False)
        self.speaker = nn.Linear(speaker_dim, 2 * channels)
        self.expand = nn.Linear(channels, expansion * channels)
        self.project = nn.Linear(expansion * channels, channels)
        self.scale = nn.Parameter(torch.full((channels,), scale))
        nn.init.normal_(self.speaker.weight, std=0.02)
        nn.init.zeros_(self.speaker.bias)

    def forward(self, x: Tensor, speaker: Tensor) -> Tensor:
        """Input (B, C, N), speaker (B, S) -> (B, C, N)."""
        gain, shift = self.speaker(speaker)[:, None].chunk(2, dim=-1)
        hidden = self.norm(self.depthwise(x).transpose(1, 2)) * (1 + gain) + shift
        hidden = self.scale * self.project(F.gelu(self.expand(hidden)))
        return x + hidden.transpose(1, 2)


class SpectralDecoder(nn.Module):
    """Latents and a speaker vector to a waveform.

    Args:
        config: width, depth and FFT size.
        dim: channels of the latents.
        speaker_dim: S.
        hop_length: samples per latent.
    """

    # A magnitude beyond e^6 is outside any level-normalised speech: an untrained network's slip.
    MAX_LOG_MAGNITUDE = 6.0

    def __init__(
        self, config: SpectralDecoderConfig, dim: int, speaker_dim: int, hop_length: int
    ) -> None:
        super().__init__()
        self.n_fft, self.hop_length = config.n_fft, hop_length
        self.input = nn.Conv1d(
            dim, config.channels, config.kernel_size, padding=config.kernel_size // 2
        )
        self.blocks = nn.ModuleList(
            ConvNeXtBlock(
                config.channels,
                config.expansion,
                config.kernel_size,
                speaker_dim,
                scale=1 / config.n_layers,
            )
            for _ in range(config.n_layers)
        )
        self.norm = nn.LayerNorm(config.channels)
        self.head = nn.Linear(config.channels, config.n_fft + 2)
        self.register_buffer("window", torch.hann_window(config.n_fft), persistent=False)

    def forward(self, latents: Tensor, speaker: Tensor) -> Tensor:
        """Latents (B, D, N), speaker (B, S) -> waveform (B, N * hop_length), normalised level."""
        x = self.input(latents)
        for block in self.blocks:
            x = block(x, speaker)
        log_magnitude, phase = self.head(self.norm(x.transpose(1, 2))).float().chunk(2, dim=-1)
        magnitude = log_magnitude.clamp(max=self.MAX_LOG_MAGNITUDE).exp()
        return self.synthesize(torch.polar(magnitude, phase))

    def synthesize(self, spectrum: Tensor) -> Tensor:
        """Inverse STFT whose frame n is centred on the hop of code n.

        torch.istft cannot do this: its frames are centred on hop boundaries and N frames give
        (N - 1) hops. Overlap-add by `fold`, then division by the summed squared windows:

            frame 0  |====window====|
            frame 1      |====window====|
            output       |hop 0|hop 1|     (n_fft - hop) / 2 is cut from each end

        Args:
            spectrum: (B, N, n_fft / 2 + 1) complex.

        Returns:
            (B, N * hop_length).
        """
        n_frames = spectrum.shape[1]
        window: Tensor = self.window  # type: ignore[assignment]
        frames = torch.fft.irfft(spectrum, n=self.n_fft, dim=-1) * window
        squares = window.square().expand(1, n_frames, -1)
        length = (n_frames - 1) * self.hop_length + self.n_fft

        def overlap_add(x: Tensor) -> Tensor:
            return F.fold(
                x.transpose(1, 2), (1, length), (1, self.n_fft), stride=(1, self.hop_length)
            )[:, 0, 0]

        cut = (self.n_fft - self.hop_length) // 2
        output = slice(cut, cut + n_frames * self.hop_length)
        return overlap_add(frames)[:, output] / overlap_add(squares)[:, output].clamp(min=1e-4)


def receptive_field(config: SpectralDecoderConfig, hop_length: int) -> int:
    """Latents that one output sample depends on."""
    convolutions = (config.n_layers + 1) * (config.kernel_size - 1)
    return 1 + convolutions + 2 * -(-config.n_fft // (2 * hop_length))
