"""leakage."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from vqcodec_cli.display import progress_bar
from vqcodec_cli.options import Corpus, Device, DeviceName, Model


def leakage(
    corpus: Corpus,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FOLDER", help="Where the report goes.")
    ] = Path("report"),
    model: Model = None,
    device: Device = DeviceName.auto,
    min_clips: Annotated[
        int, typer.Option(min=1, help="Recordings that a speaker needs in train and in test.")
    ] = 1,
    max_clips: Annotated[
        int, typer.Option(min=1, help="Recordings used of a speaker in train and in test.")
    ] = 20,
) -> None:
    """Measure how much of the voice is left in the codes.

    Tells speaker and pitch from codes, beside MFCCs and chance, and decodes with wrong codes and
    voices.

    Example: vqcodec leakage corpus/ -o report/
    """
    import vqcodec
    from vqcodec.evaluation.leakage import leakage as measured

    with progress_bar("listening") as on_progress:
        codec = vqcodec.load(model, device=device.value, voices=False)
        text = measured(
            corpus,
            output,
            codec,
            min_clips=min_clips,
            max_clips=max_clips,
            on_progress=on_progress,
        )
    typer.echo(text)
    typer.echo(f"written to {output}")
