"""Begin a model of another code rate from a trained one: what the two have in common is taken over.

    python scripts/warm_start.py speech-1k speech_2k.yaml -o runs/start.safetensors
    vqcodec train speech_2k.yaml initial_model=runs/start.safetensors

Parameters of the same name and shape are copied; the kernels of a strided convolution whose stride
has changed are resampled in time; the rest, and the codebook, start anew.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
import torch.nn.functional as F
import typer
from torch import Tensor

from vqcodec.errors import VqcodecError
from vqcodec.models.vqvae import VQVAE
from vqcodec.training.recipe_files import load_recipe
from vqcodec.weights import checkpoint


def adapted(old: Tensor, new: Tensor) -> Tensor | None:
    """The old parameter in the new one's shape, or None where it says nothing about it."""
    if old.shape == new.shape:
        return old
    if old.dim() == 3 and old.shape[:2] == new.shape[:2]:
        # Fewer taps sum less: of inputs that differ, the power of every output stays.
        taps = F.interpolate(old, new.shape[2], mode="linear", align_corners=False)
        return taps * (old.shape[2] / new.shape[2]) ** 0.5
    return None


def main(
    model: Annotated[str, typer.Argument(help="A packaged model, or a model file.")],
    recipe: Annotated[Path, typer.Argument(help="Whose model is begun.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The file to write.")],
) -> None:
    """Write a model of the recipe's shape."""
    shape = load_recipe(recipe).model.model_copy(update={"wavenet": None})
    trained = checkpoint.load(model).model.state_dict()
    begun = VQVAE(shape)
    own = begun.state_dict()
    for name, parameter in own.items():
        if name in trained and (value := adapted(trained[name], parameter)) is not None:
            own[name] = value
    # The codebook is started again by k-means, after the recipe's unquantised steps.
    own["quantizer.initialized"] = torch.tensor(False)
    begun.load_state_dict(own)
    checkpoint.save(output, begun, {}, {"begun_from": model})


if __name__ == "__main__":
    try:
        typer.run(main)
    except VqcodecError as error:
        raise SystemExit(f"warm_start.py: {error}") from None
