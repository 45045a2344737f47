"""Model files: one .safetensors with weights, configuration, voices, fingerprint and provenance.

It may hold the tables of the entropy coder too, and the networks as ONNX graphs, to which an engine
without torch feeds the weights. The configuration and the rest stand in the file's
metadata as JSON, so nothing is ever unpickled. Weights are stored in half precision, the bottleneck
in full, and the largest matrices of the fast decoder as int8, whose rounding lies some 35 dB under
the audio. Files are read and written without torch.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Container, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as safetensors_bytes

from vqcodec.errors import CheckpointError
from vqcodec.files import write_atomically
from vqcodec.format import ngram_coder
from vqcodec.format.ngram_coder import NgramModel
from vqcodec.models.config import ModelConfig
from vqcodec.models.interfaces import Graph
from vqcodec.weights.registry import FORMAT, VERSION, check_version, find
from vqcodec.weights.voices import VECTOR_LENGTH

FINGERPRINT_BYTES = 8
# The parts that give codes and speaker vectors their meaning: a decoder may be trained further
# and still read old files.
MEANING = ("encoder.", "norm.", "quantizer.", "speaker.")
# In the provenance: the fingerprint of the model whose codebook and voices this one has, where
# its encoders alone are others. It is this one's fingerprint, too: each reads what both write.
CODES_OF = "codes_of"
FULL_PRECISION = ("norm.", "quantizer.")
EIGHT_BITS, SCALE = (
    re.compile(
        r"fast\.blocks\.\d+\.(expand|project)\.weight|\w+\.streams\.(\d+\.)?convolutions\.\w+\.weight"
    ),
    ".scale8",
)

GRAPHS = "graphs."  # names of the tensors that hold them begin so

Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True, eq=False)
class ModelFile:
    """A model as its file has it.

    Attributes:
        path: of the file.
        config: what the model is made of.
        tensors: its weights as they are stored, by name.
        voices: name -> (64,) int8 speaker vector.
        fingerprint: 8 bytes; files of codes name it.
        provenance: data, steps, hardware, licence, metrics: free JSON.
        tables: of the entropy coder, if there are any.
        graphs: by the names that `models.graphs.export_graphs` gives them, if there are any.
    """

    path: Path
    config: ModelConfig
    tensors: dict[str, np.ndarray]
    voices: dict[str, np.ndarray]
    fingerprint: bytes
    provenance: dict[str, Any]
    tables: NgramModel | None
    graphs: dict[str, Graph]

    @property
    def name(self) -> str:
        """File stem."""
        return self.path.stem

    def weights(self, names: Container[str] | None = None) -> dict[str, np.ndarray]:
        """The state of the networks, float32, or what is named of it.

        Raises CheckpointError if tensors do not belong together, or have values that are no
        numbers.
        """
        try:
            return _restored(self.tensors, names)
        except ValueError as error:
            raise misfit(self.path, error) from None

    def is_told(self, decoder: str, stream: str) -> bool:
        """Whether a decoder has learnt a stream, whose weights are zeros until it does."""
        inputs = re.compile(rf"{decoder}\.streams\.(\d+\.)?convolutions\.{stream}\.weight")
        return any(tensor.any() for name, tensor in self.tensors.items() if inputs.fullmatch(name))


def write(
    path: str | Path,
    config: ModelConfig,
    weights: Arrays,
    voices: Arrays,
    provenance: Mapping[str, Any],
    tables: NgramModel | None = None,
    graphs: Mapping[str, Graph] = MappingProxyType({}),
) -> bytes:
    """Write a model file atomically; returns its fingerprint.

    Arguments are those of `checkpoint.save`; the weights are the state of the networks. Neither
    tables nor graphs are a part of the fingerprint.
    """
    tensors = {
        stored: part
        for name, tensor in weights.items()
        for stored, part in _stored(name, tensor).items()
    }
    names = sorted(voices)
    table = [np.asarray(voices[name], np.int8) for name in names]
    tensors["voices"] = np.stack(table) if table else np.zeros((0, config.speaker.dim), np.int8)
    if tables is not None:
        tensors |= tables.to_tensors()
    text = config.model_dump_json()
    fingerprint = _fingerprint(tensors, text, provenance)
    metadata = {
        "format": FORMAT,
        "version": str(VERSION),
        "config": text,
        "fingerprint": fingerprint.hex(),
        "voices": json.dumps(names),
        "provenance": json.dumps(dict(provenance)),
    }
    _put(path, metadata, tensors, graphs)
    return fingerprint


def add_graphs(path: Path, graphs: Mapping[str, Graph]) -> None:
    """Write a model file, of this or an older format, anew with other graphs, atomically.

    Raises CheckpointError if it is missing, damaged, or of another kind.
    """
    read(path)
    metadata, tensors = read_tensors(path, FORMAT)
    kept = {name: tensor for name, tensor in tensors.items() if not name.startswith(GRAPHS)}
    _put(path, metadata | {"version": str(VERSION)}, kept, graphs)


def add_tables(path: Path, tables: NgramModel) -> None:
    """Write a model file anew with an entropy coder, or with another; errors are `read`'s."""
    read(path)
    metadata, tensors = read_tensors(path, FORMAT)
    kept = {name: own for name, own in tensors.items() if not name.startswith(ngram_coder.PREFIX)}
    write_tensors(path, kept | tables.to_tensors(), metadata)


def _put(
    path: str | Path,
    metadata: dict[str, str],
    tensors: dict[str, np.ndarray],
    graphs: Mapping[str, Graph],
) -> None:
    for name, graph in graphs.items():
        tensors[GRAPHS + name] = np.frombuffer(graph.onnx, np.uint8)
    asked = {name: [graph.weights, graph.context] for name, graph in graphs.items()}
    metadata["graphs"] = json.dumps(asked)
    write_tensors(path, tensors, metadata)


def read(name: str | Path | None = None) -> ModelFile:
    """Read a packaged model by name, `speech-1k` when None, or a model file by path.

    Raises CheckpointError if there is none, or it is not one of ours, damaged, or too new.
    """
    path = find(name)
    metadata, tensors = read_tensors(path, FORMAT)
    try:
        return _assembled(path, metadata, tensors)
    except (LookupError, TypeError, ValueError, ArithmeticError, RecursionError) as error:
        raise CheckpointError(f"{path}: damaged ({error!r}): fetch it again") from None


def _assembled(path: Path, metadata: dict[str, str], tensors: dict[str, np.ndarray]) -> ModelFile:
    """The model of a file; any of Python's errors of values where its metadata is damaged."""
    check_version(path, metadata)
    config = metadata["config"]
    verify_checksum(path, tensors, metadata)
    voices = _voices(json.loads(metadata["voices"]), tensors.pop("voices"))
    tables, graphs = _tables(path, tensors), _graphs(metadata, tensors)
    provenance = dict(json.loads(metadata["provenance"]))
    fingerprint = _fingerprint(tensors, config, provenance)
    try:
        parsed = ModelConfig.model_validate_json(config)
    except ValidationError as error:
        raise misfit(path, error) from None
    return ModelFile(path, parsed, tensors, voices, fingerprint, provenance, tables, graphs)


def misfit(path: Path, error: Exception) -> CheckpointError:
    """The error for a file whose configuration its weights do not fill."""
    fault = " ".join(str(error).split())[:200]
    return CheckpointError(f"{path}: weights and configuration disagree: {fault}")


def _voices(names: list[str], table: np.ndarray) -> dict[str, np.ndarray]:
    if table.dtype != np.int8 or table.shape != (len(names), VECTOR_LENGTH):
        raise ValueError(f"voices of shape {table.shape}")
    if not all(map(str.isprintable, names)):
        raise ValueError("names of voices that cannot be printed")
    return dict(zip(names, table, strict=True))


def _tables(path: Path, tensors: dict[str, np.ndarray]) -> NgramModel | None:
    """Take the entropy coder's tables, if there are any, out of the tensors."""
    names = [name for name in tensors if name.startswith(ngram_coder.PREFIX)]
    found = {name: tensors.pop(name) for name in names}
    try:
        return NgramModel.from_tensors(found) if found else None
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}: fetch it again") from None


def _graphs(metadata: dict[str, str], tensors: dict[str, np.ndarray]) -> dict[str, Graph]:
    """Take the graphs, if there are any, out of the tensors."""
    asked = json.loads(metadata.get("graphs", "{}"))
    return {
        name: Graph(
            tensors.pop(GRAPHS + name).tobytes(),
            tuple(map(str, weights)),
            None if context is None else (int(context[0]), int(context[1])),
        )
        for name, (weights, context) in asked.items()
    }


def write_tensors(path: str | Path, tensors: Arrays, metadata: Mapping[str, str]) -> None:
    """Write a .safetensors file whose metadata has a checksum, atomically."""
    metadata = {**metadata, "sha256": checksum(tensors, metadata)}
    write_atomically(path, safetensors_bytes(dict(tensors), metadata))


def read_tensors(path: Path, format_name: str) -> tuple[dict[str, str], dict[str, np.ndarray]]:
    """Metadata and tensors of a .safetensors file of ours.

    Raises CheckpointError if it is missing, damaged, or of another kind.
    """
    if not path.exists():
        raise CheckpointError(f"{path}: no such file")
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = dict(file.metadata() or {})
            if metadata.get("format") != format_name:
                raise CheckpointError(f"{path}: not a {format_name} file")
            return metadata, {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: not a readable model file: {error}") from None


def _stored(name: str, tensor: np.ndarray) -> dict[str, np.ndarray]:
    """A weight as one tensor or two of the file."""
    if EIGHT_BITS.fullmatch(name):
        peaks = np.abs(tensor).max(axis=tuple(range(1, tensor.ndim)), keepdims=True)
        scale = (peaks / np.float32(127)).clip(min=np.float32(1e-7)).astype(np.float16)
        rounded = (tensor / scale.astype(np.float32)).round().astype(np.int8)
        return {name: rounded, name + SCALE: scale}
    if tensor.dtype == np.float32 and not name.startswith(FULL_PRECISION):
        return {name: tensor.astype(np.float16)}
    return {name: tensor}


def _restored(tensors: Arrays, names: Container[str] | None) -> dict[str, np.ndarray]:
    """The weights of which `_stored` made the tensors, or some of them."""
    weights = {}
    for name, tensor in tensors.items():
        if name.endswith(SCALE) or (names is not None and name not in names):
            continue
        weights[name] = tensor.astype(np.float32)
        if (scale := tensors.get(name + SCALE)) is not None:
            if scale.shape != (*tensor.shape[:1], *(1,) * (tensor.ndim - 1)):
                raise ValueError(f"{name + SCALE} is {list(scale.shape)}")
            weights[name] *= scale
    return finite(weights)


def finite(weights: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Weights, if networks can be made of them; raises ValueError if some are no finite numbers."""
    for name, value in weights.items():
        if not np.isfinite(value).all():
            raise ValueError(f"{name} has values that are no finite numbers")
    return weights


def _digest(tensors: Arrays, text: str) -> bytes:
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        # The first model files were written by torch, whose names of types these are.
        digest.update(f"{name} torch.{tensor.dtype.name} {list(tensor.shape)}".encode())
        digest.update(tensor.ravel().data)  # tensor.tobytes() would be a copy
    return digest.digest()


def checksum(tensors: Arrays, metadata: Mapping[str, str]) -> str:
    """SHA-256 of everything in the file but itself."""
    rest = {key: value for key, value in metadata.items() if key != "sha256"}
    return _digest(tensors, json.dumps(rest, sort_keys=True)).hex()


def verify_checksum(
    path: str | os.PathLike[str],
    tensors: Arrays,
    metadata: Mapping[str, str],
    remedy: str = "fetch it again",
) -> None:
    """Raise CheckpointError, with the remedy, if the checksum is another."""
    if checksum(tensors, metadata) != metadata["sha256"]:
        raise CheckpointError(f"{path}: damaged (its SHA-256 does not match): {remedy}")


def _fingerprint(tensors: Arrays, config: str, provenance: Mapping[str, Any]) -> bytes:
    if CODES_OF in provenance:
        return bytes.fromhex(provenance[CODES_OF])
    parts = json.loads(config)
    meaning = {key: parts[key] for key in ("sample_rate", "encoder", "quantizer", "speaker")}
    kept = {name: tensors[name] for name in tensors if name.startswith(MEANING)}
    return _digest(kept, json.dumps(meaning, sort_keys=True))[:FINGERPRINT_BYTES]
