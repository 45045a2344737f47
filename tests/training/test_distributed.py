from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from training_data import data_section, in_two_processes, model_with, rows, small_recipe

from vqcodec.data.prepared import PreparedData
from vqcodec.errors import ConfigError
from vqcodec.training import stages, trainer
from vqcodec.training.loop import STATE_FILE, Report
from vqcodec.training.session import Processes

STEPS = 12
SCRIPT = """
from vqcodec.training import stages, trainer
from vqcodec.training.recipe_files import load_recipe
trainer.VALIDATION_BATCHES = 2
stages.train(load_recipe(path), device="cpu", on_report=reports.append)
"""


@pytest.mark.parametrize(("codebook_update", "adversarial"), [("ema", 1.0), ("loss", 0.0)])
def test_two_processes_train_as_one(
    data: PreparedData,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    codebook_update: str,
    adversarial: float,
) -> None:
    # The high threshold restarts codes at nearly every step.
    quantizer = {"codebook_update": codebook_update, "threshold_ema_dead_code": 0.5}
    recipes = [
        small_recipe(
            data,
            tmp_path / name / "run",
            steps=STEPS,
            unquantized_steps=4,
            validate_every=6,
            max_minutes=60.0,
            data=data_section(data, batch_size=4),
            model=model_with(quantizer=quantizer),
            adversarial={"weight": adversarial, "channels": 2},
        )
        for name in ("one", "two")
    ]
    monkeypatch.setattr(trainer, "VALIDATION_BATCHES", 2)
    reports: list[Report] = []
    stages.train(recipes[0], device="cpu", on_report=reports.append)
    alone, together = rows(reports), in_two_processes(SCRIPT, recipes[1], tmp_path)
    assert alone.shape == together.shape
    assert len(alone) == STEPS
    np.testing.assert_allclose(together, alone, rtol=2e-4, atol=1e-5)
    states = [load_file(Path(r.output) / STATE_FILE) for r in recipes]
    assert states[0].keys() == states[1].keys()
    assert all(bool(state["objective.model.quantizer.initialized"]) for state in states)
    codebooks = [state["objective.model.quantizer.codebook"].numpy() for state in states]
    np.testing.assert_allclose(codebooks[1], codebooks[0], atol=1e-3)


def test_a_batch_must_divide_evenly(data: PreparedData, tmp_path: Path) -> None:
    recipe = small_recipe(data, tmp_path)
    with pytest.raises(ConfigError, match=r"batch_size 2 cannot be shared evenly by 4 processes"):
        trainer.Trainer(recipe, Processes(0, 4, torch.device("cpu")), lambda _: None)
