"""Trainings of encoders alone, for a codebook and decoders that stay."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from training_data import model_with, run, small_recipe, state_of, trainer_of

import vqcodec
from vqcodec.data.prepared import PreparedData
from vqcodec.errors import CheckpointError
from vqcodec.training.entropy_coder import fit_tables
from vqcodec.training.recipe import Recipe
from vqcodec.weights import checkpoint

ENCODER: dict[str, Any] = {
    "stage": "encoder",
    "steps": 4,
    "augmentation": {"probability": 0.8},
    "loss": {"bits": 0.01},
    "optimizer": {"warmup_steps": 0},
}


pytestmark = pytest.mark.usefixtures("_few_validation_batches")


@pytest.fixture(scope="module")
def codec(data: PreparedData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with an entropy coder."""
    folder = tmp_path_factory.mktemp("codec")
    path, _ = run(small_recipe(data, folder, steps=30, optimizer={"warmup_steps": 0}))
    made = checkpoint.load(path)
    codes = vqcodec.load(path).encode(data.read(data.clips[0]), data.sample_rate).codes
    size = made.config.quantizer.codebook_size
    tables = fit_tables([codes], size, n_context=2, width=8, units=32, steps=60)
    checkpoint.save(folder / "coded.safetensors", made.model, made.voices, {}, tables)
    return folder / "coded.safetensors"


def test_files_of_before_and_after_mean_the_same(
    data: PreparedData, codec: Path, tmp_path: Path
) -> None:
    path, _ = run(small_recipe(data, tmp_path, initial_model=str(codec), **ENCODER))
    before, after = checkpoint.load(codec), checkpoint.load(path)
    kept, found = before.model.state_dict(), after.model.state_dict()
    assert kept.keys() == found.keys()
    changed = {name.split(".")[0] for name in kept if not torch.equal(kept[name], found[name])}
    assert changed == {"encoder", "speaker"}
    assert after.tables is not None
    assert before.tables is not None
    assert after.tables.digest == before.tables.digest
    assert all(np.array_equal(before.voices[name], after.voices[name]) for name in before.voices)

    one, other = vqcodec.load(codec), vqcodec.load(path)
    assert one.fingerprint == other.fingerprint
    speech = data.read(data.clips[0])
    for maker in (one, other):
        one_s, other_s = (
            reader.decode(maker.encode(speech, data.sample_rate)) for reader in (one, other)
        )
        assert np.array_equal(one_s, other_s)


def test_what_is_trained_on_after_it_still_reads_its_files(
    data: PreparedData, codec: Path, tmp_path: Path
) -> None:
    heard, _ = run(small_recipe(data, tmp_path / "a", initial_model=str(codec), **ENCODER))
    fast, _ = run(small_recipe(data, tmp_path / "b", stage="fast", initial_model=str(heard)))
    again, _ = run(small_recipe(data, tmp_path / "c", initial_model=str(fast), **ENCODER))
    first = checkpoint.load(codec).fingerprint
    assert {checkpoint.load(path).fingerprint for path in (heard, fast, again)} == {first}
    # A codebook that is trained on is another.
    other, _ = run(small_recipe(data, tmp_path / "d", initial_model=str(heard)))
    assert checkpoint.load(other).fingerprint != first


def test_it_learns_what_the_clean_segment_was(
    data: PreparedData, codec: Path, tmp_path: Path
) -> None:
    settings = {**ENCODER, "steps": 60, "loss": {"latents": 1.0, "bits": 0.0}}
    _, reports = run(small_recipe(data, tmp_path, initial_model=str(codec), **settings))
    for name in ("latents", "voice"):
        losses = [report.losses[name] for report in reports]
        assert np.mean(losses[40:]) < 0.8 * np.mean(losses[:10])
    validations = [report.validation for report in reports if report.validation is not None]
    assert len(validations) == 1
    assert "bits" not in reports[-1].losses


def test_an_interrupted_run_goes_on_as_one_that_was_not(
    data: PreparedData, codec: Path, tmp_path: Path
) -> None:
    def recipe(folder: Path, steps: int) -> Recipe:
        rates = {"warmup_steps": 0, "final_learning_rate": 1e-3}
        settings = {**ENCODER, "steps": steps, "optimizer": rates}
        return small_recipe(data, folder, initial_model=str(codec), **settings)

    run(recipe(tmp_path / "whole", 6))
    run(recipe(tmp_path / "halves", 3))
    run(recipe(tmp_path / "halves", 6), resume=True)
    one, other = (state_of(recipe(tmp_path / name, 6))[0] for name in ("whole", "halves"))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_bits_have_a_price(data: PreparedData, codec: Path, tmp_path: Path) -> None:
    def bits(weight: float) -> float:
        settings = {**ENCODER, "steps": 40, "loss": {"bits": weight, "latents": 0.0}}
        settings["optimizer"] = {"warmup_steps": 0, "average_decay": 0.5}
        folder = tmp_path / str(weight)
        path, _ = run(small_recipe(data, folder, initial_model=str(codec), **settings))
        codec_after, loaded = vqcodec.load(path), checkpoint.load(path)
        assert loaded.tables is not None
        codes = codec_after.encode(data.read(data.clips[4]), data.sample_rate).codes
        costs = loaded.tables.costs(codes)[:, 0]
        return float(np.take_along_axis(costs, codes[0][:, None].astype(int), 1).mean())

    assert bits(3.0) < bits(0.0) - 0.1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"initial_model": None}, "needs initial_model"),
        ({"model": model_with(speaker={"kind": "table"})}, "needs the quantizer vq and a speaker"),
        ({"model": model_with(quantizer={"kind": "residual_vq"})}, "not residual_vq and encoder"),
        ({"model": model_with(fast=None)}, "stage encoder trains model.fast, but that is null"),
        ({"adversarial": {"weight": 0.1}}, "adversarial trains the fast decoder"),
    ],
)
def test_what_it_cannot_train_is_refused(
    data: PreparedData, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    settings = {"initial_model": "speech-1k", **ENCODER, **changes}
    with pytest.raises(ValueError, match=message):
        small_recipe(data, tmp_path, **settings)


def test_another_codebook_is_no_model_to_go_on_with(
    data: PreparedData, codec: Path, tmp_path: Path
) -> None:
    model = model_with(quantizer={"codebook_size": 32})
    recipe = small_recipe(data, tmp_path, initial_model=str(codec), model=model, **ENCODER)
    with pytest.raises(CheckpointError, match="does not fit the recipe's model"):
        run(recipe)


def test_a_whole_codec_hears_dirt_by_both_encoders(data: PreparedData, tmp_path: Path) -> None:
    recipe = small_recipe(data, tmp_path, augmentation={"probability": 1.0})
    job = trainer_of(recipe)
    batch, objective = job.sampler.batch(0), job.objective.eval()
    with torch.no_grad():
        heard = objective(batch).parts["mel"]
        for clean in (
            batch._replace(encoder_input=batch.waveform),
            batch._replace(speaker_input=batch.reference),
        ):
            assert objective(clean).parts["mel"] != heard
