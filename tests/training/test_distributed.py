from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from training_data import data_section, in_two_processes, model_with, rows, small_recipe

from vqcodec.data.prepared import PreparedData
from vqcodec.errors import ConfigError
from vqcodec.training import stages, trainer
from vqcodec.training.loop import STATE_FILE, Report
from vqcodec.training.recipe import Recipe
from vqcodec.training.session import Processes

SCRIPT = """
from vqcodec.training import stages, trainer
from vqcodec.training.recipe_files import load_recipe
trainer.VALIDATION_BATCHES = 2
stages.train(*map(load_recipe, paths), device="cpu", on_report=reports.append)
"""


@pytest.mark.usefixtures("_few_validation_batches")
def test_two_processes_train_as_one(data: PreparedData, tmp_path: Path) -> None:
    def recipes(folder: Path) -> list[Recipe]:
        """Two codecs, and the stages after the second; processes can be joined only once."""

        def one(name: str, **changes: Any) -> Recipe:
            section = data_section(data, batch_size=4)
            return small_recipe(data, folder / name, **{"data": section, **changes})

        def codec(name: str, codebook_update: str, adversarial: float) -> Recipe:
            # The high threshold restarts codes at nearly every step.
            quantizer = {"codebook_update": codebook_update, "threshold_ema_dead_code": 0.5}
            return one(
                name,
                steps=12,
                unquantized_steps=4,
                validate_every=6,
                max_minutes=60.0,
                model=model_with(quantizer=quantizer),
                adversarial={"weight": adversarial, "channels": 2},
                entropy_coder={"hours": 0.001, "steps": 8},
            )

        model = str(folder / "loss" / "model.safetensors")
        encoder = one(
            "encoder", stage="encoder", initial_model=model, augmentation={"probability": 0.5}
        )
        model = str(folder / "encoder" / "model.safetensors")
        wavenet = one("wavenet", stage="wavenet", initial_model=model)
        return [codec("ema", "ema", 1.0), codec("loss", "loss", 0.0), encoder, wavenet]

    alone, shared = recipes(tmp_path / "one"), recipes(tmp_path / "two")
    reports: list[Report] = []
    stages.train(*alone, device="cpu", on_report=reports.append)
    expected, found = rows(reports), in_two_processes(SCRIPT, shared, tmp_path)
    assert [len(row) for row in found] == [len(row) for row in expected]
    assert len(found) == 12 + 12 + 3 + 3
    np.testing.assert_allclose(
        np.concatenate(found), np.concatenate(expected), rtol=2e-4, atol=1e-5
    )
    for one, two in zip(alone, shared, strict=True):
        states = [load_file(Path(recipe.output) / STATE_FILE) for recipe in (one, two)]
        assert states[0].keys() == states[1].keys()
        assert all(bool(state["objective.model.quantizer.initialized"]) for state in states)
        codebooks = [state["objective.model.quantizer.codebook"].numpy() for state in states]
        np.testing.assert_allclose(codebooks[1], codebooks[0], atol=1e-3)


def test_a_batch_must_divide_evenly(data: PreparedData, tmp_path: Path) -> None:
    recipe = small_recipe(data, tmp_path)
    with pytest.raises(ConfigError, match=r"batch_size 2 cannot be shared evenly by 4 processes"):
        trainer.Trainer(recipe, Processes(0, 4, torch.device("cpu")), lambda _: None)
