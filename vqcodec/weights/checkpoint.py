"""Model files: one .safetensors with weights, configuration, voices, fingerprint and provenance.

It may hold the tables of the entropy coder too. The configuration and the rest stand in the file's
metadata as JSON, so nothing is ever unpickled. Weights are stored in half precision, the bottleneck
in full, and the largest matrices of the fast decoder as int8, whose rounding lies some 35 dB under
the audio.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as safetensors_bytes
from torch import Tensor, nn
from torch.nn.modules.module import (
    register_module_buffer_registration_hook,
    register_module_parameter_registration_hook,
)

from vqcodec.errors import CheckpointError
from vqcodec.files import write_atomically
from vqcodec.format import ngram_coder
from vqcodec.format.ngram_coder import NgramModel
from vqcodec.models.config import ModelConfig
from vqcodec.models.vqvae import VQVAE
from vqcodec.weights.registry import FORMAT, VERSION, check_version, find
from vqcodec.weights.voices import VECTOR_LENGTH

FINGERPRINT_BYTES = 8
# The parts that give codes and speaker vectors their meaning: a decoder may be trained further
# and still read old files.
MEANING = ("encoder.", "norm.", "quantizer.", "speaker.")
FULL_PRECISION = ("norm.", "quantizer.")
EIGHT_BITS, SCALE = re.compile(r"fast\.blocks\.\d+\.(expand|project)\.weight"), ".scale8"
# Follows from the configuration, and is not stored.
DERIVED = ("speaker.mel.",)
SLACK = 1 << 22  # values: more than any network derives from its configuration

Network = TypeVar("Network", bound=nn.Module)


@dataclass(frozen=True)
class Checkpoint:
    """A model and what is known about it.

    Attributes:
        name: file stem.
        model: in evaluation mode, float32, on the CPU.
        voices: name -> (64,) int8 speaker vector.
        fingerprint: 8 bytes; files of codes name it.
        provenance: data, steps, hardware, licence, metrics: free JSON.
        tables: of the entropy coder, if there are any.
    """

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
) -> bytes:
    """Write a model file atomically; returns its fingerprint.

    Args:
        path: ends in .safetensors.
        model: any device.
        voices: name -> (64,) int8.
        provenance: what JSON can hold.
        tables: of the entropy coder. They are no part of the fingerprint: files of codes name
            them on their own.
    """
    tensors = {
        stored: part.cpu().contiguous()
        for name, tensor in model.state_dict().items()
        if not name.startswith(DERIVED)
        for stored, part in _stored(name, tensor).items()
    }
    names = sorted(voices)
    table = [np.asarray(voices[name], np.int8) for name in names]
    tensors["voices"] = torch.from_numpy(
        np.stack(table) if table else np.zeros((0, model.config.speaker.dim), np.int8)
    )
    if tables is not None:
        tensors |= {name: torch.tensor(array) for name, array in tables.to_tensors().items()}
    config = model.config.model_dump_json()
    fingerprint = _fingerprint(tensors, config)
    metadata = {
        "format": FORMAT,
        "version": str(VERSION),
        "config": config,
        "fingerprint": fingerprint.hex(),
        "voices": json.dumps(names),
        "provenance": json.dumps(dict(provenance)),
    }
    metadata["sha256"] = checksum(tensors, metadata)
    write_atomically(path, safetensors_bytes(tensors, metadata))
    return fingerprint


def load(name: str | Path | None = None) -> Checkpoint:
    """Load a packaged model by name, or a model file by path.

    Args:
        name: `speech-1k` when None.

    Raises:
        CheckpointError: no such model, or not one of ours, damaged, or too new.
    """
    path = find(name)
    metadata, tensors = read_tensors(path, FORMAT)
    try:
        return _assembled(path, metadata, tensors)
    except (LookupError, TypeError, ValueError, ArithmeticError, RecursionError) as error:
        raise CheckpointError(f"{path}: damaged ({error!r}): fetch it again") from None


def _assembled(path: Path, metadata: dict[str, str], tensors: dict[str, Tensor]) -> Checkpoint:
    """The model of a file; any of Python's errors of values where its metadata is damaged."""
    check_version(path, metadata)
    config = metadata["config"]
    if checksum(tensors, metadata) != metadata["sha256"]:
        raise CheckpointError(f"{path}: damaged (its SHA-256 does not match): fetch it again")
    table = tensors.pop("voices").numpy()
    voices = _voices(json.loads(metadata["voices"]), table)
    tables = _tables(path, tensors)
    fingerprint = _fingerprint(tensors, config)
    rows = tensors.get("speaker.embedding.weight", torch.empty(0)).shape[0]
    try:
        parsed = ModelConfig.model_validate_json(config)
        model = built(lambda: VQVAE(parsed, n_speakers=rows), _restored(tensors))
    except (ValidationError, ValueError, RuntimeError) as error:
        fault = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{path}: weights and configuration disagree: {fault}") from None
    provenance = dict(json.loads(metadata["provenance"]))
    return Checkpoint(path.stem, model, voices, fingerprint, provenance, tables)


def built(build: Callable[[], Network], weights: Mapping[str, Tensor]) -> Network:
    """A network for use, with the weights of a file.

    Args:
        build: makes it with any weights.
        weights: all of its state but what is `DERIVED`.

    Raises:
        ValueError: the network asks for other weights than these, or some are no finite numbers.
            One that asks for more is refused before it takes the memory.
    """
    for name, value in weights.items():
        if not value.isfinite().all():
            raise ValueError(f"{name} has values that are no finite numbers")
    with _at_most(SLACK + 2 * sum(value.numel() for value in weights.values())):
        network = build()
    wanted = network.state_dict()
    derived = {name: value for name, value in wanted.items() if name.startswith(DERIVED)}
    network.load_state_dict(derived | dict(weights))
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


def _voices(names: list[str], table: np.ndarray) -> dict[str, np.ndarray]:
    if table.dtype != np.int8 or table.shape != (len(names), VECTOR_LENGTH):
        raise ValueError(f"voices of shape {table.shape}")
    if not all(map(str.isprintable, names)):
        raise ValueError("names of voices that cannot be printed")
    return dict(zip(names, table, strict=True))


def _tables(path: Path, tensors: dict[str, Tensor]) -> NgramModel | None:
    """Take the entropy coder's tables, if there are any, out of the tensors."""
    names = [name for name in tensors if name.startswith(ngram_coder.PREFIX)]
    found = {name: tensors.pop(name).numpy() for name in names}
    try:
        return NgramModel.from_tensors(found) if found else None
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}: fetch it again") from None


def read_tensors(path: Path, format_name: str) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Metadata and tensors of a .safetensors file of ours.

    Raises:
        CheckpointError: missing, damaged, or of another kind.
    """
    if not path.exists():
        raise CheckpointError(f"{path}: no such file")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = dict(file.metadata() or {})
            if metadata.get("format") != format_name:
                raise CheckpointError(f"{path}: not a {format_name} file")
            return metadata, {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: not a readable model file: {error}") from None


def _stored(name: str, tensor: Tensor) -> dict[str, Tensor]:
    """A weight as one tensor or two of the file."""
    if EIGHT_BITS.fullmatch(name):
        scale = (tensor.abs().amax(dim=1, keepdim=True) / 127).clamp(min=1e-7).half()
        return {name: (tensor / scale.float()).round().to(torch.int8), name + SCALE: scale}
    if tensor.is_floating_point() and not name.startswith(FULL_PRECISION):
        return {name: tensor.half()}
    return {name: tensor}


def _restored(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights of which `_stored` made the tensors."""
    weights = {}
    for name, tensor in tensors.items():
        if name.endswith(SCALE):
            continue
        scale = tensors.get(name + SCALE, torch.ones(()))
        if scale.dim() and scale.shape != (*tensor.shape[:1], 1):
            raise ValueError(f"{name + SCALE} is {list(scale.shape)}")
        weights[name] = tensor.float() * scale.float()
    return weights


def _digest(tensors: Mapping[str, Tensor], text: str) -> bytes:
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.numpy().tobytes())
    return digest.digest()


def checksum(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    """SHA-256 of everything in the file but itself."""
    rest = {key: value for key, value in metadata.items() if key != "sha256"}
    return _digest(tensors, json.dumps(rest, sort_keys=True)).hex()


def _fingerprint(tensors: Mapping[str, Tensor], config: str) -> bytes:
    parts = json.loads(config)
    meaning = {key: parts[key] for key in ("sample_rate", "encoder", "quantizer", "speaker")}
    kept = {name: tensors[name] for name in tensors if name.startswith(MEANING)}
    return _digest(kept, json.dumps(meaning, sort_keys=True))[:FINGERPRINT_BYTES]
