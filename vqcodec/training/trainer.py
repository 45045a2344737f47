"""The training loop: the same for every stage, device and number of processes."""

from __future__ import annotations

import ctypes
import logging
import math
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.tensorboard import SummaryWriter

from vqcodec.checkpoint import MEANING
from vqcodec.data.dataset import Batch, SegmentSampler, resident_audio, speaker_names
from vqcodec.data.prepared import Clip, PreparedData
from vqcodec.errors import ConfigError, DataError
from vqcodec.models.quantizer import VectorQuantizer
from vqcodec.training.adversary import AdversarialLosses, Adversary
from vqcodec.training.config import PerturbationConfig, Recipe
from vqcodec.training.distributed import Processes, processes
from vqcodec.training.examples import add_example
from vqcodec.training.model_files import initial_model, write_model
from vqcodec.training.monitor import CodebookUsage, CollapseMonitor
from vqcodec.training.objective import Losses, Objective
from vqcodec.training.run import (
    UNVALIDATED,
    autocast,
    check_finite,
    check_state,
    is_late,
    learning_rate,
    summary_writer,
)
from vqcodec.training.state import load_state, save_state

logger = logging.getLogger(__name__)

KMEANS_VECTORS_PER_CODE = 25
SETTLING_STEPS = 200  # after its start, before the codebook is judged
VALIDATION_BATCHES = 16
STATE_FILE, MODEL_FILE = "last.safetensors", "model.safetensors"


class Report(NamedTuple):
    """What `train` tells its caller now and then.

    Attributes:
        step: optimiser steps done.
        steps: of the recipe.
        losses: mean of each loss since the last report.
        usage: of the codebook since the last report.
        validation: the validation loss, at the steps that computed it.
        warning: one line for the user, or None.
    """

    step: int
    steps: int
    losses: dict[str, float]
    usage: CodebookUsage
    validation: float | None
    warning: str | None


def train(
    recipe: Recipe,
    *,
    device: str = "auto",
    resume: bool = False,
    on_report: Callable[[Report], None] = lambda report: None,
) -> Path:
    """Train to the end of the recipe, or of its time.

    Args:
        recipe: what to train.
        device: `auto`, `cpu` or `cuda`. Under torchrun, one process per device.
        resume: continue the run in `recipe.output` exactly where it stopped.
        on_report: called every `log_every` steps and after a validation, on the first process.

    Returns:
        Path of the model file: the best by validation. It does not exist yet if the time was over
        before the codebook started.

    Raises:
        ConfigError, DataError, CheckpointError: with a remedy.
        VqcodecError: the loss is no longer finite.
    """
    keep_freed_memory()
    with processes(device) as place:
        return Trainer(recipe, place, on_report).run(resume)


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


class Trainer:
    """State and steps of one training.

    Args:
        recipe: what to train.
        place: this process.
        on_report: see `train`.
    """

    def __init__(
        self, recipe: Recipe, place: Processes, on_report: Callable[[Report], None]
    ) -> None:
        if recipe.data.batch_size % place.world_size:
            raise ConfigError(
                f"data.batch_size {recipe.data.batch_size} cannot be shared evenly by "
                f"{place.world_size} processes: make it a multiple"
            )
        self.recipe, self.place, self.on_report = recipe, place, on_report
        self.output = Path(recipe.output)
        data = PreparedData(recipe.data.root)
        if data.sample_rate != recipe.model.sample_rate:
            raise DataError(
                f"{recipe.data.root}: prepared at {data.sample_rate} Hz, the recipe wants "
                f"{recipe.model.sample_rate} Hz: prepare again with --sample-rate"
            )
        self.data = data
        self.resident = resident_audio(data, place.device, recipe.data.resident)
        clips = data.split("train")
        self.speakers = speaker_names(clips)
        self.sampler = self._sampler(clips, recipe.perturbation, recipe.seed)
        # An unseen speaker has no row in a table.
        valid = [clip for clip in data.split("valid") if clip.speaker in set(self.speakers)]
        self.unvalidated = None if valid else UNVALIDATED
        undisguised = PerturbationConfig(probability=0.0)
        self.validation = self._sampler(valid or clips, undisguised, seed=1)
        torch.manual_seed(recipe.seed)
        model = initial_model(recipe, self.speakers)
        self.objective = Objective(model, recipe).to(place.device)
        if recipe.compile:
            self.objective.compile_parts()
        # The averaged encoder is understood by the averaged codebook, not by the newest.
        self.average = AveragedModel(
            self.objective,
            multi_avg_fn=_moving_average(recipe.optimizer.average_decay),
            use_buffers=True,
        )
        groups = [{"params": [p for p in self.objective.parameters() if p.requires_grad]}]
        self.adversary = None
        if recipe.adversarial.weight > 0:
            self.adversary = Adversary(recipe.adversarial).to(place.device)
            groups.append({"params": list(self.adversary.parameters())})
        self.optimizer = torch.optim.AdamW(
            groups,
            lr=recipe.optimizer.learning_rate,
            betas=recipe.optimizer.betas,
            weight_decay=recipe.optimizer.weight_decay,
            fused=True,
        )
        self.forward: Callable[[Batch], Losses] = self._wrapped(self.objective)
        self.play: Callable[..., AdversarialLosses] | None = (
            self._wrapped(self.adversary) if self.adversary else None
        )
        self.monitor = CollapseMonitor(
            recipe.model.quantizer.codebook_size, recipe.model.quantizer.n_codebooks
        )
        self.step, self.best = 0, math.inf

    def _sampler(
        self, clips: list[Clip], perturbation: PerturbationConfig, seed: int
    ) -> SegmentSampler:
        return SegmentSampler(
            self.data,
            clips,
            self.recipe.data,
            speakers=self.speakers,
            hop_length=self.recipe.model.hop_length,
            perturbation=perturbation,
            seed=seed,
            resident=self.resident,
        )

    def _wrapped(self, module: nn.Module) -> Callable[..., Any]:
        if self.place.world_size > 1:
            learned_codebook = self.recipe.model.quantizer.codebook_update == "loss"
            module = DistributedDataParallel(
                module, broadcast_buffers=False, find_unused_parameters=learned_codebook
            )
        return module

    def run(self, resume: bool) -> Path:
        """Train until the recipe's steps or time are over."""
        recipe, place = self.recipe, self.place
        state = self.output / STATE_FILE
        check_state(self.output, state, resume=resume)
        if resume:
            self._load(state)
        started = time.monotonic()
        writer = summary_writer(self.output, place, self.step)
        recent: list[dict[str, float]] = []
        self.objective.train()
        steps = range(self.step, recipe.steps)
        for batch in self.sampler.batches(steps, place.rank, place.world_size):
            self._start_codebook_when_due()
            recent.append(self._train_step(batch))
            is_last = is_late(recipe, place, started) or self.step == recipe.steps
            validation = None
            if is_last or self.step % recipe.validate_every == 0:
                validation = self._validate(writer)
            if validation is not None or self.step % recipe.log_every == 0:
                self._report(_mean(recent), validation, writer)
                recent = []
            if is_last or self.step % recipe.checkpoint_every == 0:
                self._save(state)
            if is_last:
                break
        if writer:
            writer.close()
        return self.output / MODEL_FILE

    def _train_step(self, batch: Batch) -> dict[str, float]:
        recipe = self.recipe
        rates = learning_rate(recipe, self.step), recipe.adversarial.learning_rate
        for group, rate in zip(self.optimizer.param_groups, rates, strict=False):
            group["lr"] = rate
        # Every step seeds itself, so that a resumed run draws the noise of an unbroken one.
        torch.manual_seed(recipe.seed * 1_000_003 + self.step)
        batch = batch.to(self.place.device)
        with autocast(self.recipe, self.place):
            losses = self.forward(batch)
            total, scalars = losses.total, losses.scalars()
            if self.play is not None and self._is_adversarial():
                assert losses.decoded is not None
                game = self.play(losses.decoded, batch.waveform)
                total = total + game.total
                scalars |= game.scalars()
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()
        for group in self.optimizer.param_groups:
            nn.utils.clip_grad_norm_(group["params"], recipe.optimizer.gradient_clip)
        self.optimizer.step()
        self.average.update_parameters(self.objective)
        self.monitor.update(losses.indices)
        self.step += 1
        values = self._values(scalars)
        check_finite(list(values.values()), self.output, self.step)
        return values

    def _is_adversarial(self) -> bool:
        adversarial = self.recipe.adversarial
        return adversarial.weight > 0 and self.step >= adversarial.start_step

    def _values(self, scalars: dict[str, torch.Tensor]) -> dict[str, float]:
        """Each loss, as the mean over processes."""
        values = torch.stack(list(scalars.values()))
        if self.place.world_size > 1:
            dist.all_reduce(values)
            values /= self.place.world_size
        return dict(zip(scalars, values.tolist(), strict=True))

    @torch.no_grad()
    def _start_codebook_when_due(self) -> None:
        model, place = self.objective.model, self.place
        quantizer = model.quantizer
        if not isinstance(quantizer, VectorQuantizer) or bool(quantizer.initialized):
            return
        if self.step < self.recipe.unquantized_steps:
            return
        wanted = KMEANS_VECTORS_PER_CODE * self.recipe.model.quantizer.codebook_size
        vectors: list[torch.Tensor] = []
        step = self.step
        model.eval()
        while sum(map(len, vectors)) < wanted:
            # Whole batches, of which every process gives a part: in the order of one process.
            batch = self.sampler.batch(step)
            latents = model.norm(model.encoder(batch.waveform.to(place.device)))
            vectors.append(quantizer.project(latents).flatten(0, 1))
            step += 1
        quantizer.initialize(torch.cat(vectors).chunk(place.world_size)[place.rank])
        self.objective.train()
        self.average.n_averaged.zero_()  # begins anew: what came before knew no codebook

    @torch.no_grad()
    def _validate(self, writer: SummaryWriter | None) -> float:
        """Loss of the averaged weights on fixed segments; the best model is written."""
        objective, place = cast(Objective, self.average.module).eval(), self.place
        if self.recipe.freezes_codes:
            # Averaging makes 0.0 of -0.0: another fingerprint.
            frozen = self.objective.model.state_dict()
            codes = {name: frozen[name] for name in frozen if name.startswith(MEANING)}
            objective.model.load_state_dict(codes, strict=False)
        indices = range(VALIDATION_BATCHES)
        values = []
        for batch in self.validation.batches(indices, place.rank, place.world_size):
            with autocast(self.recipe, self.place):
                values.append(self._values(objective(batch.to(place.device)).scalars()))
        losses = _mean(values)
        loss = losses["total"]
        quantizer = objective.model.quantizer
        started = not isinstance(quantizer, VectorQuantizer) or bool(quantizer.initialized)
        if writer:
            for name, value in losses.items():
                writer.add_scalar(f"validation/{name}", value, self.step)
            add_example(writer, objective, self.validation.batch(0).to(place.device), self.step)
        # Spectral distances do not see what discriminators improve: the newest model is kept.
        if started and (loss < self.best or self._is_adversarial()):
            self.best = loss
            if place.rank == 0:
                write_model(
                    self.output / MODEL_FILE,
                    objective.model,
                    self.recipe,
                    self.data,
                    place.device,
                    steps=self.step,
                    validation_loss=loss,
                )
        return loss

    def _report(
        self, losses: dict[str, float], validation: float | None, writer: SummaryWriter | None
    ) -> None:
        usage = self.monitor.usage()
        if writer is None:
            return
        for name, value in losses.items():
            writer.add_scalar(f"train/{name}", value, self.step)
        writer.add_scalar("codebook/perplexity", usage.perplexity, self.step)
        writer.add_scalar("codebook/used", usage.used, self.step)
        settled = self.step >= self.recipe.unquantized_steps + SETTLING_STEPS
        warning = self.monitor.warning(usage) if settled else None
        if validation is not None:
            warning = warning or self.unvalidated
        self.on_report(Report(self.step, self.recipe.steps, losses, usage, validation, warning))

    def _modules(self) -> dict[str, nn.Module]:
        modules: dict[str, nn.Module] = {"objective": self.objective, "average": self.average}
        return modules | ({"adversary": self.adversary} if self.adversary else {})

    def _save(self, path: Path) -> None:
        if self.place.rank == 0:
            progress = {"step": self.step, "best": self.best}
            save_state(path, self._modules(), self.optimizer, progress)

    def _load(self, path: Path) -> None:
        progress = load_state(path, self._modules(), self.optimizer)
        self.step, self.best = progress["step"], progress["best"]


def _moving_average(decay: float) -> Callable[[Any, Any, Any], None]:
    """The exponential moving average of floating-point tensors; integers and flags are copied."""
    update = get_ema_multi_avg_fn(decay)

    def average(averaged: list[torch.Tensor], newest: list[torch.Tensor], n_averaged: Any) -> None:
        if averaged[0].is_floating_point():
            update(averaged, newest, n_averaged)
        else:
            for old, new in zip(averaged, newest, strict=True):
                old.copy_(new)

    return average


def _mean(values: Sequence[dict[str, float]]) -> dict[str, float]:
    """Of every loss, over the steps that had it."""
    return {
        name: statistics.fmean(value[name] for value in values if name in value)
        for name in values[-1]
    }
