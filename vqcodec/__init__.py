"""vqcodec: a neural speech codec and voice conversion.

import vqcodec
codec = vqcodec.load()
codes = codec.encode("in.wav")
codes.save("out.codes")
audio = codec.decode(codes, speaker="p225")
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from vqcodec.errors import VqcodecError
from vqcodec.format.codes import Codes
from vqcodec.weights.voices import Speaker

if TYPE_CHECKING:
    from vqcodec.codec import Codec, load

try:
    __version__ = version("vqcodec")
except PackageNotFoundError:  # run from a source tree that was never installed
    __version__ = "0+unknown"

__all__ = ["Codec", "Codes", "Speaker", "VqcodecError", "__version__", "list_models", "load"]


def list_models() -> list[str]:
    """Names of the packaged models."""
    from vqcodec.weights.registry import packaged

    return list(packaged())


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def __getattr__(name: str) -> Any:
    # torch takes seconds to import; code files and the command line's help do without.
    if name in ("Codec", "load"):
        from vqcodec import codec

        return getattr(codec, name)
    raise AttributeError(f"module 'vqcodec' has no attribute {name!r}")
