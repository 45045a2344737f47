"""The encoder: a level-normalised waveform becomes one latent vector per `hop_length` samples.

Two encoders. `PaperEncoder` is van den Oord et al. 2017 (arXiv 1711.00937, section 4.3): six
strided convolutions with stride 2 and kernel 4. `FilterbankEncoder` is the default: the first
strided convolution starts as a bank of quadrature filters and passes on their log power, as in
learnable audio front ends (Zeghidour et al. 2021, LEAF, arXiv 2101.08596), then residual units
with dilated convolutions (as in SoundStream, arXiv 2107.03312) run at every rate. It pads both
sides of each convolution alike, or, causal, only the left.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vqcodec.models import dft
from vqcodec.models.config import EncoderConfig
from vqcodec.models.receptive_field import padding

RESIDUAL_GAIN = 0.3
# Speech leaves the loudness normalisation at an RMS of about .06; networks start best near 1.
INPUT_GAIN = 16.0


def kaiming_init_(module: nn.Module) -> None:
    """Kaiming weights and zero biases for every convolution under `module`, in place."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv1d):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


class ResidualUnit(nn.Module):
    """x + Conv1x1(GELU(DilatedConv3(GELU(x)))), the branch starting small."""

    def __init__(self, channels: int, dilation: int, causal: bool) -> None:
        super().__init__()
        padding = 2 * dilation if causal else dilation
        self.dilated = nn.Conv1d(channels, channels, 3, dilation=dilation, padding=padding)
        self.mix = nn.Conv1d(channels, channels, 1)
        kaiming_init_(self)
        with torch.no_grad():
            self.mix.weight.mul_(RESIDUAL_GAIN)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, N) -> (B, C, N)."""
        dilated = self.dilated(F.gelu(x))[..., : x.shape[-1]]
        return x + self.mix(F.gelu(dilated))


class Chain(nn.Sequential):
    """`nn.Sequential` as one graph: torch.compile does not look into its own `forward`."""

    def forward(self, x: Tensor) -> Tensor:
        """One layer after the other."""
        for layer in self:
            x = layer(x)
        return x


class Filterbank(nn.Module):
    """A strided convolution of quadrature pairs, and the log power of each pair.

    The filters start as Hann-windowed complex tones, spaced evenly up to 1 kHz (where harmonics
    must be told apart) and geometrically above, and are trained like any other weight.
    """

    POWER_FLOOR = 1e-4

    def __init__(
        self, n_filters: int, kernel_length: int, stride: int, sample_rate: int, causal: bool
    ) -> None:
        super().__init__()
        self.stride = stride
        self.padding = padding(kernel_length, stride, causal)
        n_linear = n_filters // 2
        low = torch.linspace(40.0, 1000.0, n_linear + 1)[:-1]
        top = 0.48 * sample_rate
        high = 1000.0 * (top / 1000.0) ** torch.linspace(0.0, 1.0, n_filters - n_linear)
        frequency = torch.cat([low, high])
        time = (torch.arange(kernel_length) - (kernel_length - 1) / 2) / sample_rate
        phase = 2 * math.pi * frequency[:, None] * time
        # Wider bands above 1 kHz are listened to through shorter windows.
        width = torch.cat([torch.ones(n_linear), (1000.0 / high) ** 0.5])
        window = torch.cos(math.pi * time * sample_rate / kernel_length / width[:, None]) ** 2
        window[(time.abs() * sample_rate / kernel_length / width[:, None]) > 0.5] = 0.0
        window = window / window.square().sum(-1, keepdim=True).sqrt()
        self.weight = nn.Parameter(torch.cat([window * phase.cos(), window * phase.sin()]))

    def forward(self, waveform: Tensor) -> Tensor:
        """(B, T) -> (B, n_filters, T / stride), T a multiple of the stride."""
        padded, length = F.pad(waveform, self.padding), self.weight.shape[1]
        if torch.compiler.is_exporting():
            frames = dft.frames(padded, length, self.stride)
        else:
            frames = padded.unfold(-1, length, self.stride)
        cosine, sine = (frames @ self.weight.T).float().chunk(2, dim=-1)
        power = cosine * cosine + sine * sine
        return 0.3 * (power + self.POWER_FLOOR).log().transpose(1, 2)


class FilterbankEncoder(nn.Module):
    """Filterbank, then per rate: residual units, then a strided convolution to the next rate."""

    def __init__(self, config: EncoderConfig, dim: int, sample_rate: int) -> None:
        super().__init__()
        first, *later = config.strides
        causal = config.causal
        self.filterbank = Filterbank(
            config.n_filters, config.kernel_length, first, sample_rate, causal
        )
        width = config.channels if later else config.code_channels
        self.input = nn.Conv1d(config.n_filters, width, 1)
        layers: list[nn.Module] = []
        for index, stride in enumerate(later):
            layers += [ResidualUnit(width, dilation, causal) for dilation in config.dilations]
            wider = config.code_channels if index == len(later) - 1 else config.channels
            layers.append(StridedConv(width, wider, stride, causal))
            width = wider
        layers += [ResidualUnit(width, dilation, causal) for dilation in config.dilations]
        self.layers = Chain(*layers)
        self.output = nn.Conv1d(width, dim, 1)
        kaiming_init_(self.input)
        kaiming_init_(self.output)

    def forward(self, waveform: Tensor) -> Tensor:
        """(B, T) -> (B, D, T / hop_length), T a multiple of the hop length."""
        x = self.input(self.filterbank(waveform * INPUT_GAIN))
        return self.output(F.gelu(self.layers(x)))


class StridedConv(nn.Module):
    """GELU, then a convolution whose kernel is twice its stride: T -> T / stride."""

    def __init__(self, channels: int, out_channels: int, stride: int, causal: bool) -> None:
        super().__init__()
        self.padding = padding(2 * stride, stride, causal)
        self.conv = nn.Conv1d(channels, out_channels, 2 * stride, stride)
        kaiming_init_(self)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T) -> (B, out_channels, T / stride)."""
        return self.conv(F.pad(F.gelu(x), self.padding))


class PaperEncoder(nn.Module):
    """The encoder of the paper: strided convolutions, stride 2 and kernel 4, with ReLU."""

    def __init__(self, config: EncoderConfig, dim: int) -> None:
        super().__init__()
        widths = [1] + [config.channels] * len(config.strides)
        self.layers = nn.Sequential(
            *(
                layer
                for before, after in pairwise(widths)
                for layer in (nn.Conv1d(before, after, 4, 2, padding=1), nn.ReLU())
            ),
            nn.Conv1d(config.channels, dim, 1),
        )
        kaiming_init_(self)

    def forward(self, waveform: Tensor) -> Tensor:
        """(B, T) -> (B, D, T / 64), T a multiple of 64."""
        latents: Tensor = self.layers(waveform[:, None] * INPUT_GAIN)
        return latents


def build_encoder(config: EncoderConfig, dim: int, sample_rate: int) -> nn.Module:
    """The encoder that `config` describes."""
    if config.paper:
        return PaperEncoder(config, dim)
    return FilterbankEncoder(config, dim, sample_rate)
