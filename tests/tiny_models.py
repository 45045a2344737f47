"""Models that take milliseconds, of random weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch

from vqcodec.models.config import ModelConfig
from vqcodec.models.vqvae import VQVAE
from vqcodec.weights import checkpoint

TINY = {
    "encoder": {"channels": 16, "code_channels": 32, "n_filters": 16},
    "fast": {"channels": 32, "n_layers": 2},
    "wavenet": {
        "n_stacks": 1,
        "layers_per_stack": 4,
        "residual_channels": 8,
        "skip_channels": 16,
        "condition_channels": 16,
    },
}


def save_tiny_model(
    path: Path, *, seed: int, provenance: Mapping[str, Any] = MappingProxyType({})
) -> None:
    """A model file with random weights and the voices p225 and anna."""
    torch.manual_seed(seed)
    model = VQVAE(ModelConfig.model_validate(TINY))
    model.quantizer.initialized.fill_(True)
    rng = np.random.default_rng(seed)
    voices = {name: rng.integers(-60, 61, 64).astype(np.int8) for name in ("p225", "anna")}
    checkpoint.save(path, model, voices, provenance)
