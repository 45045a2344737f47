"""The training of a codec: one stage, or several in a row, each of the model of the one before."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import takewhile
from pathlib import Path

from vqcodec.errors import ConfigError
from vqcodec.training.loop import STATE_FILE, Report, check_is_new, require_model
from vqcodec.training.recipe import CODEC_FILE, Recipe
from vqcodec.training.session import claim_output, join_processes
from vqcodec.training.state import is_trained
from vqcodec.training.trainer import Trainer
from vqcodec.weights import model_file


def train(
    *recipes: Recipe,
    device: str = "auto",
    resume: bool = False,
    on_report: Callable[[Report], None] = lambda report: None,
) -> Path:
    """Train to the end of a recipe and of the stages that follow it, or of its time.

    Args:
        recipes: One or more, in order, as `recipe_files.read_stages` reads them; `max_minutes`
            count from the start of the first.
        device: `auto`, `cpu` or `cuda`. Under torchrun, one process per device.
        resume: Continue the run in the recipes' `output` exactly where it stopped.
        on_report: Called every `log_every` steps and after a validation, on the first process.

    Returns:
        Path of the model file of the stage that was trained last: the best by validation. It does
        not exist yet if the time was over before the codebook started.

    Raises:
        ConfigError, DataError, CheckpointError: With a remedy.
        VqcodecError: The loss is no longer finite.
    """
    if not resume:
        for recipe in recipes:
            check_is_new(Path(recipe.output))
    started = time.monotonic()
    n_finished = len(list(takewhile(_is_finished, recipes[:-1]))) if resume else 0
    for recipe in recipes[n_finished + 1 :]:
        _refuse_begun(Path(recipe.output))
    if n_finished:
        require_model(Path(recipes[n_finished - 1].output) / CODEC_FILE)
    with join_processes(device) as place:
        for recipe in recipes[n_finished:]:
            is_begun = (Path(recipe.output) / STATE_FILE).exists() or recipe is recipes[0]
            passed = (time.monotonic() - started) / 60
            left = None if recipe.max_minutes is None else recipe.max_minutes - passed
            with claim_output(recipe, place):
                own = recipe.model_copy(update={"max_minutes": left})
                trainer = Trainer(own, place, on_report)
                trainer.is_followed |= recipe is not recipes[-1]
                path = trainer.run(resume and is_begun)
            if trainer.step < recipe.steps:
                break
    return path


def _is_finished(recipe: Recipe) -> bool:
    """Whether a stage has nothing left to do."""
    output = Path(recipe.output)
    if not is_trained(output / STATE_FILE, recipe.steps):
        return False
    path = output / CODEC_FILE
    lacks_tables = recipe.fits_entropy_coder and path.exists()
    return not lacks_tables or model_file.read(path).tables is not None


def _refuse_begun(output: Path) -> None:
    """Raise a ConfigError if a stage that is yet to begin lies in its output folder."""
    if (output / STATE_FILE).exists():
        raise ConfigError(
            f"{output}: began from a model that is now to be trained further; remove the folder, "
            "and this stage begins anew"
        )
