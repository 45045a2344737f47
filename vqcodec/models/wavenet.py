"""The paper's decoder: a WaveNet (van den Oord et al. 2016, arXiv 1609.03499) on the codes.

Gated causal convolutions of kernel 2, dilations 1, 2, 4 ... per stack, predict every sample as one
of 256 mu-law levels. Codes pass a small conditioning network; with the speaker vector they enter
every gate, held for the hop of each code. The waveform is pre-emphasised first, so that mu-law
noise falls under the speech (as in LPCNet, Valin and Skoglund 2019, arXiv 1810.11846).

In sub-bands a step predicts a sample of each, the higher ones given the lower ones of the step,
and there are as many steps fewer (as in DurIAN, Yu et al. 2019, arXiv 1909.01700). It may listen to
what the fast decoder knows of the codes, hear the waveform that this makes of them, as a coarse one
to go by, and be told what a linear filter predicts (linear_prediction.py): all leave less to guess.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vqcodec.models.companding import compress, mu_law_encode
from vqcodec.models.config import WaveNetConfig
from vqcodec.models.filterbank import filters
from vqcodec.models.interfaces import Condition
from vqcodec.models.istft import IstftDecoder
from vqcodec.models.linear_prediction import LinearPrediction
from vqcodec.models.mu_law import N_LEVELS, OUTPUT_GAIN, SHARPEST, SILENCE
from vqcodec.models.receptive_field import N_CONDITIONERS, wavenet_field
from vqcodec.models.stream_inputs import StreamInputs


class GatedLayer(nn.Module):
    """tanh(filter) * sigmoid(gate) of a dilated causal convolution plus condition.

    Time comes before channels, (B, T, C): the convolution of kernel 2 is then one matrix product
    over the older and the newer sample, which at these widths is faster than a convolution.
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

        From x of `dilation` steps ago, the layer's input x and the projected condition, 2C
        channels, to the next layer's input (..., C) and the skip (..., K).
        """
        gates = self.taps(torch.cat([older, x], dim=-1)) + held
        filtered, gate = gates.chunk(2, dim=-1)
        residual, skip = self.mixed(filtered.tanh() * gate.sigmoid()).split(
            [x.shape[-1], self.mixed.out_features - x.shape[-1]], dim=-1
        )
        return x + residual, skip

    def forward(self, x: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        """Input x (B, S, C), condition (B, N, H), S a multiple of N -> next x and skip, (B, S)."""
        older = F.pad(x, (0, 0, self.dilation, 0))[:, : x.shape[1]]
        # The condition is constant over a hop: project per code, then hold it for its steps.
        held = self.condition(condition).repeat_interleave(x.shape[1] // condition.shape[1], dim=1)
        return self.step(older, x, held)


class WaveNet(nn.Module):
    """Distribution of every next sample given the samples before, the codes and the speaker.

    Letters in shapes: M bands, S steps, L levels, K skip channels, W hidden channels.
    `feature_channels` are those of the fast decoder's features; 0 where it does not listen to them.
    """

    def __init__(
        self,
        config: WaveNetConfig,
        dim: int,
        speaker_dim: int,
        hop_length: int,
        stream_channels: Mapping[str, int] = MappingProxyType({}),
        feature_channels: int = 0,
    ) -> None:
        super().__init__()
        self.config, self.hop_length, self.n_bands = config, hop_length, config.n_bands
        width, heard, n_bands = config.residual_channels, config.condition_channels, config.n_bands
        self.embedding = nn.Embedding(n_bands * N_LEVELS, width)
        self.conditioner = nn.ModuleList(
            nn.Conv1d(before, heard, 3, padding=1)
            for before in (dim, *(heard,) * (N_CONDITIONERS - 1))
        )
        self.speaker = nn.Linear(speaker_dim, heard)
        self.streams = StreamInputs(stream_channels, heard)
        self.features = nn.Linear(feature_channels, heard) if feature_channels else None
        self.layers = nn.ModuleList(GatedLayer(config, dilation) for dilation in config.dilations)
        self.hidden = nn.Linear(config.skip_channels, n_bands * config.hidden_channels)
        self.logits = nn.Linear(config.hidden_channels, n_bands * N_LEVELS)
        # What the levels of the lower bands of a step tell the higher ones.
        self.lower = None
        if n_bands > 1:
            self.lower = nn.Embedding((n_bands - 1) * N_LEVELS, config.hidden_channels)
            nn.init.normal_(self.lower.weight, std=0.1)
        self.prediction = None
        if config.prediction_order:
            self.prediction = LinearPrediction(config)
            self.expected = nn.Linear(n_bands, width, bias=False)
            self.sharpness = nn.Linear(config.hidden_channels, n_bands)
            nn.init.constant_(self.sharpness.bias, 5.0)
        self.coarse = None
        if config.coarse_steps:
            self.coarse = nn.Linear(config.coarse_steps * n_bands, width, bias=False)
            nn.init.zeros_(self.coarse.weight)
        analysis = torch.from_numpy(filters(n_bands)[0].copy())
        self.register_buffer("analysis", analysis, persistent=False)

    @property
    def receptive_field(self) -> int:
        """Steps before the predicted one that it depends on."""
        return wavenet_field(self.config)

    def informed(self, condition: Condition, fast: IstftDecoder | None = None) -> Condition:
        """A condition with what the fast decoder knows of it, if this listens to that."""
        if self.features is None:
            return condition
        assert fast is not None
        features = fast.features(condition).detach()
        coarse = None if self.coarse is None else fast.waveform(features).detach()
        features = features.unflatten(1, (condition.latents.shape[-1], -1)).flatten(2)
        return condition._replace(features=features, coarse=coarse)

    def per_code(self, condition: Condition) -> Tensor:
        """`informed` of N codes -> what `split` takes apart, (B, N, _)."""
        first, second = self.conditioner
        x = first(condition.latents) + self.speaker(condition.speaker)[..., None]
        x = self.streams(x, condition.streams)
        if self.features is not None:
            assert condition.features is not None
            x = x + self.features(condition.features).transpose(1, 2)
        told: Tensor = F.gelu(second(F.gelu(x))).transpose(1, 2)
        if self.coarse is None:
            return told
        assert condition.coarse is not None
        bands = self.bands(condition.coarse).reshape(*told.shape[:2], -1)
        before, after = (steps * self.n_bands for steps in self.config.beside)
        earlier = F.pad(bands, (0, 0, 1, -1))[..., bands.shape[-1] - before :]
        later = F.pad(bands, (0, 0, -1, 1))[..., :after]
        return torch.cat([told, earlier, bands, later], dim=-1)

    def split(self, told: Tensor) -> tuple[Tensor, Tensor | None]:
        """`per_code` (..., _) -> what the layers are told, (..., H), and coarse bands (..., P, M).

        These are the ones that the steps of a code hear.
        """
        if self.coarse is None:
            return told, None
        n_told = self.config.condition_channels
        return told[..., :n_told], told[..., n_told:].unflatten(-1, (-1, self.n_bands))

    def windows(self, coarse: Tensor) -> Tensor:
        """Coarse bands (B, N, P, M) -> what each step hears, (B, S, coarse_steps * M)."""
        unfolded = coarse.unfold(2, self.config.coarse_steps, 1).transpose(-1, -2)
        return unfolded.flatten(3).flatten(1, 2)

    def embed(self, levels: Tensor, expected: Tensor | None, coarse: Tensor | None) -> Tensor:
        """The first layer's input (..., C).

        From levels (..., M) of a step, and of the next what is expected (..., M) and what it hears
        of the coarse bands (..., coarse_steps * M).
        """
        rows = torch.arange(self.n_bands, device=levels.device) * N_LEVELS
        embedded: Tensor = self.embedding(levels + rows).sum(-2)
        if expected is not None:
            embedded = embedded + self.expected(expected)
        if coarse is not None:
            assert self.coarse is not None
            embedded = embedded + self.coarse(compress(coarse.clamp(-1, 1)))
        return embedded

    def band_inputs(self, skips: Tensor) -> Tensor:
        """Summed skips (..., K) -> what each band's distribution begins from, (..., M, W)."""
        scaled = skips * len(self.layers) ** -0.5
        return self.hidden(F.relu(scaled)).unflatten(-1, (self.n_bands, -1))

    def band_logits(self, inputs: Tensor, band: int, expected: Tensor | None) -> Tensor:
        """Logits (..., L) of a band, to which a parabola around what is expected is added.

        Args:
            inputs: (..., W) of the band, to which `told_lower` was added.
            band: from 0, the lowest.
            expected: (..., M).
        """
        hidden = F.relu(inputs)
        part = slice(band * N_LEVELS, (band + 1) * N_LEVELS)
        logits = F.linear(hidden, self.logits.weight[part], self.logits.bias[part])
        if expected is None:
            return logits
        with torch.autocast(inputs.device.type, enabled=False):
            part = slice(band, band + 1)
            weight, bias = self.sharpness.weight[part], self.sharpness.bias[part]
            square = F.linear(hidden.float(), weight, bias).square()
            sharpness = square / (1 + square / SHARPEST)
            scale = torch.linspace(-1, 1, N_LEVELS, device=inputs.device)
            parabola = torch.stack([2 * scale, -scale.square()])
            factors = torch.cat([sharpness * expected[..., part], sharpness], dim=-1)
            return logits + factors @ parabola

    def told_lower(self, levels: Tensor, band: int) -> Tensor:
        """Levels (...) of a band -> what is added to the inputs of all higher ones, (..., W)."""
        assert self.lower is not None
        told: Tensor = self.lower(levels + band * N_LEVELS)
        return told

    def forward(
        self,
        levels: Tensor,
        condition: Condition,
        told: Tensor | None = None,
    ) -> Tensor:
        """Teacher forcing: logits (B, S, M, L) of every sample given the true samples before it.

        Args:
            levels: (B, S, M) int64 of `to_levels`, what is to be predicted.
            condition: `informed`, of N codes.
            told: what it is told that they were; `levels` when None.
        """
        told = levels if told is None else told
        heard, coarse = self._heard(condition)
        expected = None
        if self.prediction is not None:
            expected = self.prediction(told, heard, coarse)
        x = self.embed(F.pad(told, (0, 0, 1, -1), value=SILENCE), expected, coarse)
        skips: Tensor | float = 0.0
        for layer in self.layers:
            x, skip = layer(x, heard)
            skips = skips + skip
        assert isinstance(skips, Tensor)
        inputs, lower, logits = self.band_inputs(skips).unbind(-2), skips.new_zeros(()), []
        for band, own in enumerate(inputs):
            logits.append(self.band_logits(own + lower, band, expected))
            if band < self.n_bands - 1:
                lower = lower + self.told_lower(told[..., band], band)
        return torch.stack(logits, dim=-2)

    def prediction_error(self, levels: Tensor, condition: Condition) -> Tensor:
        """How far the filter is on average from what comes, on the scale of mu-law.

        Its own loss, or the filter becomes anything that helps the layers at once (end-to-end
        LPCNet, Subramani et al. 2022, arXiv 2202.11301, section 3.3); arguments are those of
        `forward`.
        """
        assert self.prediction is not None
        expected = self.prediction(levels, *self._heard(condition))
        return F.l1_loss(expected, compress(self.prediction.heard(levels)))

    def _heard(self, condition: Condition) -> tuple[Tensor, Tensor | None]:
        """`informed` -> what the layers are told, (B, N, H), and `windows`."""
        heard, coarse = self.split(self.per_code(condition))
        return heard, None if coarse is None else self.windows(coarse)

    def to_levels(self, waveform: Tensor) -> Tensor:
        """Waveform (B, S * M), normalised level -> mu-law levels (B, S, M) int64 in [0, 256)."""
        return mu_law_encode(self.bands(waveform).clamp(-1, 1))

    def bands(self, waveform: Tensor) -> Tensor:
        """Waveform (B, S * M), normalised level -> its pre-emphasised bands (B, S, M)."""
        scaled = waveform * OUTPUT_GAIN
        emphasized = scaled - self.config.pre_emphasis * F.pad(scaled, (1, -1))
        analysis = self.get_buffer("analysis")
        ahead = F.pad(emphasized[:, None], (0, analysis.shape[-1] - 1))
        with torch.autocast(waveform.device.type, enabled=False):
            bands = F.conv1d(ahead, analysis[:, None], stride=self.n_bands)
        return bands.transpose(1, 2)
