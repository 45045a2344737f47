"""Training from shards as they are: the same path whoever takes it, and again."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from scale_data import job_of, make, sound_bytes, tar_of
from training_data import MODEL, SPEECH, rows, small_recipe, trainer_of

from vqcodec.data.prepared import PreparedData
from vqcodec.errors import ConfigError, DataError
from vqcodec.scale.listing import list_source
from vqcodec.training import prior_trainer
from vqcodec.training.loop import Report
from vqcodec.training.recipe import PriorRecipe, Recipe
from vqcodec.training.stages import train
from vqcodec.training.streamed import StreamedSampler, pool_parts


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two recordings of each speaker, in five archives."""
    folder = tmp_path_factory.mktemp("shards")
    for number, (voice, samples) in enumerate(SPEECH.items()):
        members = {}
        for half, part in enumerate(np.array_split(samples, 2)):
            key = f"{voice}{half}"
            members[f"{key}.flac"] = sound_bytes(part)
            members[f"{key}.json"] = b'{"speaker": "%b"}' % voice.encode()
        tar_of(folder / f"{number}.tar", members)
    return folder


def recipe_of(shards: Path, output: Path, data: PreparedData, **changes: object) -> Recipe:
    recipe = small_recipe(data, output, steps=6, checkpoint_every=3, **changes)
    section = {"root": str(shards), "pool_parts": 2, "pool_steps": 2}
    return recipe.model_copy(update={"data": recipe.data.model_copy(update=section)})


def test_every_pass_sees_every_part_once_in_another_order(data: PreparedData) -> None:
    config = small_recipe(data, Path("x")).data.model_copy(update={"pool_parts": 2})
    passes = [[pool_parts(5, config, 7, 3 * turn + pool) for pool in range(3)] for turn in (0, 1)]
    for one in passes:
        assert sorted(number for pool in one for number in pool) == list(range(5))
    assert passes[0] != passes[1]


def test_a_batch_is_a_function_of_seed_and_step(
    shards: Path, data: PreparedData, tmp_path: Path
) -> None:
    recipe = recipe_of(shards, tmp_path, data)
    one, other = (trainer_of(recipe).sampler for _ in range(2))
    assert isinstance(one, StreamedSampler)
    forward = [one.batch(step) for step in range(6)]
    for step in (5, 0, 3):
        for mine, own in zip(other.batch(step)[:4], forward[step][:4], strict=True):
            assert torch.equal(mine, own)
    halves = [other.batch(4, rank, 2).waveform for rank in (0, 1)]
    assert torch.equal(torch.cat(halves), forward[4].waveform)
    assert not torch.equal(forward[0].waveform, forward[2].waveform)


@pytest.mark.parametrize("model", [{}, {"pitch": {}}])
def test_a_resumed_run_is_the_unbroken_one(
    model: dict[str, object], shards: Path, data: PreparedData, tmp_path: Path
) -> None:
    recipe = recipe_of(shards, tmp_path / "whole", data, model={**MODEL, **model})
    whole: list[Report] = []
    train(recipe, device="cpu", on_report=whole.append)

    def ending(report: Report) -> None:
        if report.step == 4:
            raise KeyboardInterrupt

    again: list[Report] = []
    recipe = recipe.model_copy(update={"output": str(tmp_path / "again")})
    with pytest.raises(KeyboardInterrupt):
        train(recipe, device="cpu", on_report=ending)
    train(recipe, device="cpu", resume=True, on_report=again.append)
    assert [report.step for report in again] == [4, 5, 6]
    assert rows(whole)[3:] == rows(again)


def test_files_named_for_validation_and_tests_are_not_trained_on(
    shards: Path, data: PreparedData, tmp_path: Path
) -> None:
    source = tmp_path / "named"
    source.mkdir()
    names = ["test-0.tar", "train-0.tar", "train-1.tar", "validation-0.tar"]
    for name, shard in zip(names, sorted(shards.iterdir()), strict=False):
        (source / name).symlink_to(shard)
    trainer = trainer_of(recipe_of(source, tmp_path / "run", data))
    voices = list(SPEECH)
    assert {clip.speaker for clip in trainer.data.split("train")} == {voices[1], voices[2]}
    assert {clip.speaker for clip in trainer.validation.clips} == {voices[3]}
    assert trainer.source is not None
    assert trainer.source.n_drawn == 2
    with pytest.raises(DataError, match=r"test-0\.tar: no training clips; name a source"):
        trainer_of(recipe_of(source / "test-0.tar", tmp_path / "run", data))


def test_what_needs_all_recordings_says_so(
    shards: Path, data: PreparedData, tmp_path: Path
) -> None:
    recipe = recipe_of(shards, tmp_path, data, loss={"phones": 1.0})
    with pytest.raises(ConfigError, match=r"loss\.phones needs to know all recordings: prepare"):
        train(recipe, device="cpu")


def test_a_prior_of_a_data_set_of_codes(shards: Path, packaged: Path, tmp_path: Path) -> None:
    listing = list_source(str(shards))
    make(job_of(packaged, tmp_path / "codes", listing), listing)
    recipe = PriorRecipe.model_validate({
        "output": str(tmp_path / "run"), "codec": str(packaged), "steps": 6, "log_every": 1,
        "validate_every": 3,
        "data": {"root": str(tmp_path / "codes"), "batch_size": 2, "segment_length": 16,
                 "pool_parts": 2, "pool_steps": 2},
        "model": {"channels": 16, "n_layers": 1, "n_heads": 2, "context": 16},
    })  # fmt: skip
    losses = []
    for output in ("run", "other"):
        found: list[Report] = []
        recipe = recipe.model_copy(update={"output": str(tmp_path / output)})
        path = prior_trainer.train(recipe, device="cpu", on_report=found.append)
        assert path.is_file()
        losses.append([report.losses["bits_per_code"] for report in found])
    assert losses[0] == losses[1]
    assert all(map(math.isfinite, losses[0]))
    sounds = recipe.data.model_copy(update={"root": str(shards)})
    with pytest.raises(DataError, match="holds no codes to train on; vqcodec encode-dataset"):
        prior_trainer.train(
            recipe.model_copy(update={"data": sounds, "output": str(tmp_path / "x")}), device="cpu"
        )
