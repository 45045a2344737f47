"""The scale of mu-law in torch: samples to levels; back by the table of models/mu_law.py.

Reference: the mu-law of ITU-T G.711 with mu = 255, as the curve and not in its segments.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vqcodec.models.mu_law import N_LEVELS


def compress(samples: Tensor) -> Tensor:
    """Samples in [-1, 1] on the scale of mu-law, from -1 to 1."""
    mu = torch.tensor(N_LEVELS - 1.0)
    # Its sign has no gradient, but the whole has one at 0.
    signed = torch.where(samples < 0, -1.0, 1.0)
    return signed * (mu * samples * signed).log1p() / mu.log1p()


def mu_law_encode(waveform: Tensor) -> Tensor:
    """Samples in [-1, 1] -> levels int64 in [0, 256), of which 128 is 0.0.

    To the bit torchaudio's `mu_law_encoding`.
    """
    return ((compress(waveform) + 1) / 2 * (N_LEVELS - 1) + 0.5).long()
