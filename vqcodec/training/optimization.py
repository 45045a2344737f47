"""How weights follow the gradient: the learning rate, the optimiser and the moving average."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from vqcodec.training.recipe import OptimizerConfig, RunConfig


def make_optimizer(
    trained: nn.Module, config: OptimizerConfig, param_groups: Sequence[dict[str, Any]]
) -> torch.optim.Optimizer:
    """AdamW for the parameters of a module that are trained, and for further groups of them."""
    own = {"params": [p for p in trained.parameters() if p.requires_grad]}
    return torch.optim.AdamW(
        [own, *param_groups],
        lr=config.learning_rate,
        betas=config.betas,
        weight_decay=config.weight_decay,
        fused=True,
    )


def make_average(trained: nn.Module, decay: float) -> AveragedModel:
    """The exponential moving average of a module: floating-point tensors; the rest is copied."""
    update = get_ema_multi_avg_fn(decay)

    def average(averaged: Sequence[Tensor], newest: Sequence[Tensor], n_averaged: Any) -> None:
        if averaged[0].is_floating_point():
            update(averaged, newest, n_averaged)
        else:
            for old, new in zip(averaged, newest, strict=True):
                old.copy_(new)

    # The averaged encoder is understood by the averaged codebook, not by the newest.
    return AveragedModel(trained, multi_avg_fn=average, use_buffers=True)


def learning_rate(recipe: RunConfig, step: int) -> float:
    """Linear warm-up, then a cosine to the final rate at the recipe's last step."""
    schedule = recipe.optimizer
    if step < schedule.warmup_steps:
        return schedule.learning_rate * (step + 1) / schedule.warmup_steps
    progress = (step - schedule.warmup_steps) / max(1, recipe.steps - schedule.warmup_steps)
    cosine = 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))
    final = schedule.final_learning_rate
    return final + (schedule.learning_rate - final) * cosine
