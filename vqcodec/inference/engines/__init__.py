"""Engines: what runs the networks of a model, chunk by chunk.

Everything that goes in and comes out is a NumPy array, so whatever calls an engine knows nothing
of what computes. One recording at a time: shapes are those of the networks without the batch.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

import numpy as np

from vqcodec.errors import CheckpointError, VqcodecError
from vqcodec.extras import is_installed, library
from vqcodec.models import DecoderName
from vqcodec.models.config import ModelConfig
from vqcodec.weights.model_file import ModelFile

if TYPE_CHECKING:
    from vqcodec.inference.engines.pytorch import TorchEngine

DeviceName = Literal["auto", "cpu", "cuda"]
EngineName = Literal["auto", "onnx", "torch"]
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
        name: in the table of engines.
        config: of the model.
        device: `cpu` or `cuda`.
    """

    name: EngineName
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
    if not is_installed("torch"):
        return False
    import torch

    return torch.cuda.is_available()


def start(file: ModelFile, *, device: DeviceName = "auto", engine: EngineName = "auto") -> Engine:
    """Make a model ready to run.

    Args:
        file: of the model.
        device: `auto` is `cuda` if torch sees a GPU, else `cpu`.
        engine: `auto` is `torch` on a GPU, and for files without graphs; else `onnx`.

    Raises:
        VqcodecError: these do not go together, there is no GPU, or torch is not installed.
        CheckpointError: weights and configuration disagree, or the file lacks what is needed.
    """
    if device == "cuda" and not has_gpu():
        why = "sees no GPU" if is_installed("torch") else "is not there, vqcodec[train] brings it"
        raise VqcodecError(f"device cuda: torch {why}; use device cpu")
    if device == "auto":
        device = "cuda" if engine != "onnx" and has_gpu() else "cpu"
    if engine == "auto":
        engine = "onnx" if device == "cpu" and file.graphs else "torch"
    if engine == "torch":
        return torch_engine(file, device)
    if device == "cuda":
        raise VqcodecError("engine onnx: runs on a CPU; use device cpu, or engine torch")
    if not file.graphs:
        raise without_graphs(file)
    from vqcodec.inference.engines.onnx import OnnxEngine

    return OnnxEngine(file)


def torch_engine(file: ModelFile, device: str) -> TorchEngine:
    """The engine of PyTorch, which is imported here.

    Args:
        file: of the model.
        device: `cpu` or `cuda`.

    Raises:
        VqcodecError: torch is not installed.
        CheckpointError: weights and configuration disagree.
    """
    if not file.graphs and not is_installed("torch"):
        raise without_graphs(file)
    library("torch")
    from vqcodec.inference.engines.pytorch import TorchEngine
    from vqcodec.weights.checkpoint import network

    return TorchEngine(network(file), device)


def without_graphs(file: ModelFile) -> CheckpointError:
    """The error for a model file that onnxruntime cannot run."""
    if file.config.quantizer.kind != "vq":
        return CheckpointError(
            f"{file.path}: quantizer.kind {file.config.quantizer.kind} is torch's alone: "
            "use engine torch, which vqcodec[train] brings"
        )
    return CheckpointError(
        f"{file.path}: holds no graphs for onnxruntime, as older model files do not: where "
        f"vqcodec[train] is installed, vqcodec export graphs {file.path} adds them"
    )
