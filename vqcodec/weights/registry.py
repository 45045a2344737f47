"""Where models lie and what they say of themselves, without the time that importing torch takes."""

from __future__ import annotations

import importlib.resources
import json
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from vqcodec.errors import CheckpointError
from vqcodec.weights import hub

DEFAULT_MODEL = "speech-1k"
FORMAT, VERSION = "vqcodec-model", 3


@dataclass(frozen=True)
class ModelHeader:
    """What a model file says of itself; whether it is whole, `model_file.read` finds out.

    Attributes:
        path: of the file.
        fingerprint: 8 bytes; files of codes name it.
        voices: names of the voices.
        config: what it is made of, as JSON.
        provenance: as `model_file.ModelFile` has it.
        shapes: of what it holds, by name.
    """

    path: Path
    fingerprint: bytes
    voices: tuple[str, ...]
    config: str
    provenance: dict[str, Any]
    shapes: dict[str, list[int]]

    @property
    def name(self) -> str:
        """File stem."""
        return self.path.stem


def read_header(path: Path) -> ModelHeader:
    """Read what a model file says of itself.

    Raises CheckpointError if it is not a readable model file, or too new.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = dict(file.metadata() or {})
            shapes = {key: file.get_slice(key).get_shape() for key in file.keys()}  # noqa: SIM118
        if metadata.get("format") != FORMAT:
            raise CheckpointError(f"{path}: not a {FORMAT} file")
        check_version(path, metadata)
        return ModelHeader(
            path,
            bytes.fromhex(metadata["fingerprint"]),
            tuple(name for name in json.loads(metadata["voices"]) if name.isprintable()),
            metadata["config"],
            dict(json.loads(metadata["provenance"])),
            shapes,
        )
    except (
        *(SafetensorError, OSError, LookupError, TypeError, ValueError),
        *(AttributeError, RecursionError),
    ) as error:
        raise CheckpointError(f"{path}: not a readable model file: {error}") from None


def check_version(path: Path, metadata: dict[str, str]) -> None:
    """Raise a CheckpointError about a model file of a later format."""
    if int(metadata["version"]) > VERSION:
        raise CheckpointError(
            f"{path}: model format {metadata['version']} is newer than {VERSION}: upgrade vqcodec"
        )


def packaged() -> dict[str, Path]:
    """Names and paths of the models installed with vqcodec."""
    folder = Path(str(importlib.resources.files("vqcodec.weights")))
    return {path.stem: path for path in sorted(folder.glob("*.safetensors"))}


def maker(fingerprint: bytes) -> str | None:
    """Name of the packaged model that makes codes of this fingerprint, if there is one."""
    for name, path in packaged().items():
        if _fingerprint(path, path.stat().st_mtime_ns) == fingerprint:
            return name
    return None


@cache
def _fingerprint(path: Path, modified_ns: int) -> bytes:
    """Of a file that was last changed then: `maker` is asked for every recording."""
    return read_header(path).fingerprint


def pulled(fingerprint: bytes) -> str | None:
    """Pinned name of a model in the hub's cache that makes codes of this fingerprint, if any."""
    for path in hub.cached():
        with suppress(CheckpointError):  # other software has its models there, too
            if read_header(path).fingerprint == fingerprint:
                return hub.pinned(path)
    return None


def find(name: str | Path | None) -> Path:
    """Path of a model given by packaged name, by path or by its name on the hub.

    Raises:
        CheckpointError: none of these exists, or the hub cannot be reached.
        VqcodecError: it is on the hub, and the extra `hub` is not installed.
    """
    models = packaged()
    name = DEFAULT_MODEL if name is None else name
    if str(name) in models:
        return models[str(name)]
    if hub.is_hub_name(str(name)):
        return hub.fetch(str(name))
    if Path(name).is_file():
        return Path(name)
    raise CheckpointError(
        f"{name}: no such model; give a .safetensors file or one of {', '.join(models) or 'none'}"
    )
