"""The engine of onnxruntime: a model's graphs and weights on a CPU, without torch."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np
import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as faults

from vqcodec.extras import library
from vqcodec.inference import chunking
from vqcodec.inference.engines import NO_STREAMS, Encoded, EngineName, Streams
from vqcodec.inference.wavenet import LANES_PER_THREAD
from vqcodec.models import DecoderName
from vqcodec.weights.model_file import ModelFile, misfit

WAVENET = "wavenet."


class OnnxEngine:
    """`Engine` of onnxruntime.

    Args:
        file: of a model, with graphs.
    """

    name: EngineName = "onnx"
    device = "cpu"

    def __init__(self, file: ModelFile) -> None:
        self.config, self._file = file.config, file
        self._sessions: dict[str, onnxruntime.InferenceSession] = {}
        self._starting = threading.Lock()

    @property
    def n_threads(self) -> int:
        return chunking.thread_count()

    @property
    def n_lanes(self) -> int:
        return LANES_PER_THREAD * chunking.thread_count()

    def encode_chunk(self, waveform: np.ndarray) -> Encoded:
        return Encoded(*(part[0] for part in self._run("encode", waveform=waveform)))

    def speaker_vector(self, reference: np.ndarray) -> np.ndarray:
        return self._run("speaker", waveform=reference)[0][0]

    def decoder_context(self, decoder: DecoderName) -> tuple[int, int]:
        context = self._file.graphs[f"decode.{decoder}"].context
        assert context is not None
        return context

    def decode_chunk(
        self,
        decoder: DecoderName,
        codes: np.ndarray,
        speaker: np.ndarray,
        streams: Streams = NO_STREAMS,
    ) -> np.ndarray:
        return self._told(f"decode.{decoder}", codes, speaker, streams)

    def wavenet_condition(
        self, codes: np.ndarray, speaker: np.ndarray, streams: Streams = NO_STREAMS
    ) -> np.ndarray:
        return self._told("condition", codes, speaker, streams)

    def sample(
        self,
        conditions: Sequence[np.ndarray],
        *,
        seeds: Sequence[Sequence[int]],
        temperature: float,
    ) -> list[np.ndarray]:
        # Imported here: numba takes a second, and only this decoder needs it.
        library("numba")
        from vqcodec.inference.wavenet.cpu import sampled

        names = [name for name in self._file.tensors if name.startswith(WAVENET)]
        weights = self._file.weights(names)
        state = {name.removeprefix(WAVENET): value for name, value in weights.items()}
        return sampled(state, self.config, conditions, seeds=seeds, temperature=temperature)

    def _told(
        self, graph: str, codes: np.ndarray, speaker: np.ndarray, streams: Streams
    ) -> np.ndarray:
        told = {"codes": codes.astype(np.int64), "speaker": speaker, **streams}
        for asked in self._session(graph).get_inputs():
            if asked.name not in told:  # a stream, which a decoder then takes for zeros
                told[asked.name] = np.zeros((asked.shape[1], codes.shape[-1]), np.float32)
        return self._run(graph, **told)[0][0]

    def _run(self, graph: str, **inputs: np.ndarray) -> list[np.ndarray]:
        """Run a graph on a batch of one."""
        batch = {name: array[None] for name, array in inputs.items()}
        outputs: list[np.ndarray] = self._session(graph).run(None, batch)
        return outputs

    def _session(self, name: str) -> onnxruntime.InferenceSession:
        """A graph with its weights, made when it is first asked for.

        Raises:
            CheckpointError: graph, weights and configuration disagree.
        """
        with self._starting:
            if name not in self._sessions:
                self._sessions[name] = self._started(name)
            return self._sessions[name]

    def _started(self, name: str) -> onnxruntime.InferenceSession:
        graph = self._file.graphs[name]
        weights = self._file.weights(graph.weights)
        options = onnxruntime.SessionOptions()
        # Threads share chunks, not products (chunking.py).
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3  # errors
        options.add_external_initializers(
            list(weights), [onnxruntime.OrtValue.ortvalue_from_numpy(w) for w in weights.values()]
        )
        try:
            return onnxruntime.InferenceSession(
                graph.onnx, options, providers=["CPUExecutionProvider"]
            )
        except (
            *(faults.Fail, faults.InvalidArgument, faults.InvalidGraph, faults.InvalidProtobuf),
            *(faults.NotImplemented, faults.RuntimeException),
        ) as error:
            raise misfit(self._file.path, error) from None
