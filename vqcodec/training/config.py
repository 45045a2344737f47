"""Recipes: YAML files that become one frozen, validated `Recipe`."""

from __future__ import annotations

import difflib
import importlib.resources
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

from pydantic import Field, ValidationError, model_validator

from vqcodec.errors import ConfigError
from vqcodec.extras import library
from vqcodec.models.config import Fraction, ModelConfig, Positive, Section
from vqcodec.training.loss_config import (
    LONGEST_WINDOW,
    PERIODICITY_SECONDS,
    STOI_SECONDS,
    LossConfig,
    Weight,
)

if TYPE_CHECKING:
    import yaml
else:
    yaml = library("yaml")

Count = Annotated[int, Field(ge=0, lt=1 << 63)]
Probability = Annotated[float, Field(ge=0, le=1)]


class DataConfig(Section):
    """What is trained on: a folder that `vqcodec prepare` made.

    Attributes:
        root: the prepared folder.
        batch_size: segments of one optimiser step, over all processes.
        segment_length: codes in a segment.
        reference_s: seconds of the speaker encoder's reference clip.
        codes: a folder of code files of the recordings, such as `vqcodec encode CORPUS FOLDER
            --refine` writes, for stages that freeze codes: half of the segments are decoded from
            what it has for them, the others from what the encoder makes.
        workers: processes that make batches ahead, per training process; with 0 it makes its own.
        resident: keep the audio in the device's memory and make batches there; by default on a
            GPU, if it takes a quarter of the free memory at most.
    """

    root: str = "data/prepared"
    batch_size: Positive = 8
    segment_length: Positive = 64
    reference_s: Annotated[float, Field(ge=0.1)] = 2.0
    codes: str | None = None
    workers: Count = 0
    resident: bool | None = None


class PerturbationConfig(Section):
    """How the encoder's input is disguised, so that codes cannot hold the speaker.

    Attributes:
        probability: of disguising a segment.
        pitch_semitones: largest shift of pitch, up or down.
        formant_ratio: largest stretch of the spectral envelope, up or down (1 = none).
        conversion: probability of saying a segment in another speaker's voice instead, as the
            model itself then would, for stages that freeze codes: the decoder learns to give a
            voice to what another has said (back-translation, Sennrich et al. 2016, arXiv
            1511.06709). Validation does not see what it improves: the newest model is kept.
    """

    probability: Probability = 0.0
    pitch_semitones: Weight = 4.0
    formant_ratio: Annotated[float, Field(ge=1, le=2)] = 1.15
    conversion: Probability = 0.0


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
        stage: `codec` trains encoder, quantizer, speaker and fast decoder; `fast` and `wavenet`
            train that decoder on the frozen codes of `initial_model`; `joint` trains all at once.
        initial_model: a model file or packaged model to start from; what the recipe leaves open
            of `model` is as it has it.
        unquantized_steps: steps before the codebook is started by k-means (quantizer `vq`; the
            others have one from the first step).
        compile: the networks, by torch.compile.
    """

    stage: Literal["codec", "fast", "wavenet", "joint"] = "codec"
    initial_model: str | None = None
    unquantized_steps: Count = 300
    compile: bool = False
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    loss: LossConfig = LossConfig()
    perturbation: PerturbationConfig = PerturbationConfig()
    adversarial: AdversarialConfig = AdversarialConfig()

    @property
    def freezes_codes(self) -> bool:
        """Whether only a decoder is trained, so that codes keep their meaning."""
        return self.stage in ("fast", "wavenet")

    @property
    def trains_fast(self) -> bool:
        """Whether the fast decoder is trained, and so the losses of what it decodes count."""
        return self.stage != "wavenet" and self.model.fast is not None

    @model_validator(mode="after")
    def _parts_fit(self) -> Recipe:
        faults = []
        if self.stage in ("codec", "fast") and self.model.fast is None:
            faults.append(f"stage {self.stage} trains the fast decoder, but model.fast is null")
        if self.stage in ("wavenet", "joint") and self.model.wavenet is None:
            faults.append(f"stage {self.stage} trains a WaveNet, but model.wavenet is null")
        if self.freezes_codes and self.initial_model is None:
            faults.append(f"stage {self.stage} needs initial_model: a trained codec to build on")
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
        starts_late = self.initial_model is None and self.model.quantizer.kind == "vq"
        if starts_late and self.steps <= self.unquantized_steps:
            faults.append(
                f"steps {self.steps} end before the codebook starts, after unquantized_steps "
                f"{self.unquantized_steps}"
            )
        n_samples = self.data.segment_length * self.model.hop_length
        if n_samples < LONGEST_WINDOW:
            faults.append(
                f"data.segment_length {self.data.segment_length} makes segments of {n_samples} "
                f"samples, shorter than the losses' longest window, {LONGEST_WINDOW}"
            )
        for name, seconds in (("stoi", STOI_SECONDS), ("periodicity", PERIODICITY_SECONDS)):
            is_short = n_samples < seconds * self.model.sample_rate
            if getattr(self.loss, name) and self.trains_fast and is_short:
                faults.append(
                    f"loss.{name} listens to {seconds} s at a time, more than the {n_samples} "
                    f"samples of data.segment_length {self.data.segment_length}: lengthen it"
                )
        if self.adversarial.weight > 0:
            if not self.trains_fast:
                faults.append("adversarial trains the fast decoder, which this stage does not")
            if self.adversarial.start_step >= self.steps:
                faults.append(
                    f"adversarial.start_step {self.adversarial.start_step} is not before the end, "
                    f"steps {self.steps}"
                )
        if faults:
            raise ValueError("; ".join(faults))
        return self


Kind = TypeVar("Kind", bound=RunConfig)


def packaged_recipes() -> dict[str, Path]:
    """Names and paths of the recipes that are installed with vqcodec."""
    folder = Path(str(importlib.resources.files("vqcodec.recipes")))
    return {path.name: path for path in sorted(folder.glob("*.yaml"))}


def load_recipe(path: str | Path, overrides: list[str] | None = None) -> Recipe:
    """Read and check the recipe of a codec; see `read_recipe` and `validated`."""
    return validated(Recipe, path, read_recipe(path, overrides))


def read_recipe(path: str | Path, overrides: list[str] | None = None) -> dict[str, Any]:
    """Read a recipe of any stage, with `section.key=value` overrides, as it is written.

    A recipe may name another one with `base: NAME.yaml` and then states only what differs. Where
    neither NAME.yaml nor recipes/NAME.yaml exists, it is the packaged recipe of that name.

    Raises:
        ConfigError: no such recipe, one that cannot be read, or it or an override is not YAML.
    """
    tree = _read(Path(path))
    for override in overrides or []:
        key, separator, value = override.partition("=")
        if not separator:
            raise ConfigError(f"{override!r} is not an override: write key=value, as in steps=1000")
        branch = tree
        *sections, leaf = key.split(".")
        for section in sections:
            if branch.get(section) is None:  # perhaps the recipe's own null, for no such part
                branch[section] = {}
            branch = branch[section]
            if not isinstance(branch, dict):
                raise ConfigError(f"{override!r}: {section!r} has no keys of its own")
        try:
            branch[leaf] = _parsed(value)
        except ValueError as error:
            raise ConfigError(f"{override!r}: the value is not YAML ({error}); quote it") from None
    return tree


def validated(kind: type[Kind], path: str | Path, tree: dict[str, Any]) -> Kind:
    """What `read_recipe` read from `path` as a recipe of a kind.

    Raises:
        ConfigError: naming every unknown key (and the nearest known one) and impossible value.
    """
    try:
        return kind.model_validate(tree)
    except ValidationError as error:
        faults = "; ".join(_describe(error, kind))
        raise ConfigError(f"{path}: {' '.join(faults.split())}") from None


class _Loader(yaml.SafeLoader):
    """Refuses what a recipe has no use for.

    A key that a mapping has twice, of which YAML's own readers keep the last, and aliases: nested,
    a few lines of them mean billions of values.
    """

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            alias = self.get_event()
            fault = f"the alias *{alias.anchor}: write out what it stands for"
            raise yaml.composer.ComposerError(None, None, fault, alias.start_mark)
        return super().compose_node(parent, index)

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            value = super().construct_object(node, deep)
            if isinstance(value, int):
                str(value)  # which Python refuses of thousands of digits, and messages do
            return value
        # What PyYAML lets through of values that are not what their form or their tag says.
        except (ValueError, LookupError, AttributeError, TypeError):
            fault = f"{str(node.value)[:40]!r} is no {node.tag.rpartition(':')[2]}"
            raise yaml.constructor.ConstructorError(None, None, fault, node.start_mark) from None

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            name = str(key.value)
            if name in seen:
                fault = f"the key {name!r} stands there twice"
                raise yaml.constructor.ConstructorError(None, None, fault, key.start_mark)
            seen.add(name)
        return super().construct_mapping(node, deep)


def _parsed(text: str) -> Any:
    """What YAML says.

    Raises:
        ValueError: it is not YAML, or not of what recipes are made of; in one line.
    """
    try:
        return yaml.load(text, _Loader)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from None


def _read(path: Path, derived: tuple[Path, ...] = ()) -> dict[str, Any]:
    """The recipe at `path`, which those of `derived` are based on, from the first to the last."""
    if not _exists(path):
        packaged = packaged_recipes()
        if path.name not in packaged or path.parent not in (Path(), Path("recipes")):
            names = ", ".join(packaged)
            raise ConfigError(f"{path}: no such recipe; the packaged ones are {names}")
        path = packaged[path.name]
    try:
        tree = _parsed(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); name a recipe") from None
    except ValueError as error:
        raise ConfigError(f"{path}: not YAML: {error}") from None
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: a recipe is a mapping of keys to values")
    base = tree.pop("base", None)
    if base is None:
        return tree
    parent, derived = path.parent / str(base), (*derived, path)
    if not _exists(parent):
        parent = Path(str(base))
    elif any(map(parent.samefile, derived)):
        raise ConfigError(f"{path}: is its own base; rename it or give base another recipe")
    return merged(_read(parent, derived), tree)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # too long for a name
        return False


def merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """A tree of settings in which `changes`, at any depth, stand over those of `base`."""
    tree = dict(base)
    for key, value in changes.items():
        inner = tree.get(key)
        tree[key] = (
            merged(inner, value) if isinstance(inner, dict) and isinstance(value, dict) else value
        )
    return tree


def _describe(error: ValidationError, kind: type[RunConfig]) -> list[str]:
    """One phrase per fault."""
    faults = []
    for fault in error.errors():
        place = ".".join(str(part) for part in fault["loc"])
        if fault["type"] == "extra_forbidden":
            near = difflib.get_close_matches(place, _known_keys(kind), n=1, cutoff=0)
            faults.append(f"unknown key {place}; did you mean {near[0]}?")
        else:
            message = fault["msg"].removeprefix("Value error, ")
            value = fault["input"]
            got = "" if isinstance(value, dict) else f" (got {value!r})"
            faults.append(f"{place}: {message}{got}" if place else message)
    return faults


def _known_keys(section: type[Section], prefix: str = "") -> list[str]:
    keys = []
    for name, field in section.model_fields.items():
        keys.append(prefix + name)
        for kind in (field.annotation, *getattr(field.annotation, "__args__", ())):
            if isinstance(kind, type) and issubclass(kind, Section):
                keys += _known_keys(kind, f"{prefix}{name}.")
    return keys
