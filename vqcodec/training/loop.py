"""What every training has around its steps: the loop, the optimiser, stopping and resuming."""

from __future__ import annotations

import logging
import math
import statistics
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, NamedTuple, NoReturn, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from vqcodec.errors import CheckpointError, ConfigError, VqcodecError
from vqcodec.extras import library
from vqcodec.inference.engines.pytorch import multiplies_bfloat16
from vqcodec.models.codebook_usage import CodebookUsage
from vqcodec.training.optimization import learning_rate, make_average, make_optimizer
from vqcodec.training.recipe import RunConfig
from vqcodec.training.recipe_files import differences
from vqcodec.training.session import Processes, catch_signals
from vqcodec.training.state import read_state, restore, save_state

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

logger = logging.getLogger(__name__)

STATE_FILE = "last.safetensors"
UNVALIDATED = (
    "nothing to validate on: the model is validated on what it was trained on, which it may know "
    "by heart; prepare a corpus whose manifest.csv puts recordings of the same speakers into "
    "split valid"
)
# In a resumed run, without a word: when it stops, how it is watched and where it runs.
MAY_CHANGE = {
    *("max_minutes", "validate_every", "checkpoint_every", "log_every", "precision"),
    *("compile", "data.root", "data.codes", "data.workers", "data.resident"),
}

BatchT = TypeVar("BatchT")


class Report(NamedTuple):
    """What a training tells its caller now and then.

    Attributes:
        step, steps: optimiser steps done, and of the recipe.
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

    `on_report` is called on the first process every `log_every` steps and after a validation.

    Attributes:
        trained: what the optimiser changes first of all; its moving average is kept.
        is_validated: whether there is something fit to validate on.
        owes_validation: whether that of the last step was broken off, or did not begin.
        data_digest: tells what is trained and validated on from other data.
        is_followed: whether more is to be done after the last step.
    """

    MODEL_FILE: ClassVar[str]
    PROGRESS: ClassVar[tuple[str, ...]] = ("step", "best", "owes_validation")
    trained: nn.Module
    is_validated: bool
    data_digest: str
    is_followed: bool = False

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
        self.step, self.best, self.owes_validation = 0, math.inf, False

    @abstractmethod
    def _batches(self) -> Iterable[BatchT]:
        """This process's batches from `self.step` to the recipe's last."""

    @abstractmethod
    def _train_step(self, batch: BatchT) -> dict[str, float]:
        """One step by `_optimizer_step`; returns its losses, as means over processes."""

    @abstractmethod
    def _validate(self, writer: SummaryWriter | None, ends: Callable[[], bool]) -> float | None:
        """Loss of the averaged weights; the best model is written.

        None if it `ends` before, which all processes ask together, batch by batch.
        """

    @abstractmethod
    def _usage_and_warning(self) -> tuple[CodebookUsage | None, str | None]:
        """Of the steps since the last report: usage of the codebook, and a warning."""

    @abstractmethod
    def _modules(self) -> dict[str, nn.Module]:
        """By name, what a resumed run needs."""

    def _start(self, trained: nn.Module, param_groups: Sequence[dict[str, Any]] = ()) -> None:
        """Begin the moving average and the optimiser of what follows the recipe's learning rate.

        Further groups of parameters have learning rates of their own.
        """
        self.trained = trained
        config = self.recipe.optimizer
        self.average = make_average(trained, config.average_decay)
        self.optimizer = make_optimizer(trained, config, param_groups)

    def _distribute(self, module: nn.Module, *, find_unused: bool = False) -> nn.Module:
        """The module, its gradients averaged over the processes if they are several."""
        if self.place.world_size == 1:
            return module
        return DistributedDataParallel(
            module, broadcast_buffers=False, find_unused_parameters=find_unused
        )

    @abstractmethod
    def _summary(self) -> str:
        """What is trained on, in a phrase."""

    def run(self, resume: bool) -> Path:
        """Train until the recipe's steps or time are over; returns the path of the best model.

        The best is that by validation. SIGINT and SIGTERM end it after the step, or the batch of a
        validation, that they meet, so that `resume` continues the run in `recipe.output` exactly
        where it stopped. So does the end of its time, but for the validation that follows it.

        Raises:
            ConfigError: a run lies there that is not to be continued, or there is none.
            CheckpointError: its state is damaged or of another recipe.
            VqcodecError: a gradient is no longer finite, or the device's memory is full.
            KeyboardInterrupt: it was told to end.
        """
        recipe, state = self.recipe, self.output / STATE_FILE
        tensorboard = library("torch.utils.tensorboard")
        if resume:
            self._load(state)
        else:
            check_is_new(self.output)
        limit = math.inf if recipe.max_minutes is None else 60 * recipe.max_minutes
        deadline = time.monotonic() + limit
        writer = None
        if self.place.rank == 0:
            self._announce()
            # What a broken run logged beyond the step is hidden.
            writer = tensorboard.SummaryWriter(str(self.output / "logs"), purge_step=self.step + 1)
        self.trained.train()
        with catch_signals() as is_told, closing(writer) if writer else nullcontext():
            finish = partial(self._finish_step, writer, deadline, is_told)
            recent: list[dict[str, float]] = []
            is_over = self.owes_validation and finish(recent)
            for batch in () if is_over else self._batches():
                # Every step seeds itself, so that a resumed run draws the noise of an unbroken one.
                torch.manual_seed(recipe.seed * 1_000_003 + self.step)
                recent.append(self._step_within_memory(batch))
                if finish(recent):
                    break
            if self.is_followed and self._agree(False, is_told())[1]:
                self._stop()
        return self.output / self.MODEL_FILE

    def _finish_step(
        self,
        writer: SummaryWriter | None,
        deadline: float,
        is_told: Callable[[], bool],
        recent: list[dict[str, float]],
    ) -> bool:
        """Validate, report and save where it is time to; returns whether the training is over.

        The losses of `recent` steps, none where a run begins with the validation that it owes, are
        gone from there when they have been reported. Raises KeyboardInterrupt if it is told to end.
        """

        def ends(deadline: float = deadline) -> Sequence[bool]:
            return self._agree(time.monotonic() > deadline, is_told())

        recipe, validation = self.recipe, None
        is_late, is_interrupted = ends()
        is_last = is_late or self.step >= recipe.steps
        self.owes_validation |= is_last or self.step % recipe.validate_every == 0
        if self.owes_validation and not is_interrupted:
            # No time ends the one that a run is to end with, nor the same one again and again.
            until = math.inf if is_last or not recent else deadline
            validation = self._validate(writer, lambda: any(ends(until)))
            self.owes_validation = validation is None
            is_late, is_interrupted = ends()
            is_last = is_last or is_late
        if recent and (is_last or validation is not None or self.step % recipe.log_every == 0):
            self._report(average_losses(recent), validation, writer)
            recent.clear()
        elif writer and validation is not None:
            logger.info("step %d, where the run stopped: validation %.3f", self.step, validation)
        if is_interrupted or is_last or self.step % recipe.checkpoint_every == 0:
            self._save(self.output / STATE_FILE)
        if is_interrupted and (self.owes_validation or not is_last):
            self._stop()
        return is_last

    def _stop(self) -> NoReturn:
        if self.place.rank == 0:
            logger.warning("stopped at step %d: --resume goes on from there", self.step)
        raise KeyboardInterrupt

    def _announce(self) -> None:
        """Log where, in which precision and on what it trains, and what seems wrong with that."""
        device, n_processes = self.place.device, self.place.world_size
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)
        among = f" ({n_processes} processes)" if n_processes > 1 else ""
        precision = "bfloat16" if self._is_bfloat16() else "float32"
        logger.info("training on %s%s in %s: %s", name, among, precision, self._summary())
        if self.recipe.precision == "bfloat16" and not multiplies_bfloat16(device):
            logger.warning(
                "precision bfloat16 is emulated on this %s, at down to a hundredth of the "
                "speed: use precision=auto",
                device.type,
            )
        if not self.is_validated and (self.owes_validation or self.step < self.recipe.steps):
            logger.warning(UNVALIDATED)
        if self._is_done():
            logger.warning("all %d steps are done: steps=N, with a larger N, goes on", self.step)

    def _is_done(self) -> bool:
        """Whether nothing of the recipe is left to do."""
        return self.step >= self.recipe.steps and not self.owes_validation

    def _step_within_memory(self, batch: BatchT) -> dict[str, float]:
        try:
            return self._train_step(batch)
        except torch.OutOfMemoryError:
            raise VqcodecError(
                f"{self.output}: the memory of {self.place.device} is full: lower data.batch_size "
                "or data.segment_length"
            ) from None

    def _optimizer_step(self, loss: Tensor) -> None:
        """A step of the optimiser against the gradient of `loss`, and of the average after it."""
        self.optimizer.param_groups[0]["lr"] = learning_rate(self.recipe, self.step)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        clip = self.recipe.optimizer.gradient_clip
        norms = [
            nn.utils.clip_grad_norm_(group["params"], clip).item()
            for group in self.optimizer.param_groups
        ]
        # Before it is in the weights, and in what a resumed run would begin from.
        if not all(map(math.isfinite, [loss.item(), *norms])):
            has_state = (self.output / STATE_FILE).exists()
            again = "go on from the last checkpoint with --resume" if has_state else "begin again"
            raise VqcodecError(
                f"{self.output}: the loss or its gradient is not finite at step {self.step + 1}; "
                f"{again}, with a lower optimizer.learning_rate"
            )
        self.optimizer.step()
        self.average.update_parameters(self.trained)
        self.step += 1

    def _is_bfloat16(self) -> bool:
        precision = self.recipe.precision
        return precision == "bfloat16" or (
            precision == "auto" and multiplies_bfloat16(self.place.device)
        )

    def _autocast(self) -> AbstractContextManager[object]:
        """In which matrix products have the recipe's precision."""
        device = self.place.device.type
        return torch.autocast(device, torch.bfloat16, enabled=self._is_bfloat16())

    def _sum(self, values: Tensor) -> Tensor:
        """The sum over processes, in place."""
        if self.place.world_size > 1:
            dist.all_reduce(values)
        return values

    def _agree(self, *flags: bool) -> Sequence[bool]:
        """Of each, whether it is true of any process."""
        n_processes = torch.tensor(flags, dtype=torch.float32, device=self.place.device)
        return (self._sum(n_processes) > 0).tolist()

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
        self.on_report(Report(self.step, self.recipe.steps, losses, usage, validation, warning))

    def _save(self, path: Path) -> None:
        if self.place.rank == 0:
            progress = {name: getattr(self, name) for name in self.PROGRESS}
            progress |= {"recipe": self._settings(), "data": self.data_digest}
            save_state(path, self._modules(), self.optimizer, progress)

    def _settings(self) -> dict[str, Any]:
        return self.recipe.model_dump(mode="json", exclude={"output"})

    def _load(self, path: Path) -> None:
        if not path.exists():
            raise ConfigError(f"{self.output}: holds no run to continue; start without --resume")
        state, now = read_state(path), self._settings()
        changes = differences(state.progress.get("recipe", now), now)  # older states do not have it
        odd = [told for key, told in changes.items() if key == "stage" or key.startswith("model.")]
        if odd:
            raise CheckpointError(
                f"{path}: belongs to another recipe ({'; '.join(odd)}): resume with the recipe it "
                "began with"
            )
        restore(path, state, self._modules(), self.optimizer)
        for name in state.progress.keys() & self.PROGRESS:  # older states have fewer
            setattr(self, name, state.progress[name])
        if self.step >= self.recipe.steps and not self.owes_validation:
            require_model(self.output / self.MODEL_FILE)
        has_other_data = state.progress.get("data", self.data_digest) != self.data_digest
        if has_other_data or any(key.startswith("loss.") for key in changes):
            self.best = math.inf  # of other recordings or losses
        if has_other_data and self.place.rank == 0:
            logger.warning(
                "resumed on other recordings: the next model that is validated takes the place of "
                "the best so far"
            )
        changes = {key: told for key, told in changes.items() if key not in MAY_CHANGE}
        if "steps" in changes:
            changes["steps"] += self._what_follows(state.progress["recipe"]["steps"])
        if changes and self.place.rank == 0:
            logger.warning("resumed with other settings: %s", "; ".join(changes.values()))

    def _what_follows(self, steps: int) -> str:
        """What it means for the learning rate that the run was to have so many steps."""
        before = self.recipe.model_copy(update={"steps": steps})
        was, now = (learning_rate(recipe, self.step) for recipe in (before, self.recipe))
        if was == now:
            return ""
        return f" (the learning rate goes on from {now:.1e}, where it would have been {was:.1e})"


def check_is_new(output: Path) -> None:
    """Raise a ConfigError if a run lies in its output folder."""
    if (output / STATE_FILE).exists():
        raise ConfigError(
            f"{output}: already holds a run; continue it with --resume, or choose another "
            "output=FOLDER"
        )


def require_model(path: Path) -> None:
    """Raise a ConfigError if a training whose steps are done has no model any more."""
    if not path.exists():
        raise ConfigError(
            f"{path}: is gone, and the steps that made it are done; restore it from a copy, or "
            "begin anew in another output=FOLDER"
        )


def average_losses(values: Sequence[dict[str, float]]) -> dict[str, float]:
    """Of every loss, over the steps that had it."""
    return {
        name: statistics.fmean(value[name] for value in values if name in value)
        for name in values[-1]
    }
