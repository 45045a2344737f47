from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny_models import save_tiny_model
from torch.utils.tensorboard import SummaryWriter
from training_data import ON_CPU, RECIPES, in_two_processes, rows, state_of

import vqcodec
from vqcodec import prior
from vqcodec.audio import load
from vqcodec.data.prepared import PreparedData
from vqcodec.errors import CheckpointError, ConfigError
from vqcodec.models.code_transformer import CodeTransformer
from vqcodec.training.loop import Report
from vqcodec.training.prior_data import IGNORED
from vqcodec.training.prior_trainer import PriorTrainer, train
from vqcodec.training.recipe import PriorRecipe
from vqcodec.training.recipe_files import read_recipe, validated
from vqcodec.weights import prior_checkpoint

MODEL = {"channels": 16, "n_layers": 1, "n_heads": 2, "context": 8}


@pytest.fixture
def small_recipe(data: PreparedData, tiny_model: Path, coded_clips: Path, tmp_path: Path) -> Any:
    """Recipes that take a few milliseconds a step."""

    def make(name: str = "run", **changes: Any) -> PriorRecipe:
        output = tmp_path / name
        output.mkdir(exist_ok=True)
        (output / coded_clips.name).write_bytes(coded_clips.read_bytes())
        return PriorRecipe.model_validate(
            {
                "output": str(output),
                "codec": str(tiny_model),
                "steps": 4,
                "precision": "float32",
                "log_every": 1,
                "data": {"root": str(data.root), "batch_size": 2, "segment_length": 24},
                "model": MODEL,
                **changes,
            }
        )

    return make


def run(recipe: PriorRecipe, *, resume: bool = False) -> tuple[Path, list[Report]]:
    reports: list[Report] = []
    path = train(recipe, device="cpu", resume=resume, on_report=reports.append)
    return path, reports


# --- recipes ---------------------------------------------------------------------------------


def test_the_packaged_recipe_is_valid_and_says_how_to_use_it() -> None:
    path = RECIPES / "prior.yaml"
    recipe = validated(PriorRecipe, path, read_recipe(path))
    assert recipe.data.segment_length > recipe.model.context  # or its sliding is not learned
    header = path.read_text(encoding="utf-8").splitlines()[:4]
    assert [line.partition(":")[0] for line in header[1:]] == ["# Needs", "# Run", "# Override"]
    assert "vqcodec train prior.yaml" in header[2]
    overrides = header[3].split("prior.yaml ")[1].split()
    assert validated(PriorRecipe, path, read_recipe(path, overrides)) != recipe


@pytest.mark.parametrize(
    ("override", "fault"),
    [
        ("data.segment_lenght=8", "unknown key data.segment_lenght; did you mean data.segment_l"),
        ("model.n_heads=3", "model: channels 256 must be a multiple of twice n_heads 3"),
        ("model.context=1", "model.context: .*greater than or equal to 2 .got 1"),
        ("stage=codec", "stage: Input should be 'prior'"),
    ],
)
def test_faults_in_a_recipe_are_named(override: str, fault: str) -> None:
    tree = read_recipe(RECIPES / "prior.yaml", [override])
    with pytest.raises(ConfigError, match=rf"prior\.yaml: {fault}"):
        validated(PriorRecipe, "prior.yaml", tree)


# --- training --------------------------------------------------------------------------------


def test_the_best_prior_is_kept_with_what_is_typical(
    data: PreparedData, small_recipe: Any, coded_clips: Path
) -> None:
    recipe = small_recipe(
        steps=60, validate_every=20, optimizer={"learning_rate": 1e-2, "average_decay": 0.5}
    )
    path, reports = run(recipe)
    codes = load_file(coded_clips)["codes"].numpy()
    found = [report.validation for report in reports if report.validation is not None]
    assert reports[0].losses["bits_per_code"] > 8  # hardly better than guessing
    assert found[0] > found[1] > found[2]
    assert found[2] < reports[0].losses["bits_per_code"] - 2
    codec = vqcodec.load(recipe.codec, device="cpu")
    loaded = prior.load(codec, path)
    assert (loaded.histogram == np.bincount(codes, minlength=512)).all()
    assert loaded.provenance["validation_bits_per_code"] == pytest.approx(min(found), abs=1e-4)
    assert PriorRecipe.model_validate(loaded.provenance["recipe"]) == recipe
    # Without a split `valid`, the training clips are judged.
    bits = [loaded.bits(codec.encode(data.read(clip), 16000)) for clip in data.clips]
    assert np.concatenate(bits).mean() == pytest.approx(min(found), abs=0.02)
    expected = np.cumsum(prior.binned(np.concatenate(bits))) / len(codes)
    np.testing.assert_allclose(np.cumsum(loaded.typical) / len(codes), expected, atol=0.05)


def test_padding_is_not_learned(data: PreparedData, small_recipe: Any) -> None:
    """The loss of a segment that is longer than its clip is that of the clip alone."""
    section = {"root": str(data.root), "batch_size": 1, "segment_length": 4096}
    section["speaker_dropout"] = 0.0
    model = {**MODEL, "dropout": 0.0}
    job = PriorTrainer(small_recipe(data=section, model=model), ON_CPU, print)
    batch = job.sampler.batch(0)
    codes = batch.codes[0][batch.codes[0] != IGNORED]
    assert 0 < len(codes) < 4096
    expected = job.model.bits(codes, batch.speaker[0]).mean().item()
    assert job._train_step(batch) == pytest.approx({"bits_per_code": expected}, abs=1e-4)


def test_tensorboard_has_bits(small_recipe: Any) -> None:
    recipe = small_recipe(validate_every=2)
    run(recipe)
    events = EventAccumulator(str(Path(recipe.output) / "logs")).Reload()
    assert [event.step for event in events.Scalars("train/bits_per_code")] == [1, 2, 3, 4]
    assert [event.step for event in events.Scalars("validation/bits_per_code")] == [2, 4]


def test_learning_by_heart_is_told(small_recipe: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    values = iter([5.0, 4.0, *np.linspace(4.5, 6, 10)])

    def bits(self: CodeTransformer, codes: torch.Tensor, speaker: torch.Tensor) -> torch.Tensor:
        return torch.full((len(codes),), self.value)  # type: ignore[arg-type]

    validate = PriorTrainer._validate

    def validated_as(
        self: PriorTrainer, writer: SummaryWriter | None, ends: Callable[[], bool]
    ) -> float | None:
        CodeTransformer.value = next(values)  # type: ignore[attr-defined]
        return validate(self, writer, ends)

    monkeypatch.setattr(CodeTransformer, "bits", bits)
    monkeypatch.setattr(PriorTrainer, "_validate", validated_as)
    path, reports = run(small_recipe(steps=9, validate_every=1))
    warned = ["by heart: validation was best" in (report.warning or "") for report in reports]
    assert warned == [False] * 6 + [True] * 3
    assert "best, 4.000 bits, at step 2" in (reports[-1].warning or "")
    with safe_open(path, framework="pt") as file:
        assert json.loads(file.metadata()["provenance"])["steps"] == 2


def test_training_goes_on_from_a_prior_of_another_codec(
    small_recipe: Any, data: PreparedData, tmp_path: Path
) -> None:
    first = prior_checkpoint.read(run(small_recipe("first", optimizer={"warmup_steps": 0}))[0])
    save_tiny_model(tmp_path / "other.safetensors", seed=1)
    still = {"learning_rate": 1e-9, "final_learning_rate": 0.0}
    changes: dict[str, Any] = {
        "codec": str(tmp_path / "other.safetensors"),
        "initial_prior": str(tmp_path / "first" / PriorTrainer.MODEL_FILE),
        "optimizer": still,
        "steps": 1,
        "model": {**MODEL, "dropout": 0.3},
    }
    second = prior_checkpoint.read(run(small_recipe("second", **changes))[0])
    assert second.fingerprint != first.fingerprint
    assert not np.array_equal(second.histogram, first.histogram)
    begun, ended = first.model.state_dict(), second.model.state_dict()
    assert all(torch.allclose(begun[name], ended[name], atol=1e-3) for name in begun)
    with pytest.raises(CheckpointError, match="does not fit the recipe's model or the 512 "):
        run(small_recipe("third", **{**changes, "model": {**MODEL, "n_heads": 1}}))


def test_a_prior_that_is_not_there_is_missed_before_a_corpus_is_encoded(
    small_recipe: Any, coded_clips: Path
) -> None:
    recipe = small_recipe(initial_prior="none.safetensors")
    codes = Path(recipe.output) / coded_clips.name
    codes.unlink()
    with pytest.raises(CheckpointError, match=r"none\.safetensors: no such file"):
        run(recipe)
    assert not codes.exists()


# --- stopping and continuing -----------------------------------------------------------------

SCRIPT = """
from vqcodec.training.recipe_files import read_recipe, validated
from vqcodec.training.prior_trainer import train
from vqcodec.training.recipe import PriorRecipe
recipe = validated(PriorRecipe, paths[0], read_recipe(paths[0]))
train(recipe, device="cpu", on_report=reports.append)
"""


def test_two_processes_train_as_one(data: PreparedData, small_recipe: Any, tmp_path: Path) -> None:
    # Dropout would differ; clips are shorter than segments, so the processes' shares differ.
    changes = {
        "steps": 6,
        "validate_every": 3,
        "model": {**MODEL, "dropout": 0.0},
        "data": {"root": str(data.root), "batch_size": 4, "segment_length": 512},
    }
    alone = rows(run(small_recipe("one", **changes))[1])
    together = in_two_processes(SCRIPT, [small_recipe("two", **changes)], tmp_path)
    assert np.shape(together) == (6, 2)
    np.testing.assert_allclose(together, alone, rtol=1e-4)


def test_a_signal_stops_a_validation_resumably(
    small_recipe: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = {"steps": 4, "validate_every": 2}
    whole, stopped = small_recipe("whole", **changes), small_recipe("stopped", **changes)
    run(whole)
    bits, n_validated = CodeTransformer.bits, 0

    def told(self: CodeTransformer, *inputs: torch.Tensor) -> torch.Tensor:
        nonlocal n_validated
        n_validated += 1
        signal.raise_signal(signal.SIGINT)
        return bits(self, *inputs)

    for resume in (False, True):
        with monkeypatch.context() as patch:
            patch.setattr(CodeTransformer, "bits", told)
            with pytest.raises(KeyboardInterrupt):
                run(stopped, resume=resume)
        assert json.loads(state_of(stopped)[1]["progress"])["step"] == 2
    assert n_validated == 2
    run(stopped, resume=True)
    (expected, of_whole), (found, of_stopped) = state_of(whole), state_of(stopped)
    assert of_stopped == of_whole
    assert [key for key in expected if not torch.equal(found[key], expected[key])] == []


def test_a_broken_run_is_resumed_bit_for_bit(small_recipe: Any) -> None:
    changes = {"steps": 10, "checkpoint_every": 4, "validate_every": 3}
    whole, broken = small_recipe("whole", **changes), small_recipe("broken", **changes)

    def breaks(report: Report) -> None:
        if report.step == 6:
            raise InterruptedError

    run(whole)
    with pytest.raises(InterruptedError):
        train(broken, device="cpu", on_report=breaks)
    assert '"step": 4' in state_of(broken)[1]["progress"]
    torch.manual_seed(12345)
    run(broken, resume=True)
    (expected, of_whole), (found, of_broken) = state_of(whole), state_of(broken)
    assert of_broken == of_whole
    assert found.keys() == expected.keys()
    assert [key for key in found if not torch.equal(found[key], expected[key])] == []
    assert any(key.startswith("optimizer.") for key in found)
    files = [Path(recipe.output) / PriorTrainer.MODEL_FILE for recipe in (whole, broken)]
    weights = [load_file(path) for path in files]
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])


# --- what a prior is good for ----------------------------------------------------------------


def chords(sample_rate: int) -> np.ndarray:
    """Three seconds of struck major chords with four harmonics."""
    time = np.arange(sample_rate // 2) / sample_rate
    struck = np.exp(-3 * time) * np.minimum(1, time / 0.01)
    parts = [
        sum(
            np.sin(2 * np.pi * root * interval * harmonic * time) / harmonic
            for interval in (1.0, 5 / 4, 3 / 2)
            for harmonic in (1, 2, 3, 4)
        )
        * struck
        for root in (220, 262, 196, 294, 247, 175)
    ]
    return 0.05 * np.concatenate(parts)


def test_other_sounds_are_less_like_speech(speech: Path) -> None:
    """To the packaged prior, which has heard no synthesizer."""
    codec = vqcodec.load(device="cpu")
    loaded = prior.load(codec)
    noise = 0.1 * np.random.default_rng(0).standard_normal(48000)
    spoken = [
        speech,
        RECIPES.parent / "samples" / "rms.wav",
        RECIPES.parent / "samples" / "slt.wav",
    ]
    scores = [loaded.score(codec.encode(path)) for path in spoken]
    # The codes of speech follow from those before: their share alone needs over ten bits.
    share = loaded.histogram / loaded.histogram.sum()
    order_0 = -(share * np.log2(np.maximum(share, 1e-12))).sum()
    assert max(score.bits_per_code for score in scores) < order_0 - 4
    for other in (noise, chords(16000)):
        found = loaded.score(codec.encode(other, 16000)).anomaly
        assert found > max(score.anomaly for score in scores) + 0.15
    backwards = [loaded.score(codec.encode(load(path, 16000)[::-1], 16000)) for path in spoken]
    assert sum(found[0] for found in backwards) > sum(score[0] for score in scores) + 0.3
