"""A model as ordinary ONNX files with their weights inside, for other programs."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from vqcodec.audio import pitch_tracker
from vqcodec.errors import CheckpointError
from vqcodec.extras import library
from vqcodec.files import write_atomically
from vqcodec.models.receptive_field import encoder_context
from vqcodec.weights.model_file import FULL_PRECISION, ModelFile
from vqcodec.weights.voices import voice_info

DESCRIPTION = "model.json"
HALF = ".float16"  # names of weights that are read as float32 end so


def write_onnx(file: ModelFile, folder: Path, *, half: bool = False) -> list[Path]:
    """Write the graphs of a model and its pitch tracker, and `model.json` about them.

    Files of the same names are replaced, and the paths of the graphs returned. With `half`, weights
    are stored as float16, which graphs then read as float32; what gives codes their meaning stays
    float32 where the model file has that.

    Raises:
        CheckpointError: the file has no graphs, or another model's lie in the folder.
        VqcodecError: the extra `train` is not installed.
    """
    if not file.graphs:
        raise CheckpointError(
            f"{file.path}: holds no graphs; vqcodec export graphs {file.path} adds them"
        )
    onnx, about = library("onnx"), _about(file)
    _refuse_other(folder, about["fingerprint"])
    folder.mkdir(parents=True, exist_ok=True)
    hop_length = file.config.hop_length
    seen = tuple(-(-n // hop_length) for n in encoder_context(file.config.encoder))
    paths, parts = [], {}
    for name, graph in file.graphs.items():
        model = onnx.load_from_string(graph.onnx)
        weights = file.weights(graph.weights)
        for tensor in model.graph.initializer:
            if tensor.name in weights:
                tensor.CopyFrom(onnx.numpy_helper.from_array(weights[tensor.name], tensor.name))
        if half:
            _halve(onnx, model, set(weights))
        context = seen if name == "encode" else graph.context
        details = {"context": list(context)} if context else {}
        onnx.helper.set_model_props(
            model, {key: str(value) for key, value in {**about, **details}.items()}
        )
        paths.append(folder / f"{name}.onnx")
        write_atomically(paths[-1], model.SerializeToString(deterministic=True))
        parts[paths[-1].name] = {**_interface(onnx, model), **details}
    if file.config.pitch is not None:
        paths.append(folder / "pitch.onnx")
        graph_bytes, licence = pitch_tracker.network()
        write_atomically(paths[-1], graph_bytes)
        write_atomically(folder / "pitch.LICENSE", licence)
        parts[paths[-1].name] = _interface(onnx, onnx.load_from_string(graph_bytes))
    _write_description(file, folder, {**about, "graphs": parts})
    return paths


def _refuse_other(folder: Path, fingerprint: str) -> None:
    """Raise CheckpointError if another model was exported there, whose graphs might stay."""
    try:
        former = json.loads((folder / DESCRIPTION).read_bytes())
        name, known = former["model"], former["fingerprint"]
    except (OSError, ValueError, KeyError, TypeError):
        return  # none
    if known != fingerprint:
        raise CheckpointError(f"{folder}: holds the graphs of {name}; name another folder")


def _write_description(file: ModelFile, folder: Path, about: dict[str, Any]) -> None:
    known = voice_info(file.provenance, file.fingerprint)
    content = {
        **about,
        "attribution": file.provenance.get("attribution", ""),
        "pitch": file.config.pitch and file.config.pitch.model_dump(),
        "voices": {name: vector.tolist() for name, vector in file.voices.items()},
        "about_voices": {name: asdict(info) for name, info in known.items()},
    }
    write_atomically(folder / DESCRIPTION, json.dumps(content, indent=1).encode() + b"\n")


def _about(file: ModelFile) -> dict[str, Any]:
    quantizer = file.config.quantizer
    return {
        "model": file.name,
        "fingerprint": file.fingerprint.hex(),
        "licence": file.provenance.get("licence", ""),
        "sample_rate": file.config.sample_rate,
        "hop_length": file.config.hop_length,
        "n_codebooks": quantizer.n_codebooks,
        "codebook_size": quantizer.codebook_size,
    }


def _halve(onnx: Any, model: Any, names: set[str]) -> None:
    """Store weights as float16, and cast them before anything else."""
    casts = []
    for tensor in model.graph.initializer:
        if tensor.name not in names or tensor.name.startswith(FULL_PRECISION):
            continue
        name, value = tensor.name, onnx.numpy_helper.to_array(tensor)
        tensor.CopyFrom(onnx.numpy_helper.from_array(value.astype(np.float16), name + HALF))
        casts.append(
            onnx.helper.make_node("Cast", [name + HALF], [name], to=onnx.TensorProto.FLOAT)
        )
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _interface(onnx: Any, model: Any) -> dict[str, Any]:
    return {
        "opset": model.opset_import[0].version,
        "inputs": [_described(onnx, value) for value in model.graph.input],
        "outputs": [_described(onnx, value) for value in model.graph.output],
    }


def _described(onnx: Any, value: Any) -> dict[str, Any]:
    kind = value.type.tensor_type
    shape = [axis.dim_param or axis.dim_value for axis in kind.shape.dim]
    dtype = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type).name
    return {"name": value.name, "type": dtype, "shape": shape}
