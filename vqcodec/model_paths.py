"""Where the packaged models lie, found without the time that importing torch takes."""

from __future__ import annotations

import importlib.resources
from pathlib import Path

from safetensors import SafetensorError, safe_open

from vqcodec.errors import CheckpointError

DEFAULT_MODEL = "speech-1k"


def fingerprint_of(path: Path) -> bytes:
    """The fingerprint that a model file states, without reading the model.

    Raises:
        CheckpointError: not a readable model file.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            return bytes.fromhex(file.metadata()["fingerprint"])
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: not a readable model file: {error}") from None


def packaged() -> dict[str, Path]:
    """Names and paths of the models installed with vqcodec."""
    folder = Path(str(importlib.resources.files("vqcodec.weights")))
    return {path.stem: path for path in sorted(folder.glob("*.safetensors"))}


def maker(fingerprint: bytes) -> str | None:
    """Name of the packaged model that makes codes of this fingerprint, if there is one."""
    for name, path in packaged().items():
        if fingerprint_of(path) == fingerprint:
            return name
    return None


def find(name: str | Path | None) -> Path:
    """Path of a model given by packaged name or by path.

    Raises:
        CheckpointError: neither exists.
    """
    models = packaged()
    name = DEFAULT_MODEL if name is None else name
    if str(name) in models:
        return models[str(name)]
    if Path(name).is_file():
        return Path(name)
    raise CheckpointError(
        f"{name}: no such model; give a .safetensors file or one of {', '.join(models) or 'none'}"
    )
