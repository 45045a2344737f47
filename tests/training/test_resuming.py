"""A training that stopped, by whatever, and goes on."""

from __future__ import annotations

import json
import logging
import math
import shutil
import signal
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn
from training_data import (
    WITHOUT_GRAPHS,
    data_section,
    model_with,
    run,
    small_recipe,
    state_of,
    trainer_of,
)

import vqcodec
from vqcodec.data.prepared import PreparedData
from vqcodec.errors import CheckpointError, ConfigError
from vqcodec.models.codebook_usage import CollapseMonitor
from vqcodec.training import loop, stages, trainer
from vqcodec.training.loop import STATE_FILE, UNVALIDATED, Report
from vqcodec.training.recipe import Recipe
from vqcodec.training.state import read_state, restore, save_state
from vqcodec.training.trainer import Trainer
from vqcodec.weights import checkpoint

pytestmark = pytest.mark.usefixtures("_few_validation_batches")


KILLED = """
import os, signal, sys
from vqcodec.training import stages, trainer
from vqcodec.training.recipe_files import load_recipe
trainer.VALIDATION_BATCHES = 2
path, mode, last = sys.argv[1:]
def on_report(report):
    if report.step == int(last):
        os.kill(os.getpid(), signal.SIGKILL)
stages.train(load_recipe(path), device="cpu", resume=mode == "resume", on_report=on_report)
"""


def killed(recipe: Recipe, mode: str, *, at: int) -> None:
    """A training in a process, that starts, or goes on, until it is killed after a step."""
    path = Path(recipe.output).with_suffix(".yaml")
    path.write_text(yaml.safe_dump(recipe.model_dump(mode="json")), encoding="utf-8")
    command = [sys.executable, "-c", WITHOUT_GRAPHS + KILLED, str(path), mode, str(at)]
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr


def test_resume_after_sigkill_is_bit_for_bit(data: PreparedData, tmp_path: Path) -> None:
    def recipe(name: str) -> Recipe:
        return small_recipe(
            data,
            tmp_path / name,
            stage="joint",
            steps=16,
            unquantized_steps=6,
            checkpoint_every=4,
            validate_every=5,
            perturbation={"probability": 0.5},
            model=model_with(quantizer={"estimator": "nsvq", "threshold_ema_dead_code": 0.5}),
        )

    whole, broken = recipe("whole"), recipe("broken")
    run(whole)
    # Before the codebook starts, and after: each time two steps past the last checkpoint.
    killed(broken, "start", at=6)
    killed(broken, "resume", at=10)
    tensors, metadata = state_of(broken)
    assert '"step": 8' in metadata["progress"]
    assert tensors["objective.model.quantizer.initialized"]
    run(broken, resume=True)
    (expected, of_whole), (found, of_broken) = state_of(whole), state_of(broken)
    assert of_broken == of_whole
    assert found.keys() == expected.keys()
    assert [key for key in found if not torch.equal(found[key], expected[key])] == []
    assert any(key.startswith("optimizer.") for key in found)
    models = [checkpoint.load(Path(r.output) / Trainer.MODEL_FILE) for r in (whole, broken)]
    assert models[0].fingerprint == models[1].fingerprint
    # What the broken run logged past its checkpoint is not shown twice.
    events = EventAccumulator(str(Path(broken.output) / "logs")).Reload()
    assert [event.step for event in events.Scalars("train/total")] == list(range(1, 17))


# So heavy that the first round is felt.
ADVERSARIAL = {"weight": 100.0, "start_step": 5, "channels": 2}


def test_an_adversarial_run_resumes_bit_for_bit(data: PreparedData, tmp_path: Path) -> None:
    adversarial = {**ADVERSARIAL, "start_step": 2}
    unbroken = small_recipe(data, tmp_path / "unbroken", steps=6, adversarial=adversarial)
    run(unbroken)
    broken = unbroken.model_copy(update={"output": str(tmp_path / "broken"), "max_minutes": 1e-9})
    run(broken)
    for _ in range(3):  # a step each: before the discriminators begin, and after
        run(broken, resume=True)
    run(broken.model_copy(update={"max_minutes": 60.0}), resume=True)
    expected, found = state_of(unbroken)[0], state_of(broken)[0]
    assert found.keys() == expected.keys()
    assert [key for key in found if not torch.equal(found[key], expected[key])] == []
    assert any(key.startswith("adversary.") for key in found)
    assert not any(key.startswith("average.") and "discriminator" in key for key in found)


def test_the_adversary_does_nothing_before_its_start(data: PreparedData, tmp_path: Path) -> None:
    plain = run(small_recipe(data, tmp_path / "plain", steps=8))[1]
    changes = {"steps": 8, "validate_every": 4, "adversarial": ADVERSARIAL}
    adversarial = run(small_recipe(data, tmp_path / "adversarial", **changes))[1]
    assert [report.losses for report in adversarial[:5]] == [r.losses for r in plain[:5]]
    assert all({"adversarial", "discriminator"} <= r.losses.keys() for r in adversarial[5:])
    assert adversarial[5].losses["discriminator"] == pytest.approx(2.0, abs=0.2)
    assert adversarial[6].losses["mel"] != plain[6].losses["mel"]
    # The newest model is kept, were it a worse one by spectral distance.
    provenance = checkpoint.load(tmp_path / "adversarial" / Trainer.MODEL_FILE).provenance
    assert provenance["steps"] == 8


@pytest.mark.parametrize(
    ("changes", "kept"),
    [
        ({}, 1.0),
        ({"adversarial": {**ADVERSARIAL, "start_step": 6}}, 4.0),
        ({"stage": "fast", "perturbation": {"conversion": 0.5}}, 4.0),
    ],
)
def test_the_newest_model_is_kept_where_validation_is_blind(
    data: PreparedData,
    first_stage: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, Any],
    kept: float,
) -> None:
    rising = iter([1.0, 2.0, 3.0, 4.0])

    def worse(self: Trainer, scalars: dict[str, torch.Tensor]) -> dict[str, float]:
        value = 0.5 if torch.is_grad_enabled() else next(rising)
        return dict.fromkeys(scalars, value)

    monkeypatch.setattr(trainer, "VALIDATION_BATCHES", 1)
    monkeypatch.setattr(Trainer, "_values", worse)
    section = {"steps": 8, "validate_every": 2, "initial_model": str(first_stage), **changes}
    path, reports = run(small_recipe(data, tmp_path, **section))
    validations = [report.validation for report in reports if report.validation is not None]
    assert validations == [1.0, 2.0, 3.0, 4.0]
    assert checkpoint.load(path).provenance["validation_loss"] == kept


def test_max_minutes_stops_and_the_run_goes_on(data: PreparedData, tmp_path: Path) -> None:
    recipe = small_recipe(data, tmp_path / "limited", steps=4, max_minutes=1e-9)
    path, reports = run(recipe)
    assert [report.step for report in reports] == [1]
    assert not path.exists()  # its codebook had not started
    path, reports = run(recipe, resume=True)
    assert [report.step for report in reports] == [2]
    assert vqcodec.load(path, device="cpu").provenance["steps"] == 2
    _, reports = run(recipe.model_copy(update={"max_minutes": 60.0}), resume=True)
    assert [report.step for report in reports] == [3, 4]
    unbroken = small_recipe(data, tmp_path / "unbroken", steps=4)
    run(unbroken)
    found, expected = state_of(recipe)[0], state_of(unbroken)[0]
    assert [key for key in expected if not torch.equal(found[key], expected[key])] == []


def test_a_finished_run_has_nothing_left_to_do(data: PreparedData, tmp_path: Path) -> None:
    recipe = small_recipe(data, tmp_path)
    path, _ = run(recipe)
    before = path.read_bytes()
    assert run(recipe, resume=True) == (path, [])
    assert path.read_bytes() == before


def test_a_run_is_neither_overwritten_nor_invented(data: PreparedData, tmp_path: Path) -> None:
    recipe = small_recipe(data, tmp_path)
    with pytest.raises(ConfigError, match=f"{tmp_path}: holds no run to continue"):
        run(recipe, resume=True)
    run(recipe)
    before = (tmp_path / STATE_FILE).read_bytes()
    with pytest.raises(ConfigError, match=f"{tmp_path}: already holds a run; .*--resume"):
        run(recipe)
    assert (tmp_path / STATE_FILE).read_bytes() == before


def test_a_run_is_not_continued_with_another_recipe(data: PreparedData, tmp_path: Path) -> None:
    path, _ = run(small_recipe(data, tmp_path))
    other_model = {"model": model_with(quantizer={"codebook_size": 32})}
    for changes, told in (
        (other_model, "model.quantizer.codebook_size 32, was 16"),
        ({"stage": "fast", "initial_model": str(path)}, "stage fast, was codec"),
    ):
        with pytest.raises(
            CheckpointError, match=rf"last\.safetensors: belongs to another recipe \(.*{told}"
        ):
            run(small_recipe(data, tmp_path, **changes), resume=True)


def test_a_state_of_other_parameters_is_refused(tmp_path: Path) -> None:
    path, layers = tmp_path / STATE_FILE, [nn.Linear(3, 3), nn.Linear(3, 300)]
    optimizers = [torch.optim.AdamW(layer.parameters(), fused=True) for layer in layers]
    for layer, optimizer in zip(layers, optimizers, strict=True):
        layer(torch.ones(3)).sum().backward()
        optimizer.step()
    save_state(path, {}, optimizers[0], {})
    # Or the next step would read beyond the moments of the smaller one.
    with pytest.raises(CheckpointError, match="the optimiser's tensors 0 have other shapes"):
        restore(path, read_state(path), {}, optimizers[1])


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Messages, but for that of data without recordings for validation, as these are."""
    return [message for message in caplog.messages if message != UNVALIDATED]


def test_a_resumed_run_tells_what_has_changed(
    data: PreparedData, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run(small_recipe(data, tmp_path))
    best = json.loads(state_of(small_recipe(data, tmp_path))[1]["progress"])["best"]
    # Of ten times the loss no validation would be better than before.
    heavy = small_recipe(
        data,
        tmp_path,
        steps=5,
        log_every=2,
        loss={"mel": 10.0},
        optimizer={"learning_rate": 1e-4},
    )
    caplog.set_level(logging.WARNING, "vqcodec.training")
    path, _ = run(heavy, resume=True)
    assert told(caplog) == [
        "resumed with other settings: loss.mel 10.0, was 1.0; "
        "optimizer.learning_rate 0.0001, was 0.001; steps 5, was 3"
    ]
    provenance = checkpoint.load(path).provenance
    assert provenance["steps"] == 5
    assert provenance["validation_loss"] > best


def test_other_recordings_are_told_and_their_validation_begins_anew(
    data: PreparedData, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    roots = [shutil.copytree(data.root, tmp_path / name) for name in ("moved", "other")]
    clips = roots[1] / "clips.jsonl"
    clips.write_text(clips.read_text().replace('"train"', '"valid"', 1))
    output = tmp_path / "run"
    run(small_recipe(data, output))
    begun = trainer_of(small_recipe(data, output))
    begun.best = 0.0  # which no validation is below
    begun._save(output / STATE_FILE)
    caplog.set_level(logging.WARNING, "vqcodec.training")
    for steps, root, n_told in ((4, roots[0], 0), (5, roots[1], 1)):
        section = data_section(PreparedData(root))
        path, _ = run(small_recipe(data, output, steps=steps, data=section), resume=True)
        is_told = ["resumed on other recordings" in each for each in caplog.messages]
        assert sum(is_told) == n_told
        assert (checkpoint.load(path).provenance["steps"] == steps) == bool(n_told)


def test_more_steps_are_told_with_their_learning_rate(
    data: PreparedData, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    optimizer = {"warmup_steps": 0, "learning_rate": 1e-3, "final_learning_rate": 1e-4}
    run(small_recipe(data, tmp_path, steps=2, optimizer=optimizer))
    caplog.set_level(logging.WARNING, "vqcodec.training")
    run(small_recipe(data, tmp_path, steps=2, optimizer=optimizer), resume=True)
    run(small_recipe(data, tmp_path, steps=4, optimizer=optimizer), resume=True)
    assert told(caplog) == [
        "all 2 steps are done: steps=N, with a larger N, goes on",
        # Half of the cosine is left.
        "resumed with other settings: steps 4, was 2 (the learning rate goes on from 5.5e-04, "
        "where it would have been 1.0e-04)",
    ]


@pytest.mark.parametrize(
    ("precision", "is_built_for_it", "is_warned"),
    [("bfloat16", False, True), ("bfloat16", True, False), ("auto", False, False)],
)
def test_an_emulated_precision_is_told_before_the_first_step(
    data: PreparedData,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    precision: str,
    is_built_for_it: bool,
    is_warned: bool,
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": is_built_for_it})
    caplog.set_level(logging.WARNING, "vqcodec.training")
    monkeypatch.setattr(Trainer, "_batches", lambda self: ())
    run(small_recipe(data, tmp_path, precision=precision))
    warned = ["precision bfloat16 is emulated on this cpu" in each for each in told(caplog)]
    assert warned == ([True] if is_warned else [])


def test_frozen_codes_are_not_said_to_collapse(
    data: PreparedData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, _ = run(small_recipe(data, tmp_path / "codec"))
    monkeypatch.setattr(trainer, "SETTLING_STEPS", 0)
    monkeypatch.setattr(CollapseMonitor, "LOWEST_PERPLEXITY", 1.0)
    recipe = small_recipe(data, tmp_path / "fast", stage="fast", initial_model=str(path))
    assert not any("collapsing" in (report.warning or "") for report in run(recipe)[1])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_a_run_resumably(
    data: PreparedData,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    number: signal.Signals,
) -> None:
    def tell(report: Report) -> None:
        if report.step == 5:
            signal.raise_signal(number)

    caplog.set_level(logging.INFO, "vqcodec.training")
    section = data_section(data, workers=1)
    stopped = small_recipe(data, tmp_path / "stopped", steps=9, data=section)
    with pytest.raises(KeyboardInterrupt):
        stages.train(stopped, device="cpu", on_report=tell)
    assert "stopped at step 6: --resume goes on from there" in caplog.text
    run(stopped, resume=True)
    unbroken = small_recipe(data, tmp_path / "unbroken", steps=9)
    run(unbroken)
    found, expected = state_of(stopped)[0], state_of(unbroken)[0]
    assert [key for key in expected if not torch.equal(found[key], expected[key])] == []


@pytest.mark.parametrize(("number", "step"), [(signal.SIGTERM, 6), (None, 6), (signal.SIGINT, 9)])
def test_a_validation_is_broken_off_resumably(
    data: PreparedData,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: signal.Signals | None,
    step: int,
) -> None:
    """By a signal or, where that is None, by the time; also the last one, which ends the run."""
    changes = {"steps": 9, "validate_every": 3}
    unbroken = small_recipe(data, tmp_path / "unbroken", **changes)
    path, reports = run(unbroken)
    values, n_validated = Trainer._values, 0

    def told(self: Trainer, scalars: dict[str, torch.Tensor]) -> dict[str, float]:
        nonlocal n_validated
        if self.step == step and not torch.is_grad_enabled():
            n_validated += 1
            if number is None:
                patch.setattr(loop, "time", SimpleNamespace(monotonic=lambda: math.inf))
            else:
                signal.raise_signal(number)
        return values(self, scalars)

    stopped = small_recipe(data, tmp_path / "stopped", **changes)
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_values", told)
        with pytest.raises(KeyboardInterrupt) if number else nullcontext():
            run(stopped.model_copy(update={"max_minutes": 60.0}))
    assert n_validated == 1
    progress = json.loads(state_of(stopped)[1]["progress"])
    before = [report.validation for report in reports[: step - 1] if report.validation is not None]
    assert (progress["step"], progress["best"]) == (step, min(before))
    resumed, later = run(stopped, resume=True)
    assert [report.losses for report in later] == [report.losses for report in reports[step:]]
    (expected, of_unbroken), (found, of_stopped) = state_of(unbroken), state_of(stopped)
    assert of_stopped == of_unbroken
    assert [key for key in expected if not torch.equal(found[key], expected[key])] == []
    models = [load_file(each) for each in (path, resumed)]
    assert [key for key in models[0] if not torch.equal(models[0][key], models[1][key])] == []


def test_what_is_no_state_is_refused(data: PreparedData, tmp_path: Path) -> None:
    path, _ = run(small_recipe(data, tmp_path))
    state = tmp_path / STATE_FILE
    for content, fault in (
        (state.read_bytes()[:-100], r"last\.safetensors: not a readable model file"),
        (path.read_bytes(), "not a vqcodec-training file"),
    ):
        state.write_bytes(content)
        with pytest.raises(CheckpointError, match=fault):
            run(small_recipe(data, tmp_path), resume=True)


def test_no_bit_of_a_state_may_flip(data: PreparedData, tmp_path: Path) -> None:
    """One of each kind of tensor and of the progress; safetensors itself checks its header."""
    run(small_recipe(data, tmp_path))
    state = tmp_path / STATE_FILE
    whole = state.read_bytes()
    header_length = int.from_bytes(whole[:8], "little")
    header = json.loads(whole[8 : 8 + header_length])
    kinds = ("objective.model.encoder.", "objective.model.quantizer.codebook", "average.module.")
    places = [whole.index(b'step\\": ') + len(b'step\\": ')]
    for kind in (*kinds, "optimizer.0.exp_avg", "optimizer.0.exp_avg_sq", "optimizer.0.step"):
        key = next(key for key in header if key.startswith(kind))
        places.append(8 + header_length + header[key]["data_offsets"][0])
    for place in places:
        damaged = bytearray(whole)
        damaged[place] ^= 1
        state.write_bytes(damaged)
        with pytest.raises(CheckpointError, match=r"last\.safetensors: damaged \(its SHA-256"):
            run(small_recipe(data, tmp_path), resume=True)
