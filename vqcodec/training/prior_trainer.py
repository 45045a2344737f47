"""The training of a prior on the codes of a trained codec."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn

import vqcodec
from vqcodec import prior
from vqcodec.data.prepared import PreparedData
from vqcodec.errors import CheckpointError, DataError
from vqcodec.models.code_transformer import CodeTransformer
from vqcodec.models.speaker_vector import from_int8
from vqcodec.training.loop import Report, Training
from vqcodec.training.prior_data import IGNORED, CodeBatch, CodedClip, CodeSampler, encode_clips
from vqcodec.training.recipe import PriorRecipe
from vqcodec.training.session import Processes, claim_output, join_processes
from vqcodec.training.streamed import (
    Sampler,
    StreamedSampler,
    StreamedSource,
    coded_pool,
    streamed_source,
)
from vqcodec.weights import prior_checkpoint

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

PATIENCE = 5  # validations without a better one, before the user is told


def train(
    recipe: PriorRecipe,
    *,
    device: str = "auto",
    resume: bool = False,
    on_report: Callable[[Report], None] = lambda report: None,
) -> Path:
    """`stages.train`, of a prior; returns the path of the prior file."""
    with join_processes(device) as place, claim_output(recipe, place):
        return PriorTrainer(recipe, place, on_report).run(resume)


class PriorTrainer(Training[CodeBatch]):
    """State and steps of one training."""

    MODEL_FILE = "prior.safetensors"
    PROGRESS = (*Training.PROGRESS, "best_step")
    recipe: PriorRecipe

    def __init__(
        self, recipe: PriorRecipe, place: Processes, on_report: Callable[[Report], None]
    ) -> None:
        super().__init__(recipe, recipe.data.batch_size, place, on_report)
        source = self.source = streamed_source(recipe.data.root)
        codec = vqcodec.load(recipe.codec, device=place.device.type, voices=False)
        self.fingerprint, codebook_size = codec.fingerprint, codec.config.quantizer.codebook_size
        torch.manual_seed(recipe.seed)
        self.model = self._initial_model(codec).to(place.device)
        config, seed = recipe.data, recipe.seed
        trained, valid = (
            self._clips(codec)
            if source is None
            else self._pool(source, source.first_parts(config, seed))
        )
        self.validation = valid or trained
        self.is_validated = bool(valid)
        codes = np.concatenate([clip.codes for clip in trained])
        self.histogram = np.bincount(codes, minlength=codebook_size)
        held = [clip.codes for clip in self.validation]
        self.data_digest = hashlib.sha256(np.concatenate([codes, *held]).tobytes()).hexdigest()
        self.sampler: Sampler[CodeBatch] = (
            self._sampler(trained)
            if source is None
            else StreamedSampler(
                *(source.n_drawn, config, seed),
                lambda parts: self._sampler(self._pool(source, parts)[0]),
            )
        )
        self._start(self.model)
        self.forward = self._distribute(self.model)
        self.best_step = 0
        self.corpus = recipe.data.root if source else PreparedData(recipe.data.root).corpus

    def _summary(self) -> str:
        config = self.recipe.data
        return (
            f"{self.histogram.sum():,} codes of {self.recipe.codec}, batches of "
            f"{config.batch_size} segments of {config.segment_length}"
        )

    def _initial_model(self, codec: vqcodec.Codec) -> CodeTransformer:
        config, codebook_size = self.recipe.model, codec.config.quantizer.codebook_size
        model = CodeTransformer(config, codebook_size)
        path = self.recipe.initial_prior
        if path is None:
            every_code = torch.arange(codebook_size, device=codec.device)
            model.start_from(codec.model.latents(every_code[None, None])[0].T.cpu())
            return model
        start = prior_checkpoint.read(path).model
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
        data = PreparedData(self.recipe.data.root)
        train, valid = data.split("train"), data.split("valid")
        if not train:
            raise DataError(
                f"{self.recipe.data.root}: no training clips; prepare a corpus that has some"
            )
        store = self.output / f"codes-{codec.fingerprint.hex()}.safetensors"
        if self.place.rank > 0:
            dist.barrier()
        coded = encode_clips(codec, data, [*train, *valid], store)
        if self.place.rank == 0 and self.place.world_size > 1:
            dist.barrier()
        return coded[: len(train)], coded[len(train) :]

    def _pool(
        self, source: StreamedSource, parts: Sequence[int]
    ) -> tuple[list[CodedClip], list[CodedClip]]:
        """Those to train on and those to validate on, of some parts of a data set of codes."""
        coded = coded_pool(source, parts, self.fingerprint)
        if not coded["train"]:
            raise DataError(
                f"{self.recipe.data.root}: holds no codes to train on; vqcodec encode-dataset "
                "makes them"
            )
        return coded["train"], coded["valid"]

    def _sampler(self, clips: list[CodedClip]) -> CodeSampler:
        recipe = self.recipe
        return CodeSampler(clips, recipe.data, begin=self.model.begin, seed=recipe.seed)

    def _batches(self) -> Iterator[CodeBatch]:
        for step in range(self.step, self.recipe.steps):
            yield self.sampler.batch(step, self.place.rank, self.place.world_size)

    def _train_step(self, batch: CodeBatch) -> dict[str, float]:
        batch = batch.to(self.place.device)
        with self._autocast():
            logits = self.forward(batch.previous, batch.speaker)
        nats = F.cross_entropy(
            logits.float().flatten(0, 1),
            batch.codes.flatten(),
            ignore_index=IGNORED,
            reduction="sum",
        )
        total = self._sum(torch.stack([nats.detach(), (batch.codes != IGNORED).sum()]))
        # Gradients are averaged over the processes, whose shares of the codes differ.
        self._optimizer_step(nats * self.place.world_size / total[1])
        return {"bits_per_code": (total[0] / total[1]).item() / math.log(2)}

    def _validate(self, writer: SummaryWriter | None, ends: Callable[[], bool]) -> float | None:
        model, place = cast(CodeTransformer, self.average.module).eval(), self.place
        total = torch.zeros(2, dtype=torch.float64, device=place.device)
        typical = torch.zeros(prior.N_BINS, dtype=torch.int64, device=place.device)
        for first in range(0, len(self.validation), place.world_size):
            if ends():
                return None
            if first + place.rank >= len(self.validation):
                break
            clip = self.validation[first + place.rank]
            codes = torch.from_numpy(clip.codes).to(place.device)
            speaker = torch.from_numpy(from_int8(clip.vector)).to(place.device)
            own = model.bits(codes, speaker)
            total += torch.stack([own.double().sum(), own.new_tensor(len(own))])
            typical += torch.from_numpy(prior.binned(own.cpu().numpy())).to(place.device)
        all_bits, n_codes = self._sum(total).tolist()
        self._sum(typical)
        bits = all_bits / n_codes
        if writer:
            writer.add_scalar("validation/bits_per_code", bits, self.step)
        if bits < self.best:
            self.best, self.best_step = bits, self.step
            if place.rank == 0:
                self._write(model, typical.cpu().numpy())
        return bits

    def _write(self, model: CodeTransformer, typical: np.ndarray) -> None:
        provenance = {
            "corpus": self.corpus,
            "steps": self.step,
            "validation_bits_per_code": round(self.best, 4),
            "recipe": self.recipe.model_dump(mode="json"),
            "torch": torch.__version__,
        }
        prior_checkpoint.save(
            self.output / self.MODEL_FILE,
            model,
            self.histogram,
            typical=typical,
            fingerprint=self.fingerprint,
            provenance=provenance,
        )

    def _usage_and_warning(self) -> tuple[None, str | None]:
        if self.step - self.best_step < PATIENCE * self.recipe.validate_every:
            return None, None
        return None, (
            f"the prior learns its data by heart: validation was best, {self.best:.3f} bits, at "
            f"step {self.best_step}, and that prior is kept; stop here, or begin again with more "
            "data or a higher model.dropout"
        )

    def _modules(self) -> dict[str, nn.Module]:
        return {"model": self.model, "average": self.average}
