"""What every training does around its steps."""

from __future__ import annotations

import math
import time
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import torch
import torch.distributed as dist
from torch.utils.tensorboard import SummaryWriter

from vqcodec.errors import ConfigError, VqcodecError
from vqcodec.training.config import RunConfig
from vqcodec.training.distributed import Processes

UNVALIDATED = (
    "no validation split: validated is what was trained on, and the model that is kept may know it "
    "by heart; give speakers ten recordings or more, or a manifest.csv with a split valid"
)


def check_state(output: Path, state: Path, *, resume: bool) -> None:
    """Refuse to begin where a run lies, and to continue where none does.

    Args:
        output: folder of the run.
        state: the file in it that resuming reads.
        resume: whether a run is to be continued.

    Raises:
        ConfigError: with the remedy.
    """
    if resume and not state.exists():
        raise ConfigError(f"{output}: holds no run to continue; start without --resume")
    if not resume and state.exists():
        raise ConfigError(
            f"{output}: already holds a run; continue it with --resume, or choose another "
            "output=FOLDER"
        )


def summary_writer(output: Path, place: Processes, step: int) -> SummaryWriter | None:
    """TensorBoard's, on the first process; what a broken run logged beyond `step` is hidden."""
    if place.rank > 0:
        return None
    return SummaryWriter(str(output / "logs"), purge_step=step + 1)


def is_late(recipe: RunConfig, place: Processes, started: float) -> bool:
    """Whether `recipe.max_minutes` are over, by the first process's monotonic clock (seconds)."""
    if recipe.max_minutes is None:
        return False
    is_over = time.monotonic() - started > recipe.max_minutes * 60
    late = torch.tensor(is_over, device=place.device)
    if place.world_size > 1:
        dist.broadcast(late, 0)
    return bool(late)


def autocast(recipe: RunConfig, place: Processes) -> AbstractContextManager[object]:
    """In which the recipe's matrix products have its precision."""
    if recipe.precision == "float32":
        return nullcontext()
    return torch.autocast(place.device.type, torch.bfloat16)


def check_finite(values: list[float], output: Path, step: int) -> None:
    """Stop a training that has broken down.

    Raises:
        VqcodecError: a loss is infinite or NaN.
    """
    if not all(map(math.isfinite, values)):
        raise VqcodecError(
            f"{output}: the loss is not finite at step {step}; continue from the "
            "last checkpoint with --resume and a lower optimizer.learning_rate"
        )


def learning_rate(recipe: RunConfig, step: int) -> float:
    """Linear warm-up, then a cosine to the final rate at the recipe's last step."""
    schedule = recipe.optimizer
    if step < schedule.warmup_steps:
        return schedule.learning_rate * (step + 1) / schedule.warmup_steps
    progress = (step - schedule.warmup_steps) / max(1, recipe.steps - schedule.warmup_steps)
    cosine = 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))
    final = schedule.final_learning_rate
    return final + (schedule.learning_rate - final) * cosine
