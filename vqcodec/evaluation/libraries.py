"""The libraries of the extra `eval`, which are there only if asked for."""

from __future__ import annotations

import importlib
import importlib.metadata
import warnings
from typing import Any

from vqcodec.errors import VqcodecError

LIBRARIES = (
    *("pesq", "pystoi", "pyworld", "resemblyzer", "speechmos"),
    *("onnxruntime", "pocketsphinx", "jiwer", "matplotlib"),
)

# These are always there, and what is measured depends on them too.
BASE_LIBRARIES = ("torch", "numpy", "librosa", "soxr")

_REMEDY = "pip install 'vqcodec[eval]'"


def library(name: str) -> Any:
    """Import a module.

    Args:
        name: as in an import statement.

    Raises:
        VqcodecError: it is not installed, or broken.
    """
    try:
        with warnings.catch_warnings():
            # pyworld and resemblyzer import what setuptools and scipy have deprecated.
            warnings.simplefilter("ignore")
            return importlib.import_module(name)
    except ImportError as error:
        raise VqcodecError(f"{name}: cannot be imported ({error}); {_REMEDY}") from error


def versions() -> dict[str, str]:
    """The installed version of every library that measures, none of which is imported.

    Raises:
        VqcodecError: one is missing.
    """
    found = {}
    for name in LIBRARIES + BASE_LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError as error:
            raise VqcodecError(f"{name}: not installed; {_REMEDY}") from error
    return found
