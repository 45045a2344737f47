"""Engines: what runs the networks of a model, chunk by chunk.

Everything that goes in and comes out is a NumPy array, so whatever calls an engine knows nothing
of what computes. One recording at a time: shapes are those of the networks without the batch.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from vqcodec.models import DecoderName
from vqcodec.models.config import ModelConfig
from vqcodec.weights.model_file import ModelFile

if TYPE_CHECKING:
    from vqcodec.inference.engines.pytorch import TorchEngine

Streams = Mapping[str, np.ndarray]
NO_STREAMS: Streams = MappingProxyType({})


class Encoded(NamedTuple):
    """What an encoder makes of a chunk.

    Attributes:
        codes: (Q, N) int64.
        margins: (N,) float32, see `models.interfaces.Margins`.
        distances: (N,) float32, or (0,), see there.
    """

    codes: np.ndarray
    margins: np.ndarray
    distances: np.ndarray


class Engine(Protocol):
    """The networks of one model, ready to run.

    Attributes:
        config: of the model.
        device: `cpu` or `cuda`.
    """

    config: ModelConfig
    device: str

    @property
    def n_threads(self) -> int:
        """Threads that are to call it side by side, see `chunking.thread_count`."""

    @property
    def n_lanes(self) -> int:
        """Segments that the WaveNet samples side by side where there are enough of them."""

    def encode_chunk(self, waveform: np.ndarray) -> Encoded:
        """(N * hop_length,) float32 at normalised level -> codes and how sure they are."""

    def speaker_vector(self, reference: np.ndarray) -> np.ndarray:
        """(T,) float32 at normalised level, a window's worth or more -> (S,) float32."""

    def decoder_context(self, decoder: DecoderName) -> tuple[int, int]:
        """`Decoder.context` of a decoder that makes a waveform in one pass."""

    def decode_chunk(
        self,
        decoder: DecoderName,
        codes: np.ndarray,
        speaker: np.ndarray,
        streams: Streams = NO_STREAMS,
    ) -> np.ndarray:
        """Run a decoder that makes a waveform in one pass.

        Args:
            decoder: by name.
            codes: (Q, N) integers.
            speaker: (S,) float32.
            streams: (C, N) float32 each, by the names in models/streams.py.

        Returns:
            (N * hop_length,) float32 at normalised level.
        """

    def wavenet_condition(
        self, codes: np.ndarray, speaker: np.ndarray, streams: Streams = NO_STREAMS
    ) -> np.ndarray:
        """What the WaveNet's layers are told, (N, H) float32; arguments as of `decode_chunk`."""

    def sample(
        self,
        conditions: Sequence[np.ndarray],
        *,
        seeds: Sequence[Sequence[int]],
        temperature: float,
    ) -> list[np.ndarray]:
        """Sample the WaveNet.

        Args:
            conditions: (N, H) of `wavenet_condition`, N of its own each; sampled side by side.
            seeds: of the draws, one for each.
            temperature: of the draws, see `DecodeOptions`.

        Returns:
            (N * hop_length,) float32 at normalised level of each.
        """


def has_gpu() -> bool:
    """Whether torch sees a GPU.

    It takes seconds to import, and so is asked only where NVIDIA's driver is.
    """
    try:
        ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return False
    if find_spec("torch") is None:
        return False
    import torch

    return torch.cuda.is_available()


def torch_engine(file: ModelFile, device: str) -> TorchEngine:
    """The engine of PyTorch, which is imported here.

    Args:
        file: of the model.
        device: `cpu` or `cuda`.

    Raises:
        CheckpointError: weights and configuration disagree.
    """
    from vqcodec.inference.engines.pytorch import TorchEngine
    from vqcodec.weights.checkpoint import network

    return TorchEngine(network(file), device)
