from __future__ import annotations

import itertools
import runpy
import subprocess
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from training_data import small_recipe

from vqcodec.data.prepared import PreparedData
from vqcodec.errors import ConfigError
from vqcodec.training.recipe_files import load_recipe
from vqcodec.weights import checkpoint

SCRIPT = str(Path(__file__).parents[2] / "scripts" / "train_minutes.py")
ADVERSARIAL = {"weight": 0.05, "start_step": 3, "channels": 4}


def test_as_many_steps_are_planned_as_fit() -> None:
    fitted = runpy.run_path(SCRIPT)["fitted"]
    changes = ["steps=1000", "adversarial.weight=0.05", "adversarial.start_step=750"]
    recipe = load_recipe("speech_1k_gpu.yaml", changes)
    plan = fitted(recipe, 600.0, 0.125, 0.375)
    # Three of four steps without discriminators: 0.1875 s a step.
    assert (plan.steps, plan.adversarial.start_step) == (3200, 2400)
    rest = {"steps", "adversarial"}
    assert plan.model_dump(exclude=rest) == recipe.model_dump(exclude=rest)
    without = load_recipe("speech_1k_gpu.yaml")
    assert fitted(without, 600.0, 0.125, 0.125).steps == 4800
    with pytest.raises(ConfigError, match="only 299 steps fit in the time"):
        fitted(without, 37.4, 0.125, 0.125)


def test_a_recipe_is_trained_to_its_end(
    data: PreparedData,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    main = runpy.run_path(SCRIPT)["main"]
    # Each look at the clock finds it a second on, so that two steps take a second.
    clock = SimpleNamespace(monotonic=partial(next, itertools.count()))
    monkeypatch.setitem(main.__globals__, "time", clock)
    monkeypatch.setitem(main.__globals__, "SPENT_ON_STEPS", 4 / 593)
    monkeypatch.setitem(main.__globals__, "PROBE_STEPS", 6)
    recipe = small_recipe(data, tmp_path / "run", steps=4, adversarial=ADVERSARIAL)
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(recipe.model_dump(mode="json")))
    main(10, path, [], "cpu")
    model = tmp_path / "run" / "model.safetensors"
    assert capsys.readouterr().out == f"model: {model}\n"
    provenance = checkpoint.load(model).provenance
    trained = provenance["recipe"]
    assert provenance["steps"] == trained["steps"] == 8
    assert trained["adversarial"]["start_step"] == 6


def test_a_fault_is_one_line(tmp_path: Path) -> None:
    command = [sys.executable, SCRIPT, "1", "tiny.yaml", f"data.root={tmp_path}/none"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("train_minutes.py: ")
    assert done.stderr.count("\n") == 1
