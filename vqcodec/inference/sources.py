"""What users give as a recording: paths, bytes, files, arrays, tensors, examples of data sets."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any, BinaryIO, Required, TypedDict, TypeGuard

import numpy as np

from vqcodec.audio import Recording, open_recording
from vqcodec.audio.recording import is_pair, knows_its_rate
from vqcodec.inference.encoding import Progress
from vqcodec.models.interfaces import DecodeKeywords, SynthesisKeywords
from vqcodec.weights.voices import Speaker

if TYPE_CHECKING:
    from torch import Tensor
else:
    Tensor = Any

_File = str | os.PathLike[str] | BinaryIO | bytes | Recording
Item = _File | np.ndarray | Tensor | dict[str, Any]
Source = Item | tuple[int, np.ndarray]
Sound = _File | np.ndarray | dict[str, Any] | tuple[int, np.ndarray]  # all but tensors
Sources = list[Any] | tuple[Item, ...]


class EncodeCall(TypedDict, total=False):
    """The keyword arguments of `Codec.encode`."""

    speaker: str | Speaker | None
    refine: bool
    on_progress: Progress | None


class DecodeCall(DecodeKeywords, total=False):
    """The keyword arguments of `Codec.decode`."""

    speaker: Speaker | Source | None


class ConvertCall(SynthesisKeywords, total=False):
    """The keyword arguments of `Codec.convert`."""

    speaker: Required[Speaker | Source]
    refine: bool


def is_list(source: Source | Sources) -> TypeGuard[Sources]:
    """Whether these are several recordings, and not the pair of a rate and an array."""
    return isinstance(source, list | tuple) and not is_pair(source)


def is_tensor(source: Any) -> TypeGuard[Tensor]:
    """Whether it is one of torch's: who has one has imported it."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(source, torch.Tensor)


def to_numpy(source: Any) -> Any:
    """A tensor as an array, in a pair too; all else as it is."""
    if is_pair(source):
        return tuple(map(to_numpy, source))
    if not is_tensor(source):
        return source
    # NumPy has no bfloat16.
    held = source.float() if str(source.dtype) == "torch.bfloat16" else source
    return held.detach().cpu().numpy()


def open_reference(source: Source, sample_rate: int | None) -> Recording:
    """Open a recording of any kind; the rate, in Hz, is for those that do not tell theirs."""
    return open_recording(to_numpy(source), None if knows_its_rate(source) else sample_rate)
