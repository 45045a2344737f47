"""Prior files: one .safetensors each.

It holds weights in half precision, configuration, the histogram of the training codes, provenance,
and the fingerprint of the codec whose codes it knows.
"""

from __future__ import annotations

import importlib.resources
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors import SafetensorError, safe_open

from vqcodec.errors import CheckpointError
from vqcodec.models.code_transformer import CodeTransformer
from vqcodec.models.config import PriorConfig
from vqcodec.weights.checkpoint import built
from vqcodec.weights.model_file import finite, read_tensors, verify_checksum, write_tensors

FORMAT, VERSION = "vqcodec-prior", 1


def save(
    path: str | Path,
    model: CodeTransformer,
    histogram: np.ndarray,
    *,
    typical: np.ndarray,
    fingerprint: bytes,
    provenance: Mapping[str, Any],
) -> None:
    """Write a prior file atomically.

    Args:
        path: ends in .safetensors.
        model: any device.
        histogram: (K,) int64 of the training codes.
        typical: (512,) int64 of `binned`, of speech that it was not trained on.
        fingerprint: of the codec.
        provenance: what JSON can hold.
    """
    tensors = {name: value.half().cpu().numpy() for name, value in model.state_dict().items()}
    tensors |= {"histogram": histogram, "typical": typical}
    metadata = {
        "format": FORMAT,
        "version": str(VERSION),
        "config": model.config.model_dump_json(),
        "fingerprint": fingerprint.hex(),
        "provenance": json.dumps(dict(provenance)),
    }
    write_tensors(path, tensors, metadata)


class PriorFile(NamedTuple):
    """What a prior file holds: see `Prior`, whose model is in evaluation mode, on the CPU.

    The fingerprint, hexadecimal, is that of the codec whose codes it knows.
    """

    model: CodeTransformer
    histogram: np.ndarray
    typical: np.ndarray
    provenance: dict[str, Any]
    fingerprint: str


def read(path: str | os.PathLike[str]) -> PriorFile:
    """Read a prior file, whichever codec it belongs to.

    Raises CheckpointError if it is missing, damaged or too new.
    """
    metadata, tensors = read_tensors(Path(path), FORMAT)
    try:
        if int(metadata["version"]) > VERSION:
            raise CheckpointError(
                f"{path}: prior format {metadata['version']} is newer than {VERSION}: "
                "upgrade vqcodec"
            )
        verify_checksum(path, tensors, metadata)
        histogram, typical = (tensors.pop(name) for name in ("histogram", "typical"))
        config = PriorConfig.model_validate_json(metadata["config"])
        weights = finite({name: value.astype(np.float32) for name, value in tensors.items()})
        model = built(lambda: CodeTransformer(config, len(histogram)), weights)
        provenance, fingerprint = json.loads(metadata["provenance"]), metadata["fingerprint"]
    except (KeyError, ValueError, RuntimeError) as error:
        fault = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{path}: damaged ({fault}): fetch it again") from None
    return PriorFile(model, histogram, typical, provenance, fingerprint)


def packaged() -> dict[str, Path]:
    """Fingerprints (hexadecimal) of the codecs whose priors are installed, and their paths."""
    folder = Path(str(importlib.resources.files("vqcodec.weights"))) / "priors"
    found = {}
    for path in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(path, framework="numpy") as file:
                found[(file.metadata() or {})["fingerprint"]] = path
        except (SafetensorError, OSError, KeyError) as error:
            raise CheckpointError(
                f"{path}: not a readable prior ({error}): install again"
            ) from None
    return found
