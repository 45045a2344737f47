"""What is known of the next step without a network: a linear filter, set anew for every code.

As in LPCNet (Valin and Skoglund 2019, arXiv 1810.11846), but the filter is learned (end-to-end
LPCNet, Subramani et al. 2022, arXiv 2202.11301), and it also looks at a period of the pitch ago.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vqcodec.models.companding import compress
from vqcodec.models.config import WaveNetConfig
from vqcodec.models.harmonics import period
from vqcodec.models.mu_law import SAMPLES


class LinearPrediction(nn.Module):
    """What a linear filter, set anew for every code, expects of the next step.

    It has an order J and P taps about a period ago, and predicts each of M bands from all.
    """

    def __init__(self, config: WaveNetConfig) -> None:
        super().__init__()
        self.order, self.pitch_taps = config.prediction_order, config.pitch_taps
        self.n_bands = config.n_bands
        n_steps = self.order + self.pitch_taps
        self.filter = nn.Linear(config.condition_channels, n_steps * self.n_bands**2)
        nn.init.zeros_(self.filter.weight)
        nn.init.zeros_(self.filter.bias)
        self.register_buffer("samples", torch.from_numpy(SAMPLES), persistent=False)

    def taps(self, condition: Tensor) -> Tensor:
        """Condition (..., H) -> (..., M * (J + P), M): latest steps, then those a period ago."""
        taps: Tensor = self.filter(condition)
        return taps.unflatten(-1, (-1, self.n_bands))

    def expect(self, past: Tensor, taps: Tensor) -> Tensor:
        """Samples (..., n, M * (J + P)) of n steps -> (..., n, M) on the scale of mu-law."""
        with torch.autocast(past.device.type, enabled=False):
            return compress((past @ taps.float()).clamp(-1, 1))

    def memory(self, samples: Tensor, frequency: Tensor | None) -> Tensor:
        """What the next step is expected from, (B, M * (J + P)).

        From the last steps (B, `memory_length`, M), and cycles per step (B,).
        """
        past = samples[:, len(samples[0]) - self.order :]
        if frequency is not None and self.pitch_taps:
            lags = period(frequency, self.pitch_taps)[:, None]
            offsets = torch.arange(self.pitch_taps, device=lags.device) - self.pitch_taps // 2
            places = (samples.shape[1] - lags + offsets).clamp(max=samples.shape[1] - 1)
            found = samples.gather(1, places[..., None].expand(-1, -1, self.n_bands))
            past = torch.cat([past, found * (lags > 0)[..., None]], dim=1)
        return past.flatten(1)

    def heard(self, levels: Tensor) -> Tensor:
        """Levels -> the samples that they stand for."""
        return self.get_buffer("samples")[levels]

    def forward(self, levels: Tensor, condition: Tensor, frequency: Tensor | None) -> Tensor:
        """What was expected of every step, (B, S, M).

        Args:
            levels: (B, S, M) told.
            condition: (B, N, H).
            frequency: (B, N) cycles per step, needed with taps about a period ago.
        """
        heard = self.heard(levels)
        samples = F.pad(heard, (0, 0, self.order, -1))
        past = samples.unfold(1, self.order, 1).transpose(2, 3).flatten(2)
        if frequency is not None and self.pitch_taps:
            past = torch.cat([past, self._period_ago(heard, frequency)], dim=-1)
        of_codes = past.unflatten(1, (condition.shape[1], -1))
        return self.expect(of_codes, self.taps(condition)).flatten(1, 2)

    def _period_ago(self, heard: Tensor, frequency: Tensor) -> Tensor:
        """Samples (B, S, M) and cycles per step (B, N) -> those a period ago, (B, S, P * M)."""
        n_steps, n_bands = heard.shape[1:]
        lags = period(frequency, self.pitch_taps).repeat_interleave(
            n_steps // frequency.shape[1], -1
        )
        offsets = torch.arange(self.pitch_taps, device=heard.device) - self.pitch_taps // 2
        places = torch.arange(n_steps, device=heard.device) - lags
        places = places[..., None] + offsets
        is_known = (lags > 0)[..., None] & (places >= 0)
        rows = places.clamp(0, n_steps - 1).flatten(1)[..., None].expand(-1, -1, n_bands)
        found = heard.gather(1, rows).unflatten(1, (n_steps, -1))
        return (found * is_known[..., None]).flatten(2)
