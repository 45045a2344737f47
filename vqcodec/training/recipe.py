"""Recipes of codecs and of priors: what a training is told, checked as a whole."""

from __future__ import annotations

import importlib.resources
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from vqcodec.data.data_config import AugmentationConfig, DataConfig, PerturbationConfig, PoolConfig
from vqcodec.models import AUTOREGRESSIVE, DecoderName
from vqcodec.models.config import (
    Count,
    Fraction,
    ModelConfig,
    Positive,
    PriorConfig,
    Section,
    Weight,
)
from vqcodec.models.loss_config import LONGEST_WINDOW, PERIODICITY_SECONDS, STOI_SECONDS, LossConfig

CODEC_FILE = "model.safetensors"  # in a recipe's output


def packaged_recipes() -> dict[str, Path]:
    """Names and paths of the recipes that are installed with vqcodec."""
    folder = Path(str(importlib.resources.files("vqcodec.recipes")))
    return {path.name: path for path in sorted(folder.glob("*.yaml"))}


class AdversarialConfig(Section):
    """Discriminators that the fast decoder learns to please (training/adversary.py).

    Begun before the spectral losses have flattened, it makes speech worse: begin late, when the
    learning rate is low, with a small weight, and judge by evaluation. From `start_step` on the
    newest model is kept, not the one of least spectral distance.

    Attributes:
        weight: of the decoder's hinge loss; 0 trains no discriminators.
        feature_matching: weight of the distance between their hidden layers.
        start_step: optimiser step of the first round.
        learning_rate: of the discriminators, constant.
        channels: width of the discriminators.
    """

    weight: Weight = 0.0
    feature_matching: Weight = 0.1
    start_step: Count = 0
    learning_rate: Annotated[float, Field(gt=0)] = 1e-4
    channels: Positive = 32


class OptimizerConfig(Section):
    """AdamW with a linear warm-up and a cosine decay to `final_learning_rate`.

    Attributes:
        learning_rate: at the end of the warm-up.
        final_learning_rate: at the recipe's last step.
        warmup_steps: in which the rate rises from nothing, linearly.
        betas: of Adam's moving averages.
        weight_decay: of AdamW, in shares of the learning rate.
        gradient_clip: largest norm of the gradient.
        average_decay: of the moving average of the weights, which is what is validated and kept.
    """

    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    final_learning_rate: Annotated[float, Field(ge=0)] = 2e-5
    warmup_steps: Count = 200
    betas: tuple[Fraction, Fraction] = (0.9, 0.98)
    weight_decay: Weight = 0.01
    gradient_clip: Annotated[float, Field(gt=0)] = 1.0
    average_decay: Annotated[float, Field(ge=0, lt=1)] = 0.999


class EntropyCoderConfig(Section):
    """What the entropy coder is fitted to once the codes are trained (training/entropy_coder.py).

    Attributes:
        hours: Of the training split, encoded twice; 0 fits none, and files have packed bits.
        steps: Of 1,024 codes.
    """

    hours: Weight = 0.0
    steps: Positive = 16_000


class RunConfig(Section):
    """What every training has.

    Attributes:
        output: folder of the run: checkpoints, TensorBoard logs, the model.
        steps: optimiser steps; the learning rate reaches its end there.
        max_minutes: stop (resumably) after this time.
        validate_every: steps; where validation is better than before, the model is written.
        checkpoint_every: steps, after which the state is written that `--resume` begins from.
        log_every: steps.
        precision: of matrix products; everything delicate stays in float32. `auto` is bfloat16
            on a device that is built for it, which others emulate at a hundredth of their speed.
    """

    output: str = "runs/model"
    seed: Count = 0
    steps: Positive = 400_000
    max_minutes: Annotated[float, Field(gt=0)] | None = None
    validate_every: Positive = 2000
    checkpoint_every: Positive = 1000
    log_every: Positive = 50
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    optimizer: OptimizerConfig = OptimizerConfig()


class Recipe(RunConfig):
    """A whole training of a codec.

    Attributes:
        stage: `codec` trains encoder, quantizer, speaker and the decoders that make a waveform in
            one pass; the name of a decoder trains that one on the frozen codes of `initial_model`;
            `encoder` trains its encoder and speaker encoder for its codebook and fast decoder,
            which stay, so that existing files keep their meaning; `joint` trains all at once.
        initial_model: a model file or packaged model to start from; what the recipe leaves open
            of `model` is as it has it.
        unquantized_steps: steps before the codebook is started by k-means (quantizer `vq`; the
            others have one from the first step).
        compile: the networks, by torch.compile.
        entropy_coder: what it is fitted to, by stages that train codes.
    """

    stage: Literal["codec", "joint", "encoder", DecoderName] = "codec"
    initial_model: str | None = None
    unquantized_steps: Count = 300
    compile: bool = False
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    loss: LossConfig = LossConfig()
    perturbation: PerturbationConfig = PerturbationConfig()
    augmentation: AugmentationConfig = AugmentationConfig()
    adversarial: AdversarialConfig = AdversarialConfig()
    entropy_coder: EntropyCoderConfig = EntropyCoderConfig()

    @property
    def freezes_codes(self) -> bool:
        """Whether only a decoder is trained, so that codes stay."""
        return self.freezes_codebook and self.stage != "encoder"

    @property
    def freezes_codebook(self) -> bool:
        """Whether codes keep their meaning, and files their model."""
        return self.stage not in ("codec", "joint")

    @property
    def fits_entropy_coder(self) -> bool:
        """Whether there are new codes at the end, and tables for them are wanted."""
        return self.entropy_coder.hours > 0 and not self.freezes_codebook

    @property
    def trained_decoders(self) -> tuple[DecoderName, ...]:
        """Those that are trained."""
        if self.stage == "codec":
            return tuple(name for name in self.model.decoders if name not in AUTOREGRESSIVE)
        return tuple(name for name in self.model.decoders if self.stage in ("joint", name))

    @property
    def trains_waveforms(self) -> bool:
        """Whether the losses of what a decoder makes in one pass count."""
        return self.stage == "encoder" or not set(self.trained_decoders) <= set(AUTOREGRESSIVE)

    @model_validator(mode="after")
    def _parts_fit(self) -> Recipe:
        faults = []
        needed = {"codec": "fast", "encoder": "fast", "joint": "wavenet"}
        wanted = needed.get(self.stage, self.stage)
        has_other = self.stage == "codec" and self.trained_decoders
        if wanted not in self.model.decoders and not has_other:
            faults.append(f"stage {self.stage} trains model.{wanted}, but that is null")
        if self.freezes_codebook and self.initial_model is None:
            faults.append(f"stage {self.stage} needs initial_model: a trained codec to build on")
        parts = self.model.quantizer.kind, self.model.speaker.kind
        if self.stage == "encoder" and parts != ("vq", "encoder"):
            faults.append(
                "stage encoder needs the quantizer vq and a speaker encoder, not "
                f"{' and '.join(parts)}: train the whole with stage codec"
            )
        if self.data.codes is not None and not self.freezes_codes:
            faults.append(
                f"data.codes would change their meaning at stage {self.stage}: leave it out"
            )
        has_voices = self.model.fast is not None and self.model.speaker.kind == "encoder"
        if self.perturbation.conversion and not (self.freezes_codes and has_voices):
            faults.append(
                "perturbation.conversion needs frozen codes, a fast decoder and a speaker encoder: "
                "leave it out"
            )
        is_converted = self.freezes_codes and has_voices and self.model.pitch is not None
        if self.loss.hears_conversions and not (is_converted and self.data.batch_size > 1):
            faults.append(
                "loss.conversion_pitch and conversion_timbre need frozen codes, a fast decoder, "
                "a speaker encoder, model.pitch and two segments a batch: leave them out"
            )
        told = self.perturbation
        melody = told.mean_hz, told.contour_scale != (1.0, 1.0), told.drift_semitones
        if told.probability and any(melody) and self.model.pitch is None:
            faults.append(
                "perturbation.mean_hz, contour_scale and drift_semitones need model.pitch: add "
                "pitch: {} to the model, or leave them out"
            )
        starts_late = self.initial_model is None and self.model.quantizer.kind == "vq"
        if starts_late and self.steps <= self.unquantized_steps:
            faults.append(
                f"steps {self.steps} end before the codebook starts, after unquantized_steps "
                f"{self.unquantized_steps}"
            )
        faults += self._short_segments() + self._absent_filter()
        if self.adversarial.weight > 0:
            if self.stage == "encoder" or not self.trains_waveforms:
                faults.append("adversarial trains the fast decoder, which this stage does not")
            if self.adversarial.start_step >= self.steps:
                faults.append(
                    f"adversarial.start_step {self.adversarial.start_step} is not before the end, "
                    f"steps {self.steps}"
                )
        if faults:
            raise ValueError("; ".join(faults))
        return self

    def _absent_filter(self) -> list[str]:
        """Whether there is a loss of the WaveNet's filter, but no filter."""
        wavenet = self.model.wavenet
        if not self.loss.prediction or wavenet is None or "wavenet" not in self.trained_decoders:
            return []
        is_open = "prediction_order" not in wavenet.model_fields_set
        if wavenet.prediction_order or (self.initial_model is not None and is_open):
            return []
        return [
            "loss.prediction teaches the WaveNet's filter, and model.wavenet.prediction_order 0 "
            "gives it none: set that to 8, say, or loss.prediction to 0"
        ]

    def _short_segments(self) -> list[str]:
        """Which losses listen to more than a segment."""
        faults = []
        n_samples = self.data.segment_length * self.model.hop_length
        if n_samples < LONGEST_WINDOW:
            faults.append(
                f"data.segment_length {self.data.segment_length} makes segments of {n_samples} "
                f"samples, shorter than the losses' longest window, {LONGEST_WINDOW}"
            )
        for name, seconds in (("stoi", STOI_SECONDS), ("periodicity", PERIODICITY_SECONDS)):
            is_short = n_samples < seconds * self.model.sample_rate
            if getattr(self.loss, name) and self.trains_waveforms and is_short:
                faults.append(
                    f"loss.{name} listens to {seconds} s at a time, more than the {n_samples} "
                    f"samples of data.segment_length {self.data.segment_length}: lengthen it"
                )
        return faults


class PriorDataConfig(PoolConfig):
    """What is trained on; a source that was not prepared is one of codes.

    Attributes:
        batch_size: segments of one optimiser step, over all processes.
        segment_length: codes in a segment; over `model.context`, or its sliding is not learned.
        speaker_dropout: share of segments that do not say who speaks.
    """

    batch_size: Positive = 8
    segment_length: Positive = 512
    speaker_dropout: Fraction = 0.1


class PriorRecipe(RunConfig):
    """A whole training of a prior.

    Attributes:
        codec: the packaged model or model file whose codes are learned.
        initial_prior: a prior file to start from, of this codec or of one that it was trained
            further from, whose codes mean much the same.
    """

    stage: Literal["prior"] = "prior"
    output: str = "runs/prior"
    codec: str = "speech-1k"
    initial_prior: str | None = None
    data: PriorDataConfig = PriorDataConfig()
    model: PriorConfig = PriorConfig()
