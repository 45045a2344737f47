"""The complete state of a training, in one safetensors file: nothing is unpickled to resume."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

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


def is_trained(path: Path, steps: int) -> bool:
    """Return whether the state at `path` has done so many steps, and validated the last."""
    try:
        with safe_open(path, framework="numpy") as file:
            progress = json.loads(file.metadata()["progress"])
            return bool(progress["step"] >= steps and not progress.get("owes_validation"))
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, AttributeError):
        return False  # where none can be read


class State(NamedTuple):
    """What `save_state` wrote: weights and optimiser state by name, and progress."""

    tensors: dict[str, np.ndarray]
    progress: dict[str, Any]


def read_state(path: Path) -> State:
    """Read a state; raises CheckpointError if it is missing or damaged."""
    metadata, arrays = read_tensors(path, FORMAT)
    if "sha256" in metadata:  # older states have none
        remedy = "restore it from a copy, or begin anew in another output=FOLDER"
        verify_checksum(path, arrays, metadata, remedy)
    return State(arrays, json.loads(metadata["progress"]))


def restore(path: Path, state: State, modules: dict[str, nn.Module], optimizer: Optimizer) -> None:
    """Restore modules and optimiser in place from the state that was read at `path`.

    Raises CheckpointError if its tensors are those of other modules.
    """
    tensors = {key: torch.from_numpy(array) for key, array in state.tensors.items()}
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
        moments: dict[int, dict[str, Tensor]] = {}
        for key, tensor in tensors.items():
            if key.startswith("optimizer."):
                _, index, entry = key.split(".")
                moments.setdefault(int(index), {})[entry] = tensor
        groups = optimizer.state_dict()["param_groups"]
        parameters = [each for group in optimizer.param_groups for each in group["params"]]
        for number, entries in moments.items():
            # A fused optimiser would read beyond what is too small.
            shapes = {tuple(tensor.shape) for tensor in entries.values() if tensor.dim()}
            if number >= len(parameters) or not shapes <= {tuple(parameters[number].shape)}:
                raise RuntimeError(f"the optimiser's tensors {number} have other shapes")
        optimizer.load_state_dict({"state": moments, "param_groups": groups})
    except RuntimeError as error:
        fault = " ".join(str(error).split())[:200]
        raise CheckpointError(
            f"{path}: belongs to another recipe ({fault}): resume with the recipe it began with"
        ) from None
