"""The paper's decoder: a WaveNet (van den Oord et al. 2016, arXiv 1609.03499) on the codes.

Gated causal convolutions of kernel 2, dilations 1, 2, 4 ... per stack, predict every sample as one
of 256 mu-law levels. Codes pass a small conditioning network; with the speaker vector they enter
every gate, held for the hop of each code. The waveform is pre-emphasised first, so that mu-law
noise falls under the speech (as in LPCNet, Valin and Skoglund 2019, arXiv 1810.11846).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vqcodec.models.config import WaveNetConfig
from vqcodec.models.interfaces import Condition
from vqcodec.models.mu_law import N_LEVELS, OUTPUT_GAIN, SILENCE, to_waveform
from vqcodec.models.receptive_field import N_CONDITIONERS, condition_context, wavenet_field
from vqcodec.models.stream_inputs import StreamInputs


class GatedLayer(nn.Module):
    """tanh(filter) * sigmoid(gate) of a dilated causal convolution plus condition.

    Time comes before channels, (B, T, C): the convolution of kernel 2 is then one matrix product
    over the older and the newer sample, which at these widths is faster than a convolution.

    Args:
        config: widths.
        dilation: in samples.
    """

    def __init__(self, config: WaveNetConfig, dilation: int) -> None:
        super().__init__()
        width = config.residual_channels
        self.dilation = dilation
        self.taps = nn.Linear(2 * width, 2 * width)
        self.condition = nn.Linear(config.condition_channels, 2 * width, bias=False)
        self.mixed = nn.Linear(width, width + config.skip_channels)

    def step(self, older: Tensor, x: Tensor, held: Tensor) -> tuple[Tensor, Tensor]:
        """One column, or several: every argument (..., channels).

        Args:
            older: x of `dilation` samples ago.
            x: the layer's input.
            held: the projected condition, 2C channels.

        Returns:
            The next layer's input (..., C) and the skip (..., K).
        """
        gates = self.taps(torch.cat([older, x], dim=-1)) + held
        filtered, gate = gates.chunk(2, dim=-1)
        residual, skip = self.mixed(filtered.tanh() * gate.sigmoid()).split(
            [x.shape[-1], self.mixed.out_features - x.shape[-1]], dim=-1
        )
        return x + residual, skip

    def forward(self, x: Tensor, condition: Tensor, hop_length: int) -> tuple[Tensor, Tensor]:
        """Input x (B, N * hop_length, C), condition (B, N, H) -> next x and skip, as long as x."""
        older = F.pad(x, (0, 0, self.dilation, 0))[:, : x.shape[1]]
        # The condition is constant over a hop: project per code, then hold it for its samples.
        held = self.condition(condition).repeat_interleave(hop_length, dim=1)
        return self.step(older, x, held)


class WaveNet(nn.Module):
    """Distribution of every next sample given the samples before, the codes and the speaker.

    Args:
        config: depth and widths.
        dim: channels of the latents.
        speaker_dim: S.
        hop_length: samples per latent.
        stream_channels: of each stream of the condition.
    """

    def __init__(
        self,
        config: WaveNetConfig,
        dim: int,
        speaker_dim: int,
        hop_length: int,
        stream_channels: Mapping[str, int] = MappingProxyType({}),
    ) -> None:
        super().__init__()
        self.config, self.hop_length = config, hop_length
        width = config.residual_channels
        self.embedding = nn.Embedding(N_LEVELS, width)
        self.conditioner = nn.ModuleList(
            nn.Conv1d(before, config.condition_channels, 3, padding=1)
            for before in (dim, *(config.condition_channels,) * (N_CONDITIONERS - 1))
        )
        self.speaker = nn.Linear(speaker_dim, config.condition_channels)
        self.streams = StreamInputs(stream_channels, config.condition_channels)
        self.layers = nn.ModuleList(GatedLayer(config, dilation) for dilation in config.dilations)
        self.hidden = nn.Linear(config.skip_channels, N_LEVELS)
        self.logits = nn.Linear(N_LEVELS, N_LEVELS)

    @property
    def receptive_field(self) -> int:
        """Samples before the predicted one that it depends on."""
        return wavenet_field(self.config)

    @property
    def condition_context(self) -> int:
        """Codes on each side that what `per_code` says of a code depends on."""
        return condition_context(len(self.streams.convolutions))

    def per_code(self, condition: Condition) -> Tensor:
        """A condition of N codes -> what the layers are told, (B, N, H), one vector per code."""
        first, second = self.conditioner
        x = first(condition.latents) + self.speaker(condition.speaker)[..., None]
        x = self.streams(x, condition.streams)
        return F.gelu(second(F.gelu(x))).transpose(1, 2)

    def output(self, skips: Tensor) -> Tensor:
        """Summed skips (..., K) -> logits (..., 256)."""
        scaled = skips * len(self.layers) ** -0.5
        return self.logits(F.relu(self.hidden(F.relu(scaled))))

    def forward(self, levels: Tensor, condition: Condition) -> Tensor:
        """Teacher forcing: logits of every sample given the true samples before it.

        Args:
            levels: (B, N * hop_length) int64 of `to_levels`, what is to be predicted.
            condition: of N codes.

        Returns:
            (B, 256, N * hop_length).
        """
        told = self.per_code(condition)
        previous = F.pad(levels, (1, -1), value=SILENCE)
        x = self.embedding(previous)
        skips: Tensor | float = 0.0
        for layer in self.layers:
            x, skip = layer(x, told, self.hop_length)
            skips = skips + skip
        assert isinstance(skips, Tensor)
        return self.output(skips).transpose(1, 2)

    def to_levels(self, waveform: Tensor) -> Tensor:
        """Waveform (B, T), normalised level -> mu-law levels (B, T) int64 in [0, 256)."""
        scaled = waveform * OUTPUT_GAIN
        emphasized = scaled - self.config.pre_emphasis * F.pad(scaled, (1, -1))
        return mu_law_encode(emphasized.clamp(-1, 1))

    def to_waveform(self, levels: Tensor, last: Tensor) -> Tensor:
        """`mu_law.to_waveform` of tensors."""
        waveform = to_waveform(levels.cpu().numpy(), last.cpu().numpy(), self.config.pre_emphasis)
        return torch.from_numpy(waveform).to(levels.device)


def mu_law_encode(waveform: Tensor) -> Tensor:
    """Samples in [-1, 1] -> levels int64 in [0, 256), of which 128 is 0.0.

    Reference: the mu-law of ITU-T G.711 with mu = 255, as the curve and not in its segments; to the
    bit torchaudio's `mu_law_encoding`.
    """
    mu = torch.tensor(N_LEVELS - 1.0)
    compressed = waveform.sign() * (mu * waveform.abs()).log1p() / mu.log1p()
    return ((compressed + 1) / 2 * mu + 0.5).long()
