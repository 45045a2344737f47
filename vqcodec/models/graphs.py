"""The networks as ONNX graphs, for engines that know no torch.

A graph holds no weights but names them as the networks do: a model file feeds both. So a graph
follows from a configuration alone. Batch and length are free.
"""

from __future__ import annotations

import contextlib
import io
import logging
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any, cast

import torch
from torch import Tensor, nn

from vqcodec.extras import library
from vqcodec.models import AUTOREGRESSIVE
from vqcodec.models.config import ModelConfig
from vqcodec.models.interfaces import Condition, Decoder, Graph, Quantizer
from vqcodec.models.vqvae import DERIVED, VQVAE

OPSET = 20
WEIGHTS = "weights"  # where a graph says that its weights lie, which engines feed instead
LARGEST_CONSTANT = 1024  # values that a graph keeps rather than a rule to compute them
N_CODES, REFERENCE_LENGTH = 48, 32_000  # of the examples by which graphs are traced

_exporting = threading.Lock()  # it is not for several threads


class _Encode(nn.Module):
    """Waveform (B, N * hop_length) -> codes (B, Q, N), margins (B, N), distances (B, N)."""

    def __init__(self, model: VQVAE) -> None:
        super().__init__()
        self.encoder, self.norm = model.encoder, model.norm
        self.quantizer: Quantizer = model.quantizer

    def forward(self, waveform: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.quantizer.margins(self.norm(self.encoder(waveform))))


class _Speaker(nn.Module):
    """Waveform (B, T) -> speaker vectors (B, S)."""

    def __init__(self, model: VQVAE) -> None:
        super().__init__()
        self.speaker = model.speaker

    def forward(self, waveform: Tensor) -> Tensor:
        vectors: Tensor = self.speaker(waveform)
        return vectors


class _Decoding(nn.Module):
    """Codes (B, Q, N), speaker (B, S) and streams (B, C, N) each -> what `run` makes of them."""

    def __init__(self, model: VQVAE, parts: Sequence[str], run: Callable[..., Tensor]) -> None:
        super().__init__()
        self.quantizer: Quantizer = model.quantizer
        self.parts, self.run = parts, run
        for part in parts:
            setattr(self, part, getattr(model, part))

    def forward(self, codes: Tensor, speaker: Tensor, streams: dict[str, Tensor]) -> Tensor:
        condition = Condition(self.quantizer.decode(codes), speaker, streams)
        return self.run(condition, *(getattr(self, part) for part in self.parts))


def export_graphs(model: VQVAE) -> dict[str, Graph]:
    """The graphs of a model: `encode`, `speaker`, `decode.NAME` of parallel decoders, `condition`.

    `condition` is what the WaveNet's layers are told. A speaker table has no graph. What a model
    knows of streams, its graphs take as inputs of the streams' names; zeros are what is not told.
    Quantizers of vector-quantize-pytorch, which comes with torch anyway, have none at all.

    Args:
        model: any device; its weights do not matter.

    Raises:
        VqcodecError: the exporter is not installed (extra `train`).
    """
    if model.config.quantizer.kind != "vq":
        return {}
    rows = 1 if model.config.speaker.kind == "table" else 0
    return dict(_graphs(model.config.model_dump_json(), rows))


@lru_cache(maxsize=4)
def _graphs(config: str, n_speakers: int) -> dict[str, Graph]:
    library("onnxscript")
    # Its random weights are thrown away, and what else is drawn stays as it would have been.
    with torch.random.fork_rng(devices=[]):
        model = VQVAE(ModelConfig.model_validate_json(config), n_speakers).eval()
    hop_length = model.config.hop_length
    length = hop_length * torch.export.Dim("n", min=2)
    waveform = torch.zeros(2, N_CODES * hop_length)
    graphs = {
        "encode": _exported(
            _Encode(model), {"waveform": (waveform, length)}, ["codes", "margins", "distances"]
        )
    }
    if model.config.speaker.kind == "encoder":
        inputs = {"waveform": (torch.zeros(2, REFERENCE_LENGTH), torch.export.Dim("t", min=512))}
        graphs["speaker"] = _exported(_Speaker(model), inputs, ["speaker"])
    for name, decoder in model.decoders.items():
        if name not in AUTOREGRESSIVE:
            context = cast(Decoder, decoder).context
            wrapped = _Decoding(model, [name], lambda told, network: network(told))
            graphs[f"decode.{name}"] = _decoding(wrapped, model, "waveform", context)
    if model.wavenet is not None:
        parts = ["wavenet", "fast"] if model.wavenet.features is not None else ["wavenet"]
        wrapped = _Decoding(
            model,
            parts,
            lambda told, network, *fast: network.per_code(network.informed(told, *fast)),
        )
        graphs["condition"] = _decoding(wrapped, model, "condition")
    return graphs


def _decoding(
    wrapped: nn.Module, model: VQVAE, output: str, context: tuple[int, int] | None = None
) -> Graph:
    config = model.config
    n = torch.export.Dim("n", min=2)
    codes = torch.zeros(2, config.quantizer.n_codebooks, N_CODES, dtype=torch.int64)
    inputs: dict[str, Any] = {
        "codes": (codes, n),
        "speaker": (torch.zeros(2, config.speaker.dim), None),
        "streams": {
            name: (torch.zeros(2, int(stream.channels), N_CODES), n)
            for name, stream in model.streams.items()
        },
    }
    return _exported(wrapped, inputs, [output], context)


def _exported(
    network: nn.Module,
    inputs: dict[str, Any],
    outputs: list[str],
    context: tuple[int, int] | None = None,
) -> Graph:
    """Export a network.

    Args:
        network: in evaluation mode.
        inputs: by name, an example and the size of its last axis, None where that is fixed; or a
            mapping of these.
        outputs: names.
        context: of the graph.
    """
    batch = torch.export.Dim.DYNAMIC

    def example(value: Any) -> Any:
        return {k: v[0] for k, v in value.items()} if isinstance(value, dict) else value[0]

    def shape(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: shape(one) for name, one in value.items()}
        tensor, last = value
        return {0: batch} if last is None else {0: batch, tensor.ndim - 1: last}

    names = [
        name
        for key, value in inputs.items()
        for name in (value if isinstance(value, dict) else [key])
    ]
    with _exporting, _quiet():
        program = torch.onnx.export(
            network.eval(),
            kwargs={name: example(value) for name, value in inputs.items()},
            dynamic_shapes={name: shape(value) for name, value in inputs.items()},
            input_names=names,
            output_names=outputs,
            opset_version=OPSET,
            dynamo=True,
            optimize=False,
        )
    assert program is not None
    state = {name for name in network.state_dict() if not name.startswith(DERIVED)}
    return _without_weights(program, state, context)


def _without_weights(program: Any, state: set[str], context: tuple[int, int] | None) -> Graph:
    """A graph that is simplified as if its weights were inputs, and then only names them."""
    onnx, optimizer = library("onnx"), library("onnxscript.optimizer")
    graph = program.model.graph
    weights = {name: value for name, value in graph.initializers.items() if name in state}
    given, values = list(graph.inputs), {}
    for name, value in weights.items():
        values[name], value.const_value = value.const_value, None
        del graph.initializers[name]
        graph.inputs.append(value)
    with _quiet():
        optimizer.optimize_ir(
            program.model, input_size_limit=LARGEST_CONSTANT, output_size_limit=LARGEST_CONSTANT
        )
    used = {value.name for node in graph for value in node.inputs if value is not None}
    del graph.inputs[len(given) :]
    kept = [name for name in weights if name in used]
    for name in kept:
        weights[name].const_value = values[name]
        graph.initializers[name] = weights[name]
    model = program.model_proto
    for tensor in model.graph.initializer:
        if tensor.name in weights:
            tensor.ClearField("raw_data")
            tensor.data_location = onnx.TensorProto.EXTERNAL
            tensor.external_data.add(key="location", value=WEIGHTS)
    # Where in the sources a node comes from: the paths of whoever exported.
    for part in (*model.graph.node, *model.graph.input, *model.graph.output, model.graph, model):
        del part.metadata_props[:]
    for node in model.graph.node:
        node.doc_string = ""
    del model.graph.value_info[:]
    return Graph(model.SerializeToString(deterministic=True), tuple(kept), context)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter speaks of its own progress and of what it misses; none of that is ours."""
    logger = logging.getLogger("torch.onnx")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)
