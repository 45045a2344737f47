"""The complete state of a training, in one safetensors file: nothing is unpickled to resume."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.optim import Optimizer

from vqcodec.errors import CheckpointError
from vqcodec.weights.model_file import read_tensors, verify_checksum, write_tensors

FORMAT = "vqcodec-training"


def save_state(
    path: Path, modules: dict[str, nn.Module], optimizer: Optimizer, progress: dict[str, Any]
) -> None:
    """Write weights, optimiser state, all of it tensors, and progress, JSON, atomically."""
    tensors: dict[str, np.ndarray] = {}
    for name, module in modules.items():
        for key, tensor in module.state_dict().items():
            tensors[f"{name}.{key}"] = tensor.detach().cpu().numpy()
    for index, entries in optimizer.state_dict()["state"].items():
        for key, tensor in entries.items():
            tensors[f"optimizer.{index}.{key}"] = tensor.detach().cpu().numpy()
    write_tensors(path, tensors, {"format": FORMAT, "progress": json.dumps(progress)})


def steps_done(path: Path) -> int:
    """Return how many steps the state at `path` has done, 0 where none can be read."""
    try:
        with safe_open(path, framework="numpy") as file:
            return int(json.loads(file.metadata()["progress"])["step"])
    except (SafetensorError, OSError, KeyError, TypeError, ValueError):
        return 0


def load_state(
    path: Path,
    modules: dict[str, nn.Module],
    optimizer: Optimizer,
    check: Callable[[dict[str, Any]], None] = lambda progress: None,
) -> dict[str, Any]:
    """Restore in place what `save_state` wrote; returns the progress.

    Raises CheckpointError if it is missing, damaged, or of another model. `check` is shown the
    progress before anything is restored, and may raise another.
    """
    metadata, arrays = read_tensors(path, FORMAT)
    if "sha256" in metadata:  # older states have none
        remedy = "restore it from a copy, or begin anew in another output=FOLDER"
        verify_checksum(path, arrays, metadata, remedy)
    progress: dict[str, Any] = json.loads(metadata["progress"])
    check(progress)
    tensors = {key: torch.from_numpy(array) for key, array in arrays.items()}
    try:
        for name, module in modules.items():
            prefix = f"{name}."
            module.load_state_dict(
                {
                    key.removeprefix(prefix): tensor
                    for key, tensor in tensors.items()
                    if key.startswith(prefix)
                }
            )
        state: dict[int, dict[str, Tensor]] = {}
        for key, tensor in tensors.items():
            if key.startswith("optimizer."):
                _, index, entry = key.split(".")
                state.setdefault(int(index), {})[entry] = tensor
        groups = optimizer.state_dict()["param_groups"]
        parameters = [each for group in optimizer.param_groups for each in group["params"]]
        for number, entries in state.items():
            # A fused optimiser would read beyond what is too small.
            shapes = {tuple(tensor.shape) for tensor in entries.values() if tensor.dim()}
            if number >= len(parameters) or not shapes <= {tuple(parameters[number].shape)}:
                raise RuntimeError(f"the optimiser's tensors {number} have other shapes")
        optimizer.load_state_dict({"state": state, "param_groups": groups})
    except RuntimeError as error:
        fault = " ".join(str(error).split())[:200]
        raise CheckpointError(
            f"{path}: belongs to another recipe ({fault}): resume with the recipe it began with"
        ) from None
    return progress
