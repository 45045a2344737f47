"""Small priors with random weights, for tests of the network and of what is built on it."""

from __future__ import annotations

import torch

from vqcodec.models.code_transformer import CodeTransformer
from vqcodec.models.config import PriorConfig

SMALL = PriorConfig(channels=32, n_layers=2, n_heads=2, context=12, dropout=0.1)


def transformer(config: PriorConfig, codebook_size: int) -> CodeTransformer:
    """Random weights, so large that every code seen matters to the next."""
    torch.manual_seed(0)
    made = CodeTransformer(config, codebook_size).eval().requires_grad_(False)
    for name, parameter in made.named_parameters():
        if parameter.dim() == 2:
            parameter.normal_(std=0.05 if name.startswith("speaker") else 0.5)
    return made
