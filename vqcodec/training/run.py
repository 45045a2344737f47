"""What every training has around its steps: the loop, the optimiser, stopping and resuming."""

from __future__ import annotations

import ctypes
import logging
import math
import statistics
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.tensorboard import SummaryWriter

from vqcodec.decoding import multiplies_bfloat16
from vqcodec.errors import ConfigError, VqcodecError
from vqcodec.training.config import RunConfig
from vqcodec.training.distributed import Processes
from vqcodec.training.monitor import CodebookUsage
from vqcodec.training.state import load_state, save_state

logger = logging.getLogger(__name__)

STATE_FILE = "last.safetensors"
UNVALIDATED = (
    "no validation split: validated is what was trained on, and the model that is kept may know it "
    "by heart; give speakers ten recordings or more, or a manifest.csv with a split valid"
)

BatchT = TypeVar("BatchT")


class Report(NamedTuple):
    """What a training tells its caller now and then.

    Attributes:
        step: optimiser steps done.
        steps: of the recipe.
        losses: mean of each loss since the last report.
        usage: of the codebook since the last report; None of a prior.
        validation: the validation loss, at the steps that computed it.
        warning: one line for the user, or None.
    """

    step: int
    steps: int
    losses: dict[str, float]
    usage: CodebookUsage | None
    validation: float | None
    warning: str | None


class Training(ABC, Generic[BatchT]):
    """State and loop of one training; its steps are a subclass's.

    Args:
        recipe: what to train.
        batch_size: of the recipe, over all processes.
        place: this process.
        on_report: called every `log_every` steps and after a validation, on the first process.

    Attributes:
        trained: what the optimiser changes first of all; its moving average is kept.
        unvalidated: told after every validation, where there is nothing fit to validate on.
    """

    MODEL_FILE: ClassVar[str]
    PROGRESS: ClassVar[tuple[str, ...]] = ("step", "best")
    trained: nn.Module
    unvalidated: str | None

    def __init__(
        self,
        recipe: RunConfig,
        batch_size: int,
        place: Processes,
        on_report: Callable[[Report], None],
    ) -> None:
        if batch_size % place.world_size:
            raise ConfigError(
                f"data.batch_size {batch_size} cannot be shared evenly by "
                f"{place.world_size} processes: make it a multiple"
            )
        self.recipe, self.place, self.on_report = recipe, place, on_report
        self.output = Path(recipe.output)
        self.step, self.best = 0, math.inf

    @abstractmethod
    def _batches(self) -> Iterable[BatchT]:
        """This process's batches from `self.step` to the recipe's last."""

    @abstractmethod
    def _train_step(self, batch: BatchT) -> dict[str, float]:
        """One step by `_optimizer_step`; returns its losses, as means over processes."""

    @abstractmethod
    def _validate(self, writer: SummaryWriter | None) -> float:
        """Loss of the averaged weights; the best model is written."""

    @abstractmethod
    def _usage_and_warning(self) -> tuple[CodebookUsage | None, str | None]:
        """Of the steps since the last report: usage of the codebook, and a warning."""

    @abstractmethod
    def _modules(self) -> dict[str, nn.Module]:
        """By name, what a resumed run needs."""

    def _start(self, trained: nn.Module, param_groups: Sequence[dict[str, Any]] = ()) -> None:
        """Begin the moving average and the optimiser.

        Args:
            trained: what follows the recipe's learning rate.
            param_groups: more for the optimiser, each with a learning rate of its own.
        """
        schedule = self.recipe.optimizer
        self.trained = trained
        # The averaged encoder is understood by the averaged codebook, not by the newest.
        self.average = AveragedModel(
            trained, multi_avg_fn=_moving_average(schedule.average_decay), use_buffers=True
        )
        own = {"params": [p for p in trained.parameters() if p.requires_grad]}
        self.optimizer = torch.optim.AdamW(
            [own, *param_groups],
            lr=schedule.learning_rate,
            betas=schedule.betas,
            weight_decay=schedule.weight_decay,
            fused=True,
        )

    def run(self, resume: bool) -> Path:
        """Train until the recipe's steps or time are over.

        Args:
            resume: continue the run in `recipe.output` exactly where it stopped.

        Returns:
            Path of the model file: the best by validation.

        Raises:
            ConfigError: a run lies there that is not to be continued, or there is none.
            CheckpointError: its state is damaged or of another recipe.
            VqcodecError: the loss is no longer finite.
        """
        recipe, state = self.recipe, self.output / STATE_FILE
        if not resume and state.exists():
            raise ConfigError(
                f"{self.output}: already holds a run; continue it with --resume, or choose another "
                "output=FOLDER"
            )
        if resume and not state.exists():
            raise ConfigError(f"{self.output}: holds no run to continue; start without --resume")
        if resume:
            self._load(state)
        started = time.monotonic()
        writer = None
        if self.place.rank == 0:
            # What a broken run logged beyond the step is hidden.
            writer = SummaryWriter(str(self.output / "logs"), purge_step=self.step + 1)
        recent: list[dict[str, float]] = []
        self.trained.train()
        for batch in self._batches():
            # Every step seeds itself, so that a resumed run draws the noise of an unbroken one.
            torch.manual_seed(recipe.seed * 1_000_003 + self.step)
            recent.append(self._train_step(batch))
            self._check_finite(recent[-1])
            is_last = self._is_late(started) or self.step == recipe.steps
            validation = None
            if is_last or self.step % recipe.validate_every == 0:
                validation = self._validate(writer)
            if validation is not None or self.step % recipe.log_every == 0:
                self._report(mean(recent), validation, writer)
                recent = []
            if is_last or self.step % recipe.checkpoint_every == 0:
                self._save(state)
            if is_last:
                break
        if writer:
            writer.close()
        return self.output / self.MODEL_FILE

    def _optimizer_step(self, loss: Tensor) -> None:
        """A step of the optimiser against the gradient of `loss`, and of the average after it."""
        self.optimizer.param_groups[0]["lr"] = learning_rate(self.recipe, self.step)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        for group in self.optimizer.param_groups:
            nn.utils.clip_grad_norm_(group["params"], self.recipe.optimizer.gradient_clip)
        self.optimizer.step()
        self.average.update_parameters(self.trained)
        self.step += 1

    def _autocast(self) -> AbstractContextManager[object]:
        """In which matrix products have the recipe's precision."""
        precision, device = self.recipe.precision, self.place.device
        is_bfloat16 = precision == "bfloat16" or (
            precision == "auto" and multiplies_bfloat16(device)
        )
        return torch.autocast(device.type, torch.bfloat16, enabled=is_bfloat16)

    def _check_finite(self, losses: dict[str, float]) -> None:
        if not all(map(math.isfinite, losses.values())):
            raise VqcodecError(
                f"{self.output}: the loss is not finite at step {self.step}; continue from the "
                "last checkpoint with --resume and a lower optimizer.learning_rate"
            )

    def _is_late(self, started: float) -> bool:
        """Whether `max_minutes` are over, by the first process's monotonic clock (seconds)."""
        if self.recipe.max_minutes is None:
            return False
        is_over = time.monotonic() - started > self.recipe.max_minutes * 60
        late = torch.tensor(is_over, device=self.place.device)
        if self.place.world_size > 1:
            dist.broadcast(late, 0)
        return bool(late)

    def _report(
        self, losses: dict[str, float], validation: float | None, writer: SummaryWriter | None
    ) -> None:
        usage, warning = self._usage_and_warning()
        if writer is None:
            return
        for name, value in losses.items():
            writer.add_scalar(f"train/{name}", value, self.step)
        if usage is not None:
            writer.add_scalar("codebook/perplexity", usage.perplexity, self.step)
            writer.add_scalar("codebook/used", usage.used, self.step)
        if validation is not None:
            warning = warning or self.unvalidated
        self.on_report(Report(self.step, self.recipe.steps, losses, usage, validation, warning))

    def _save(self, path: Path) -> None:
        if self.place.rank == 0:
            progress = {name: getattr(self, name) for name in self.PROGRESS}
            save_state(path, self._modules(), self.optimizer, progress)

    def _load(self, path: Path) -> None:
        progress = load_state(path, self._modules(), self.optimizer)
        for name in self.PROGRESS:
            setattr(self, name, progress[name])


def keep_freed_memory() -> None:
    """Tell glibc not to hand freed tensors back to the kernel.

    Their page faults would otherwise take most of the time of training on a CPU.
    """
    try:
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(-4, 0)  # M_MMAP_MAX
        libc.mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD
    except (OSError, AttributeError):
        logger.debug("no glibc: memory settings left alone")


def learning_rate(recipe: RunConfig, step: int) -> float:
    """Linear warm-up, then a cosine to the final rate at the recipe's last step."""
    schedule = recipe.optimizer
    if step < schedule.warmup_steps:
        return schedule.learning_rate * (step + 1) / schedule.warmup_steps
    progress = (step - schedule.warmup_steps) / max(1, recipe.steps - schedule.warmup_steps)
    cosine = 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))
    final = schedule.final_learning_rate
    return final + (schedule.learning_rate - final) * cosine


def mean(values: Sequence[dict[str, float]]) -> dict[str, float]:
    """Of every loss, over the steps that had it."""
    return {
        name: statistics.fmean(value[name] for value in values if name in value)
        for name in values[-1]
    }


def _moving_average(decay: float) -> Callable[[Any, Any, Any], None]:
    """The exponential moving average of floating-point tensors; integers and flags are copied."""
    update = get_ema_multi_avg_fn(decay)

    def average(averaged: list[Tensor], newest: list[Tensor], n_averaged: Any) -> None:
        if averaged[0].is_floating_point():
            update(averaged, newest, n_averaged)
        else:
            for old, new in zip(averaged, newest, strict=True):
                old.copy_(new)

    return average
