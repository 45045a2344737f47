"""The models that a training starts from and writes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from vqcodec import checkpoint
from vqcodec.data.dataset import speaker_names
from vqcodec.data.prepared import PreparedData
from vqcodec.errors import CheckpointError
from vqcodec.models.vqvae import VQVAE
from vqcodec.training.config import Recipe
from vqcodec.training.voices import mean_voices


def initial_model(recipe: Recipe, speakers: Sequence[str]) -> VQVAE:
    """A new model, or `recipe.initial_model` and what it lacks.

    Args:
        recipe: of the training.
        speakers: names of the training speakers; as many rows has a speaker table.

    Raises:
        CheckpointError: the initial model is not of the recipe's shape, or its table is of other
            speakers.
    """
    if recipe.initial_model is None:
        return VQVAE(recipe.model, len(speakers))
    loaded = checkpoint.load(recipe.initial_model)
    config, start = recipe.model, loaded.model.state_dict()
    if config.speaker.kind == "table" and sorted(loaded.voices) != sorted(speakers):
        raise CheckpointError(
            f"{recipe.initial_model}: has a table of other speakers than the data: train it on "
            "data of its own speakers, or begin anew"
        )
    if recipe.stage == "fast":
        # Its codes stay, and so a WaveNet keeps its worth; one that is new would stay untrained.
        config = config.model_copy(update={"wavenet": loaded.config.wavenet})
    model = VQVAE(config, len(speakers))
    own = model.state_dict()
    # Absent parts (a decoder that is new) start fresh; present parts must fit.
    misfits = [key for key in start.keys() & own.keys() if start[key].shape != own[key].shape]
    if misfits or start.keys() - own.keys():
        fault = misfits or sorted(start.keys() - own.keys())
        raise CheckpointError(
            f"{recipe.initial_model}: does not fit the recipe's model at {fault[0]}: "
            "use the model section that it was trained with"
        )
    model.load_state_dict({**own, **start})
    return model


def write_model(
    path: Path,
    model: VQVAE,
    recipe: Recipe,
    data: PreparedData,
    device: torch.device,
    *,
    steps: int,
    validation_loss: float,
) -> None:
    """Write what a stage has trained, with the voices of its speakers.

    Args:
        path: of the model file.
        model: in evaluation mode, on `device`.
        recipe: what it was trained by.
        data: what it was trained on.
        device: a CPU or a GPU.
        steps: done.
        validation_loss: of the model.
    """
    if recipe.stage == "codec" and model.wavenet is not None:
        # Untrained: the file is to offer only what can decode.
        config = model.config.model_copy(update={"wavenet": None})
        bare = VQVAE(config, len(speaker_names(data.split("train")))).to(device).eval()
        bare.load_state_dict(model.state_dict(), strict=False)
        model = bare
    provenance = {
        "stage": recipe.stage,
        "steps": steps,
        "validation_loss": round(validation_loss, 4),
        "recipe": recipe.model_dump(mode="json"),
        "torch": torch.__version__,
    }
    # Frozen codes keep their entropy coder, and so their files stay readable.
    start = recipe.initial_model if recipe.freezes_codes else None
    tables = checkpoint.load(start).tables if start else None
    checkpoint.save(path, model, mean_voices(model, data, device), provenance, tables)
