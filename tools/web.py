"""Build the page of web/, which encodes and converts speech in a browser; see docs/browser.md."""

from __future__ import annotations

import shlex
import shutil
import sys
from pathlib import Path
from typing import Annotated

import typer

from vqcodec.errors import VqcodecError
from vqcodec.weights import model_file
from vqcodec.weights.onnx_files import write_onnx

ROOT = Path(__file__).parents[1]
SOURCES = ROOT / "web" / "src"
RUNTIME = ROOT / "web" / "node_modules" / "onnxruntime-web" / "dist"
RUNTIME_FILES = ("ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm")
SAMPLE = ROOT / "samples" / "slt.wav"
NEEDED = {"encode", "speaker", "decode.fast"}


def build(model: str, output: Path) -> None:
    """Put the page together.

    Args:
        model: name or path.
        output: folder, which is made if need be; files of the same names are replaced.

    Raises:
        VqcodecError: onnxruntime-web is not installed, or the model is not one for the page.
    """
    if not RUNTIME.exists():
        raise VqcodecError(f"{RUNTIME}: does not exist; make web installs it")
    file = model_file.read(model)
    if missing := NEEDED - file.graphs.keys():
        raise VqcodecError(
            f"{file.path}: lacks the graphs {', '.join(sorted(missing))}, which the page needs; "
            "choose a model with a speaker encoder and a fast decoder"
        )
    shutil.copytree(SOURCES, output, dirs_exist_ok=True)
    shutil.copy(SAMPLE, output / "sample.wav")
    (output / "onnxruntime").mkdir(exist_ok=True)
    for name in RUNTIME_FILES:
        shutil.copy(RUNTIME / name, output / "onnxruntime")
    write_onnx(file, output / "model", half=True)
    (output / "model" / "condition.onnx").unlink(missing_ok=True)  # the WaveNet's, which is slow


def main(
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FOLDER", help="Where to.")
    ] = ROOT / "web" / "dist",
    model: Annotated[str, typer.Option(metavar="NAME|FILE", help="The model.")] = "speech-1k",
) -> None:
    """Build the page into a folder that any file server can serve."""
    build(model, output)
    size = sum(path.stat().st_size for path in output.rglob("*") if path.is_file())
    where = shlex.quote(str(output))
    typer.echo(f"{output}: {size} bytes; python -m http.server --directory {where} serves it")


if __name__ == "__main__":
    try:
        typer.run(main)
    except VqcodecError as error:
        sys.exit(f"error: {error}")
