"""The iSTFT decoder, `fast`: latents become a waveform in one pass, through an inverse STFT.

ConvNeXt blocks predict the magnitude and the phase of every frame, as in Vocos (Siuzdak 2023,
arXiv 2306.00814); the speaker vector sets scale and shift of every block's normalisation (adaptive
layer norm, Perez et al. 2018, arXiv 1709.07871). There are `upsample` frames per code.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vqcodec.models import dft
from vqcodec.models.config import IstftDecoderConfig
from vqcodec.models.interfaces import Condition
from vqcodec.models.receptive_field import istft_reach
from vqcodec.models.stream_inputs import StreamInputs, convolved

STREAM_BLOCKS = (0, 4)  # before which a decoder is told of streams


class ConvNeXtBlock(nn.Module):
    """Depthwise convolution, speaker-conditioned layer norm, and a two-layer perceptron.

    The residual branch starts small: 1 / n_layers.
    """

    def __init__(self, config: IstftDecoderConfig, speaker_dim: int) -> None:
        super().__init__()
        channels, expansion = config.channels, config.expansion
        self.depthwise = _convolution(config, channels, groups=channels)
        self.norm = nn.LayerNorm(channels, elementwise_affine=False)
        self.speaker = nn.Linear(speaker_dim, 2 * channels)
        self.expand = nn.Linear(channels, expansion * channels)
        self.project = nn.Linear(expansion * channels, channels)
        self.scale = nn.Parameter(torch.full((channels,), 1 / config.n_layers))
        nn.init.normal_(self.speaker.weight, std=0.02)
        nn.init.zeros_(self.speaker.bias)

    def forward(self, x: Tensor, speaker: Tensor) -> Tensor:
        """Input (B, C, N), speaker (B, S) -> (B, C, N)."""
        depthwise = self.depthwise(x)[..., : x.shape[-1]]
        gain, shift = self.speaker(speaker)[:, None].chunk(2, dim=-1)
        hidden = self.norm(depthwise.transpose(1, 2)) * (1 + gain) + shift
        # As rows: a graph then multiplies by the weights as they are, and need not turn them.
        rows = self.project(F.gelu(self.expand(hidden.flatten(0, 1)))) * self.scale
        return x + rows.unflatten(0, hidden.shape[:2]).transpose(1, 2)


class IstftDecoder(nn.Module):
    """Latents, a speaker vector and streams, by their names and channels, to a waveform."""

    # A magnitude beyond e^6 is outside any level-normalised speech: an untrained network's slip.
    MAX_LOG_MAGNITUDE = 6.0

    def __init__(
        self,
        config: IstftDecoderConfig,
        dim: int,
        speaker_dim: int,
        hop_length: int,
        stream_channels: Mapping[str, int] = MappingProxyType({}),
    ) -> None:
        super().__init__()
        self.config, self.hop_length = config, hop_length
        self.n_fft, self.frame_hop = config.n_fft, hop_length // config.upsample
        self.input = _convolution(config, dim)
        # A transposed convolution whose kernel is its stride, written as the product that it is.
        self.upsample = (
            nn.Linear(config.channels, config.upsample * config.channels)
            if config.upsample > 1
            else nn.Identity()
        )
        self.blocks = nn.ModuleList(
            ConvNeXtBlock(config, speaker_dim) for _ in range(config.n_layers)
        )
        self.streams = nn.ModuleDict(
            {
                str(block): StreamInputs(stream_channels, config.channels, config.upsample)
                for block in STREAM_BLOCKS
                if block < config.n_layers
            }
        )
        self.norm = nn.LayerNorm(config.channels)
        self.head = nn.Linear(config.channels, config.n_fft + 2)
        self.register_buffer("window", torch.hann_window(config.n_fft), persistent=False)

    @property
    def context(self) -> tuple[int, int]:
        """Codes before, and codes after its own, that the samples of a code's hop depend on."""
        backward, forward = self._reach
        return -(-forward // self.hop_length), -(-backward // self.hop_length)

    @property
    def _reach(self) -> tuple[int, int]:
        inputs: StreamInputs = self.streams["0"]  # type: ignore[assignment]
        return istft_reach(self.config, self.hop_length, inputs.reach)

    def features(self, condition: Condition) -> Tensor:
        """A condition of N codes -> of which the head makes spectra, (B, N * upsample, C)."""
        latents = condition.latents
        x = convolved(self.input, latents)[:, : latents.shape[-1]]
        x = self.upsample(x).unflatten(-1, (-1, x.shape[-1])).flatten(1, 2).transpose(1, 2)
        for index, block in enumerate(self.blocks):
            if str(index) in self.streams:
                x = self.streams[str(index)](x, condition.streams)
            x = block(x, condition.speaker)
        normalised: Tensor = self.norm(x.transpose(1, 2))
        return normalised

    def forward(self, condition: Condition) -> Tensor:
        """A condition of N codes -> waveform (B, N * hop_length), normalised level."""
        return self.waveform(self.features(condition))

    def waveform(self, features: Tensor) -> Tensor:
        """`features` -> waveform (B, N * hop_length), normalised level."""
        if torch.compiler.is_exporting():
            # Runtimes compute the last few values of an array otherwise than by vectors: they are
            # to be of a frame that is dropped, or the end depended on the length.
            features = F.pad(features, (0, 0, 0, 1))
        head = self.head(features.flatten(0, 1)).unflatten(0, features.shape[:2])
        log_magnitude, phase = head.float().chunk(2, dim=-1)
        magnitude = log_magnitude.clamp(max=self.MAX_LOG_MAGNITUDE).exp()
        if torch.compiler.is_exporting():
            return self.overlap_add(dft.inverse(magnitude, phase, self.n_fft)[:, :-1])
        return self.synthesize(torch.polar(magnitude, phase))

    def synthesize(self, spectrum: Tensor) -> Tensor:
        """Inverse STFT of N frames (B, N, n_fft / 2 + 1), frame n centred on the hop of frame n.

        torch.istft cannot do this: its frames are centred on hop boundaries and N frames give
        (N - 1) hops. Overlap-add by `fold`, then division by the summed squared windows:

            frame 0  |====window====|
            frame 1      |====window====|
            output       |hop 0|hop 1|     (n_fft - hop) / 2 is cut from each end

        The result is (B, N * hop_length / upsample).
        """
        return self.overlap_add(torch.fft.irfft(spectrum, n=self.n_fft, dim=-1))

    def overlap_add(self, frames: Tensor) -> Tensor:
        """Frames (B, N, n_fft) of an inverse STFT -> (B, N * hop_length / upsample)."""
        n_frames = frames.shape[1]
        window: Tensor = self.window  # type: ignore[assignment]
        squares = window.square().expand(1, n_frames, -1)
        n_hops = -(-self.n_fft // self.frame_hop)

        def added(x: Tensor) -> Tensor:
            x = F.pad(x, (0, n_hops * self.frame_hop - self.n_fft))
            hops = x.unflatten(-1, (n_hops, self.frame_hop)).unbind(2)
            later = [F.pad(hop, (0, 0, k, n_hops - 1 - k)) for k, hop in enumerate(hops)]
            return torch.stack(later).sum(0).flatten(1)

        cut = (self.n_fft - self.frame_hop) // 2
        output = slice(cut, cut + n_frames * self.frame_hop)
        return added(frames * window)[:, output] / added(squares)[:, output].clamp(min=1e-4)


def _convolution(config: IstftDecoderConfig, in_channels: int, groups: int = 1) -> nn.Conv1d:
    """N inputs -> N outputs, then as many more to be dropped as the causal padding adds."""
    padding = config.kernel_size - 1 if config.causal else config.kernel_size // 2
    return nn.Conv1d(
        in_channels, config.channels, config.kernel_size, padding=padding, groups=groups
    )
