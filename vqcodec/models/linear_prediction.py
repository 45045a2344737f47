"""What is known of the next step without a network: a linear filter, set anew for every code.

As in LPCNet (Valin and Skoglund 2019, arXiv 1810.11846), but the filter is learned (end-to-end
LPCNet, Subramani et al. 2022, arXiv 2202.11301), and it also looks at the coarse waveform.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vqcodec.models.companding import compress
from vqcodec.models.config import WaveNetConfig
from vqcodec.models.mu_law import SAMPLES


class LinearPrediction(nn.Module):
    """What a linear filter, set anew for every code, expects of the next step.

    It has an order J and looks at P coarse steps, and predicts each of M bands from all.
    """

    def __init__(self, config: WaveNetConfig) -> None:
        super().__init__()
        self.order, self.n_bands = config.prediction_order, config.n_bands
        n_steps = self.order + config.coarse_steps
        self.filter = nn.Linear(config.condition_channels, n_steps * self.n_bands**2)
        nn.init.zeros_(self.filter.weight)
        nn.init.zeros_(self.filter.bias)
        self.register_buffer("samples", torch.from_numpy(SAMPLES), persistent=False)

    def taps(self, condition: Tensor) -> Tensor:
        """Condition (..., H) -> (..., M * (J + P), M): latest steps, then coarse ones."""
        taps: Tensor = self.filter(condition)
        return taps.unflatten(-1, (-1, self.n_bands))

    def expect(self, past: Tensor, taps: Tensor) -> Tensor:
        """Samples (..., n, M * (J + P)) of n steps -> (..., n, M) on the scale of mu-law."""
        with torch.autocast(past.device.type, enabled=False):
            return compress((past @ taps.float()).clamp(-1, 1))

    def heard(self, levels: Tensor) -> Tensor:
        """Levels -> the samples that they stand for."""
        return self.get_buffer("samples")[levels]

    def forward(self, levels: Tensor, condition: Tensor, coarse: Tensor | None) -> Tensor:
        """What was expected of every step, (B, S, M).

        Args:
            levels: (B, S, M) told.
            condition: (B, N, H).
            coarse: (B, S, P * M) of `WaveNet.windows`, if P is not 0.
        """
        heard = self.heard(levels)
        samples = F.pad(heard, (0, 0, self.order, -1))
        past = samples.unfold(1, self.order, 1).transpose(2, 3).flatten(2)
        if coarse is not None:
            past = torch.cat([past, coarse], dim=-1)
        of_codes = past.unflatten(1, (condition.shape[1], -1))
        return self.expect(of_codes, self.taps(condition)).flatten(1, 2)
