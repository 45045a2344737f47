"""vqcodec export: models for programs and engines that know no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Write models as ONNX graphs.")
Models = Annotated[list[str], typer.Argument(metavar="NAME|FILE", help="Models.")]


@app.command()
def onnx(
    model: Annotated[str, typer.Argument(metavar="NAME|FILE", help="The model.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FOLDER", help="Where to.")],
    half: Annotated[
        bool, typer.Option("--float16", help="Store weights in half as many bytes.")
    ] = False,
) -> None:
    """Write a model's networks as .onnx files, and model.json about them and its voices.

    encode.onnx makes codes of a waveform, speaker.onnx a voice, decode.fast.onnx a waveform of
    both, and condition.onnx what the WaveNet is told; pitch.onnx tracks the pitch, if the model has
    a stream of it. Waveforms are at the model's rate, and as loud as vqcodec makes them for its
    networks: an active level of -24 dB full scale; for pitch.onnx twice as loud.

    Example: vqcodec export onnx speech-1k -o speech-1k.onnx
    """
    from vqcodec.weights import model_file
    from vqcodec.weights.onnx_files import write_onnx

    for path in write_onnx(model_file.read(model), output, half=half):
        typer.echo(f"{path}: {path.stat().st_size} bytes")


@app.command()
def graphs(models: Models) -> None:
    """Add to model files the graphs by which they run without torch; all else stays as it is.

    Trainings write them; files of before they did, and packaged models, are given them so. It needs
    the extra train.

    Example: vqcodec export graphs runs/mine/model.safetensors
    """
    from vqcodec.models.graphs import export_graphs
    from vqcodec.weights import checkpoint, model_file
    from vqcodec.weights.registry import find

    for name in models:
        path = find(name)
        found = export_graphs(checkpoint.load(path).model)
        model_file.add_graphs(path, found)
        size = sum(len(graph.onnx) for graph in found.values())
        typer.echo(f"{path}: {', '.join(found) or 'none'}, {size} bytes")
