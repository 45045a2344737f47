"""A recipe with stages is one run: checked at its start, resumed where it stopped."""

from __future__ import annotations

import logging
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from command_line import Run, is_one_line
from training_data import RECIPES, small_recipe

import vqcodec
from vqcodec.data.prepared import PreparedData
from vqcodec.errors import ConfigError
from vqcodec.training import trainer
from vqcodec.training.loop import Report
from vqcodec.training.recipe import Recipe
from vqcodec.training.recipe_files import read_stages, validated
from vqcodec.training.stages import train
from vqcodec.training.trainer import Trainer
from vqcodec.weights import model_file
from vqcodec.weights.model_file import CODES_OF

pytestmark = pytest.mark.usefixtures("_few_validation_batches")


def recipe_file(data: PreparedData, folder: Path, **changes: Any) -> Path:
    """A recipe of a codec, its encoders again, and a WaveNet."""
    first = small_recipe(
        data,
        folder / "run",
        entropy_coder={"hours": 0.001, "steps": 8},
        optimizer={"warmup_steps": 0},
    ).model_dump(mode="json", exclude_unset=True)
    stages = [
        {"stage": "encoder", "steps": 2, "augmentation": {"probability": 0.5}},
        {"stage": "wavenet", "steps": 2},
    ]
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump({**first, "stages": stages, **changes}), encoding="utf-8")
    return path


def plans(path: Path, *overrides: str) -> list[Recipe]:
    return [validated(Recipe, path, tree) for tree in read_stages(path, list(overrides))]


def test_one_command_makes_all_that_a_model_has(
    run: Run, data: PreparedData, tmp_path: Path
) -> None:
    done = run("train", recipe_file(data, tmp_path), "--device", "cpu")
    assert done.status == 0, done.stderr
    path = tmp_path / "run" / "3_wavenet" / "model.safetensors"
    assert done.stdout.startswith(f"model: {path}\n")
    first, last = vqcodec.load(tmp_path / "run" / "model.safetensors"), vqcodec.load(path)
    assert list(last.decoders) == ["fast", "wavenet"]
    assert last.provenance[CODES_OF] == first.fingerprint.hex() == last.fingerprint.hex()
    assert first.tables is not None
    assert last.tables is not None
    assert first.tables.digest == last.tables.digest
    plain = tmp_path / "plain"
    assert (
        run(
            "train",
            tmp_path / "recipe.yaml",
            "stages=[]",
            "entropy_coder.hours=0",
            f"output={plain}",
        ).status
        == 0
    )
    untabled = model_file.read(plain / "model.safetensors")
    kept = model_file.read(tmp_path / "run" / "model.safetensors")
    assert untabled.tables is None
    assert untabled.fingerprint == kept.fingerprint
    assert untabled.graphs == kept.graphs
    waveform = data.read(data.clips[0])
    codes = first.encode(waveform, data.sample_rate)
    assert np.array_equal(
        vqcodec.Codes.from_bytes(codes.to_bytes(), tables=last.tables).codes, codes.codes
    )
    again = run("train", tmp_path / "recipe.yaml", "--device", "cpu")
    assert (again.status, is_one_line(again)) == (1, True)
    assert "continue it with --resume" in again.stderr


def test_a_run_goes_on_in_the_stage_that_was_broken(data: PreparedData, tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    whole.mkdir()
    broken.mkdir()
    expected = train(*plans(recipe_file(data, whole)), device="cpu")
    n_reports = 0

    def stop(report: Report) -> None:
        nonlocal n_reports
        n_reports += 1
        if n_reports == 4:  # the first has three steps
            raise KeyboardInterrupt

    stages = plans(recipe_file(data, broken), "checkpoint_every=1")
    with pytest.raises(KeyboardInterrupt):
        train(*stages, device="cpu", on_report=stop)
    reports: list[Report] = []
    path = train(*stages, device="cpu", resume=True, on_report=reports.append)
    assert [report.step for report in reports] == [1, 2, 1, 2]
    kept, found = model_file.read(expected), model_file.read(path)
    assert kept.tensors.keys() == found.tensors.keys()
    for name, tensor in kept.tensors.items():
        assert np.array_equal(tensor, found.tensors[name]), name


def test_a_stage_ends_with_the_validation_that_it_owes(data: PreparedData, tmp_path: Path) -> None:
    """A signal comes in the last validation of the first stage, and the next begins from it."""
    stages = plans(recipe_file(data, tmp_path, stages=[{"stage": "encoder", "steps": 2}]))
    validate = Trainer._validate

    def told(self: Trainer, *arguments: Any) -> float | None:
        signal.raise_signal(signal.SIGTERM)
        return validate(self, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "_validate", told)
        with pytest.raises(KeyboardInterrupt):
            train(*stages, device="cpu")
    assert not (tmp_path / "run" / "model.safetensors").exists()
    reports: list[Report] = []
    train(*stages, device="cpu", resume=True, on_report=reports.append)
    assert [report.step for report in reports] == [1, 2]
    assert model_file.read(tmp_path / "run" / "model.safetensors").tables is not None


def test_a_stage_does_not_go_on_from_a_model_that_is_no_more(
    data: PreparedData, tmp_path: Path
) -> None:
    path = recipe_file(data, tmp_path, stages=[{"stage": "encoder", "steps": 2}])
    train(*plans(path), device="cpu")
    recipe_file(data, tmp_path, stages=[{"stage": "encoder", "steps": 2}], steps=4)
    with pytest.raises(ConfigError, match=r"2_encoder: began from a model .* remove the folder"):
        train(*plans(path), device="cpu", resume=True)
    shutil.rmtree(tmp_path / "run" / "2_encoder")
    reports: list[Report] = []
    train(*plans(path), device="cpu", resume=True, on_report=reports.append)
    assert [report.step for report in reports] == [4, 1, 2]


def test_a_stage_whose_model_was_removed_names_it(data: PreparedData, tmp_path: Path) -> None:
    stages = plans(recipe_file(data, tmp_path, stages=[{"stage": "encoder", "steps": 2}]))
    path = train(*stages, device="cpu")
    for removed in (path, tmp_path / "run" / "model.safetensors"):
        removed.unlink()
        with pytest.raises(ConfigError, match=f"{removed}: is gone, .* restore it from a copy"):
            train(*stages, device="cpu", resume=True)


def test_a_fit_that_was_broken_is_not_told_that_all_is_done(
    data: PreparedData,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    stages = plans(recipe_file(data, tmp_path, stages=[]))
    with monkeypatch.context() as patch:
        patch.setattr(trainer, "fit_entropy_coder", raise_interrupt)
        with pytest.raises(KeyboardInterrupt):
            train(*stages, device="cpu")
    caplog.set_level(logging.INFO, "vqcodec.training")
    done = "all 3 steps are done: steps=N"
    for told in ("fitting the entropy coder to codes of 3.6 s at most", done):
        caplog.clear()
        train(*stages, device="cpu", resume=True)
        start, *rest = caplog.messages
        assert start.startswith("training on ")
        assert len(rest) == 1
        assert rest[0].startswith(told)


@pytest.mark.parametrize("changes", [{}, {"entropy_coder": {"hours": 0}}])
def test_who_is_told_to_end_after_the_last_step_begins_nothing_more(
    data: PreparedData, tmp_path: Path, changes: dict[str, Any]
) -> None:
    """Neither the fit of the entropy coder nor the next stage."""
    stages = plans(recipe_file(data, tmp_path, **changes))

    def tell(report: Report) -> None:
        if report.step == report.steps:
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(KeyboardInterrupt):
        train(*stages, device="cpu", on_report=tell)
    assert model_file.read(tmp_path / "run" / "model.safetensors").tables is None
    assert not (tmp_path / "run" / "2_encoder").exists()
    path = train(*stages, device="cpu", resume=True)
    assert path.parent == tmp_path / "run" / "3_wavenet"


def raise_interrupt(*_: Any, **options: Any) -> None:
    raise KeyboardInterrupt


def test_time_is_that_of_all_stages(data: PreparedData, tmp_path: Path) -> None:
    stages = plans(recipe_file(data, tmp_path), "max_minutes=1e-9")
    reports: list[Report] = []
    path = train(*stages, device="cpu", on_report=reports.append)
    assert [report.step for report in reports] == [1]
    assert path.parent == tmp_path / "run"
    assert not (tmp_path / "run" / "2_encoder").exists()


def test_overrides_hold_for_all_stages(data: PreparedData, tmp_path: Path) -> None:
    path = recipe_file(data, tmp_path)
    first, second, third = plans(path, "seed=7", "data.batch_size=4", f"output={tmp_path / 'o'}")
    assert {plan.seed for plan in (first, second, third)} == {7}
    assert {plan.data.batch_size for plan in (first, second, third)} == {4}
    assert {plan.data.root for plan in (first, second, third)} == {str(data.root)}
    outputs = [Path(plan.output).relative_to(tmp_path) for plan in (first, second, third)]
    assert outputs == [Path("o"), Path("o/2_encoder"), Path("o/3_wavenet")]
    assert first.initial_model is None
    assert second.initial_model == str(tmp_path / "o" / "model.safetensors")
    assert third.initial_model == str(tmp_path / "o" / "2_encoder" / "model.safetensors")
    assert second.augmentation.probability == 0.5
    assert third.augmentation.probability == 0
    assert len(plans(path, "stages=[]")) == 1
    assert [plan.stage for plan in plans(path, "stages=[{stage: fast}]")] == ["codec", "fast"]
    (alone,) = plans(path, "stage=encoder", "initial_model=speech-1k")
    assert (alone.stage, alone.initial_model) == ("encoder", "speech-1k")


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"stages": {"stage": "wavenet"}}, "stages is a list"),
        ({"stages": ["wavenet"]}, "stages is a list"),
        ({"stages": [{"stage": "encoder", "step": 3}]}, "stage 2: unknown key step; did you mean"),
        ({"stages": {}}, "stages is a list"),
        ({"stages": [{"stage": "encoder", "data": 5}]}, "stage 2: data: Input should be"),
        ({"stages": [{"output": "there", "data": {"root": "x"}}]}, "output, data.root is for the"),
        ({"stages": [{"base": "none.yaml"}]}, "none.yaml: no such recipe"),
        ({"stage": "prior"}, "a prior has no stages after it"),
    ],
)
def test_faults_of_later_stages_are_told_before_the_first_begins(
    changes: dict[str, Any], fault: str, run: Run, data: PreparedData, tmp_path: Path
) -> None:
    result = run("train", recipe_file(data, tmp_path, **changes), "--device", "cpu")
    assert (result.status, is_one_line(result)) == (1, True)
    assert fault in result.stderr
    assert not (tmp_path / "run").exists()


def test_the_release_of_vctk_has_a_wavenet_and_hears_through_noise() -> None:
    stages = plans(RECIPES / "vctk.yaml", "data.root=there")
    assert [stage.stage for stage in stages] == ["codec", "encoder", "wavenet"]
    assert [stage.augmentation.probability > 0 for stage in stages] == [False, True, False]
    assert {stage.data.root for stage in stages} == {"there"}
    assert stages[0].fits_entropy_coder
