"""The libraries of the extras, which are there only if asked for."""

from __future__ import annotations

import importlib
import warnings
from typing import Any

from vqcodec.errors import VqcodecError

# Top-level modules: what pip calls them may differ.
EXTRAS = {
    "train": ("torchaudio", "torch.utils.tensorboard", "vector_quantize_pytorch", "yaml"),
    "eval": (
        *("librosa", "pesq", "pystoi", "pyworld", "resemblyzer", "sklearn", "speechmos"),
        *("onnxruntime", "pocketsphinx", "jiwer", "matplotlib"),
    ),
    "asr": ("faster_whisper",),
    "hub": ("huggingface_hub",),
    "web": ("fastapi", "gradio", "python_multipart", "uvicorn"),
}


def library(name: str) -> Any:
    """Import a module of an extra.

    Args:
        name: as in an import statement; it or a package that it is in is one of `EXTRAS`.

    Raises:
        VqcodecError: it is not installed, or broken; the message says which extra has it.
    """
    try:
        with warnings.catch_warnings():
            # pyworld and resemblyzer import what setuptools and scipy have deprecated.
            warnings.simplefilter("ignore")
            return importlib.import_module(name)
    # OSError comes of a compiled library that misses a symbol of another, as in releases that do
    # not go together.
    except (ImportError, OSError) as error:
        (extra,) = (
            extra
            for extra, modules in EXTRAS.items()
            if any(f"{name}.".startswith(f"{module}.") for module in modules)
        )
        raise VqcodecError(
            f"{name}: cannot be imported ({error}); pip install 'vqcodec[{extra}]'"
        ) from error
