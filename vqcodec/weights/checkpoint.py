"""Models in PyTorch, from their files and into them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.module import (
    register_module_buffer_registration_hook,
    register_module_parameter_registration_hook,
)

from vqcodec.format.ngram_coder import NgramModel
from vqcodec.models.config import ModelConfig
from vqcodec.models.interfaces import Graph
from vqcodec.models.vqvae import DERIVED, VQVAE
from vqcodec.weights import model_file
from vqcodec.weights.model_file import Arrays, ModelFile, misfit

SLACK = 1 << 22  # values: more than any network derives from its configuration

Network = TypeVar("Network", bound=nn.Module)


@dataclass(frozen=True)
class Checkpoint:
    """A model in evaluation mode, float32, on the CPU, and what its `ModelFile` tells."""

    name: str
    model: VQVAE
    voices: dict[str, np.ndarray]
    fingerprint: bytes
    provenance: dict[str, Any]
    tables: NgramModel | None = None

    @property
    def config(self) -> ModelConfig:
        """What the model is made of."""
        return self.model.config


def save(
    path: str | Path,
    model: VQVAE,
    voices: Mapping[str, np.ndarray],
    provenance: Mapping[str, Any],
    tables: NgramModel | None = None,
    graphs: Mapping[str, Graph] = MappingProxyType({}),
) -> bytes:
    """Write a model file atomically; returns its fingerprint.

    Args:
        path: ends in .safetensors.
        model: any device.
        voices: name -> (64,) int8.
        provenance: what JSON can hold.
        tables: of the entropy coder. They are no part of the fingerprint: files of codes name
            them on their own.
        graphs: `export_graphs` of the model; without them the file can be used by torch alone.
    """
    weights = {
        name: tensor.cpu().numpy()
        for name, tensor in model.state_dict().items()
        if not name.startswith(DERIVED)
    }
    return model_file.write(path, model.config, weights, voices, provenance, tables, graphs)


def load(name: str | Path | None = None) -> Checkpoint:
    """Load a packaged model by name, `speech-1k` when None, or a model file by path.

    Raises CheckpointError if there is none, or it is not one of ours, damaged, or too new.
    """
    file = model_file.read(name)
    return Checkpoint(
        file.name, network(file), file.voices, file.fingerprint, file.provenance, file.tables
    )


def network(file: ModelFile) -> VQVAE:
    """The networks of a model file, as `built` makes them.

    Raises CheckpointError if weights and configuration disagree.
    """
    weights = file.weights()
    rows = weights.get("speaker.embedding.weight", np.empty(0)).shape[0]
    try:
        return built(lambda: VQVAE(file.config, n_speakers=rows), weights)
    except (ValueError, RuntimeError) as error:
        raise misfit(file.path, error) from None


def built(build: Callable[[], Network], weights: Arrays) -> Network:
    """A network for use, with weights for all of its state but what is `DERIVED`.

    Raises ValueError or RuntimeError if it asks for other weights than these. One that asks for
    more is refused before it takes the memory.
    """
    with _at_most(SLACK + 2 * sum(value.size for value in weights.values())):
        network = build()
    wanted = network.state_dict()
    derived = {name: value for name, value in wanted.items() if name.startswith(DERIVED)}
    network.load_state_dict(
        derived | {name: torch.from_numpy(value) for name, value in weights.items()}
    )
    return network.eval().requires_grad_(False)


@contextmanager
def _at_most(n_values: int) -> Iterator[None]:
    """Refuse networks that this thread builds of more values.

    A network registers its weights before it fills them, and until then they take no memory.
    """
    thread, n_left = threading.get_ident(), n_values

    def count(_module: nn.Module, _name: str, tensor: Tensor | None) -> None:
        nonlocal n_left
        if tensor is None or threading.get_ident() != thread:
            return
        n_left -= tensor.numel()
        if n_left < 0:
            raise ValueError("the configuration asks for more values than the file holds")

    hooks = [
        register_module_parameter_registration_hook(count),
        register_module_buffer_registration_hook(count),
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
