"""The training of a prior on the codes of a trained codec."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.tensorboard import SummaryWriter

import vqcodec
from vqcodec import prior
from vqcodec.data.prepared import PreparedData
from vqcodec.errors import CheckpointError, ConfigError, DataError
from vqcodec.models.prior import CodeTransformer
from vqcodec.models.speaker import from_int8
from vqcodec.training.distributed import Processes, processes
from vqcodec.training.prior_config import PriorRecipe
from vqcodec.training.prior_data import IGNORED, CodeBatch, CodedClip, CodeSampler, coded_clips
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
from vqcodec.training.trainer import STATE_FILE, keep_freed_memory

PRIOR_FILE = "prior.safetensors"
PATIENCE = 5  # validations without a better one, before the user is told


class Report(NamedTuple):
    """What `train` tells its caller now and then.

    Attributes:
        step: optimiser steps done.
        steps: of the recipe.
        bits: per code of the segments since the last report.
        validation: bits per code of the validation clips, at the steps that computed it.
        warning: one line for the user, or None.
    """

    step: int
    steps: int
    bits: float
    validation: float | None
    warning: str | None


def train(
    recipe: PriorRecipe,
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
        Path of the prior file: the best by validation.

    Raises:
        ConfigError, DataError, CheckpointError: with a remedy.
        VqcodecError: the loss is no longer finite.
    """
    keep_freed_memory()
    with processes(device) as place:
        return PriorTrainer(recipe, place, on_report).run(resume)


class PriorTrainer:
    """State and steps of one training.

    Args:
        recipe: what to train.
        place: this process.
        on_report: see `train`.
    """

    def __init__(
        self, recipe: PriorRecipe, place: Processes, on_report: Callable[[Report], None]
    ) -> None:
        if recipe.data.batch_size % place.world_size:
            raise ConfigError(
                f"data.batch_size {recipe.data.batch_size} cannot be shared evenly by "
                f"{place.world_size} processes: make it a multiple"
            )
        self.recipe, self.place, self.on_report = recipe, place, on_report
        self.output = Path(recipe.output)
        self.data = PreparedData(recipe.data.root)
        codec = vqcodec.load(recipe.codec, device=place.device.type)
        self.fingerprint, codebook_size = codec.fingerprint, codec.config.quantizer.codebook_size
        trained, self.validation = self._clips(codec)
        self.unvalidated = None if self.data.split("valid") else UNVALIDATED
        codes = np.concatenate([clip.codes for clip in trained])
        self.histogram = np.bincount(codes, minlength=codebook_size)
        torch.manual_seed(recipe.seed)
        self.model = self._initial_model(codec).to(place.device)
        self.sampler = CodeSampler(trained, recipe.data, begin=self.model.begin, seed=recipe.seed)
        decay = recipe.optimizer.average_decay
        self.average = AveragedModel(self.model, multi_avg_fn=get_ema_multi_avg_fn(decay))
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(),
            lr=recipe.optimizer.learning_rate,
            betas=recipe.optimizer.betas,
            weight_decay=recipe.optimizer.weight_decay,
            fused=True,
        )
        self.forward: nn.Module = (
            DistributedDataParallel(self.model) if place.world_size > 1 else self.model
        )
        self.step, self.best, self.best_step = 0, math.inf, 0

    def _initial_model(self, codec: vqcodec.Codec) -> CodeTransformer:
        config, codebook_size = self.recipe.model, codec.config.quantizer.codebook_size
        model = CodeTransformer(config, codebook_size)
        path = self.recipe.initial_prior
        if path is None:
            every_code = torch.arange(codebook_size, device=codec.device)
            model.start_from(codec.model.latents(every_code[None, None])[0].T.cpu())
            return model
        start = prior.read(path).model
        dropout = {"dropout": config.dropout}
        shape = start.config.model_copy(update=dropout), start.codebook_size
        if shape != (config, codebook_size):
            raise CheckpointError(
                f"{path}: does not fit the recipe's model or the {codebook_size} codes of "
                f"{codec.name}: use the model section that it was trained with"
            )
        model.load_state_dict(start.state_dict())
        return model

    def _clips(self, codec: vqcodec.Codec) -> tuple[list[CodedClip], list[CodedClip]]:
        """Those to train on and those to validate on; the first process encodes them."""
        train, valid = self.data.split("train"), self.data.split("valid")
        if not train:
            raise DataError(
                f"{self.recipe.data.root}: no training clips; prepare a corpus that has some"
            )
        store = self.output / f"codes-{codec.fingerprint.hex()}.safetensors"
        if self.place.rank > 0:
            dist.barrier()
        coded = coded_clips(codec, self.data, [*train, *valid], store)
        if self.place.rank == 0 and self.place.world_size > 1:
            dist.barrier()
        return coded[: len(train)], coded[len(train) :] or coded

    def run(self, resume: bool) -> Path:
        """Train until the recipe's steps or time are over."""
        recipe, place = self.recipe, self.place
        state = self.output / STATE_FILE
        check_state(self.output, state, resume=resume)
        if resume:
            self._load(state)
        started = time.monotonic()
        writer = summary_writer(self.output, place, self.step)
        recent: list[float] = []
        self.model.train()
        for step in range(self.step, recipe.steps):
            batch = self.sampler.batch(step, place.rank, place.world_size)
            recent.append(self._train_step(batch.to(place.device)))
            is_last = is_late(recipe, place, started) or self.step == recipe.steps
            validation = None
            if is_last or self.step % recipe.validate_every == 0:
                validation = self._validate()
            if validation is not None or self.step % recipe.log_every == 0:
                self._report(math.fsum(recent) / len(recent), validation, writer)
                recent = []
            if is_last or self.step % recipe.checkpoint_every == 0:
                self._save(state)
            if is_last:
                break
        if writer:
            writer.close()
        return self.output / PRIOR_FILE

    def _train_step(self, batch: CodeBatch) -> float:
        """One step of the optimiser; returns bits per code."""
        recipe, place = self.recipe, self.place
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(recipe, self.step)
        # Every step seeds itself, so that a resumed run draws the dropout of an unbroken one.
        torch.manual_seed(recipe.seed * 1_000_003 + self.step)
        with autocast(self.recipe, self.place):
            logits = self.forward(batch.previous, batch.speaker)
        nats = F.cross_entropy(
            logits.float().flatten(0, 1),
            batch.codes.flatten(),
            ignore_index=IGNORED,
            reduction="sum",
        )
        total = self._summed(torch.stack([nats.detach(), (batch.codes != IGNORED).sum()]))
        self.optimizer.zero_grad(set_to_none=True)
        # Gradients are averaged over the processes, whose shares of the codes differ.
        (nats * place.world_size / total[1]).backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), recipe.optimizer.gradient_clip)
        self.optimizer.step()
        self.average.update_parameters(self.model)
        self.step += 1
        bits = (total[0] / total[1]).item() / math.log(2)
        check_finite([bits], self.output, self.step)
        return bits

    def _summed(self, values: Tensor) -> Tensor:
        """The sum over processes."""
        if self.place.world_size > 1:
            dist.all_reduce(values)
        return values

    def _validate(self) -> float:
        """Bits per code of the averaged weights on whole clips; the best prior is written."""
        model, place = cast(CodeTransformer, self.average.module).eval(), self.place
        total = torch.zeros(2, dtype=torch.float64, device=place.device)
        typical = torch.zeros(prior.N_BINS, dtype=torch.int64, device=place.device)
        for clip in self.validation[place.rank :: place.world_size]:
            codes = torch.from_numpy(clip.codes).to(place.device)
            speaker = torch.from_numpy(from_int8(clip.vector)).to(place.device)
            own = model.bits(codes, speaker)
            total += torch.stack([own.double().sum(), own.new_tensor(len(own))])
            typical += torch.from_numpy(prior.binned(own.cpu().numpy())).to(place.device)
        all_bits, n_codes = self._summed(total).tolist()
        self._summed(typical)
        bits = all_bits / n_codes
        if bits < self.best:
            self.best, self.best_step = bits, self.step
            if place.rank == 0:
                self._write(model, typical.cpu().numpy())
        return bits

    def _write(self, model: CodeTransformer, typical: np.ndarray) -> None:
        provenance = {
            "corpus": self.data.corpus,
            "steps": self.step,
            "validation_bits_per_code": round(self.best, 4),
            "recipe": self.recipe.model_dump(mode="json"),
            "torch": torch.__version__,
        }
        prior.save(
            self.output / PRIOR_FILE,
            model,
            self.histogram,
            typical=typical,
            fingerprint=self.fingerprint,
            provenance=provenance,
        )

    def _report(self, bits: float, validation: float | None, writer: SummaryWriter | None) -> None:
        if writer is None:
            return
        writer.add_scalar("train/bits_per_code", bits, self.step)
        if validation is not None:
            writer.add_scalar("validation/bits_per_code", validation, self.step)
        warning = self._warning() or (None if validation is None else self.unvalidated)
        self.on_report(Report(self.step, self.recipe.steps, bits, validation, warning))

    def _warning(self) -> str | None:
        if self.step - self.best_step < PATIENCE * self.recipe.validate_every:
            return None
        return (
            f"the prior learns its data by heart: validation was best, {self.best:.3f} bits, at "
            f"step {self.best_step}, and that prior is kept; stop here, or begin again with more "
            "data or a higher model.dropout"
        )

    def _modules(self) -> dict[str, nn.Module]:
        return {"model": self.model, "average": self.average}

    def _save(self, path: Path) -> None:
        if self.place.rank == 0:
            progress = {"step": self.step, "best": self.best, "best_step": self.best_step}
            save_state(path, self._modules(), self.optimizer, progress)

    def _load(self, path: Path) -> None:
        progress = load_state(path, self._modules(), self.optimizer)
        self.step, self.best = progress["step"], progress["best"]
        self.best_step = progress["best_step"]
