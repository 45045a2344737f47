"""Streams: what a decoder is told beside the codes, at their rate. Knows no torch.

A stream is heard in a recording (`vqcodec.audio.tracks`), one value for each code; decoders get
features of it through convolutions that start at zero (models/stream_inputs.py).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from vqcodec.models.config import ModelConfig
from vqcodec.models.pitch import PitchStream

Track = npt.NDArray[np.float32]


class Stream(Protocol):
    """What becomes of the values that were heard.

    Attributes:
        channels: C, of the features.
    """

    channels: int

    def stored(self, track: Track) -> Track:
        """What is left of the values (N,) of a whole recording when they have been stored."""

    def features(self, track: Track) -> npt.NDArray[np.float32]:
        """Values (..., N) -> what decoders are told, (..., C, N)."""


# By their sections of `ModelConfig`.
STREAMS: dict[str, Callable[[Any], Stream]] = {"pitch": PitchStream}


def build_streams(config: ModelConfig) -> dict[str, Stream]:
    """Those that a model is told, by their names."""
    sections = {name: getattr(config, name) for name in STREAMS}
    return {name: STREAMS[name](own) for name, own in sections.items() if own is not None}
