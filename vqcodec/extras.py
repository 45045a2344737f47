"""The libraries of the extras, which are there only if asked for."""

from __future__ import annotations

import importlib
import sys
import warnings
from importlib.util import find_spec
from typing import Any

from vqcodec.errors import VqcodecError

# Top-level modules: what pip calls them may differ.
EXTRAS = {
    "train": (
        *("torch", "torchaudio", "torch.utils.tensorboard", "vector_quantize_pytorch", "yaml"),
        *("onnx", "onnxscript"),
    ),
    "wavenet": ("numba", "llvmlite"),
    "eval": (
        *("librosa", "pesq", "pystoi", "pyworld", "resemblyzer", "sklearn", "speechmos"),
        *("pocketsphinx", "jiwer", "matplotlib"),
    ),
    "asr": ("faster_whisper",),
    "hub": ("huggingface_hub",),
    "scale": ("ray", "pyarrow", "fsspec"),
    "web": ("fastapi", "gradio", "python_multipart", "uvicorn"),
}


def is_installed(name: str) -> bool:
    """Whether a top-level module is there, which is not imported for that."""
    try:
        return find_spec(name) is not None
    except ValueError:  # it has been imported, or refused, in another way than by its files
        return sys.modules.get(name) is not None


def library(name: str) -> Any:
    """Import a module of one of `EXTRAS`, named as in an import statement.

    Raises VqcodecError if it is not installed, or broken; the message says which extra has it.
    """
    try:
        with warnings.catch_warnings():
            # pyworld and resemblyzer import what setuptools and scipy have deprecated.
            warnings.simplefilter("ignore")
            return importlib.import_module(name)
    # OSError comes of a compiled library that misses a symbol of another, as in releases that do
    # not go together.
    except (ImportError, OSError) as error:
        is_missing = isinstance(error, ModuleNotFoundError) and error.name == name
        fault = "is not installed" if is_missing else f"cannot be imported ({error})"
        raise VqcodecError(f"{name}: {fault}; pip install 'vqcodec[{extra_with(name)}]'") from error


def require(extra: str) -> None:
    """See that everything of an extra is there, before the first of its modules is missed."""
    if missing := [name for name in EXTRAS[extra] if not is_installed(name)]:
        raise VqcodecError(f"{missing[0]}: is not installed; pip install 'vqcodec[{extra}]'")


def extra_with(name: str) -> str | None:
    """The extra that has a module, by its name or that of a package that it is in."""
    for extra, modules in EXTRAS.items():
        if any(f"{name}.".startswith(f"{module}.") for module in modules):
            return extra
    return None
