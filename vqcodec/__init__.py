"""vqcodec: a neural speech codec and voice conversion.

import vqcodec
codec = vqcodec.load()
codes = codec.encode("in.wav")
codes.save("out.codes")
audio = codec.decode(codes, speaker="p225")
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

# Or onnxruntime keeps an identifier of the machine and collects telemetry as soon as it is imported
# (findings/onnxruntime-keeps-a-device-id.sh).
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

if TYPE_CHECKING:
    from vqcodec.codec import Codec, load
    from vqcodec.errors import VqcodecError
    from vqcodec.format.codes import Codes
    from vqcodec.weights.voices import Speaker

    __version__: str

__all__ = ["Codec", "Codes", "Speaker", "VqcodecError", "__version__", "list_models", "load"]
_HOMES = {
    "Codec": "vqcodec.codec",
    "Codes": "vqcodec.format.codes",
    "Speaker": "vqcodec.weights.voices",
    "VqcodecError": "vqcodec.errors",
    "load": "vqcodec.codec",
}


def list_models() -> list[str]:
    """Names of the packaged models."""
    from vqcodec.weights.registry import packaged

    return list(packaged())


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def __getattr__(name: str) -> Any:
    # torch takes seconds to import, and NumPy a tenth; the command line's help does without.
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    if name == "__version__":
        from importlib.metadata import PackageNotFoundError, version

        try:
            return version("vqcodec")
        except PackageNotFoundError:  # run from a source tree that was never installed
            return "0+unknown"
    raise AttributeError(f"module 'vqcodec' has no attribute {name!r}")
