"""eval."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from vqcodec_cli.display import progress_bar
from vqcodec_cli.options import Corpus, Decoder, Jobs, Model, files_at_a_time

BASELINES = "codec2-1200,codec2-2400,codec2-3200,opus-6,opus-9,narrowband"


def evaluate(
    corpus: Corpus,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FOLDER", help="Where the report goes.")
    ] = Path("report"),
    model: Model = None,
    split: Annotated[str, typer.Option(help="train, valid, test or test_unseen.")] = "test",
    decoder: Decoder = None,
    refine: Annotated[
        bool,
        typer.Option(
            "--refine",
            help="Measure refined codes, too (see encode); with --conversion, only them.",
        ),
    ] = False,
    baselines: Annotated[
        str | None,
        typer.Option(
            metavar="CODEC,...",
            help="Reference codecs: codec2-MODE, opus-KBITS, narrowband; may be empty.",
            show_default=BASELINES,
        ),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(min=1, help="Files at most; with --conversion, of each voice."),
    ] = None,
    jobs: Jobs = None,
    conversion: Annotated[
        bool, typer.Option("--conversion", help="Convert voices instead of comparing codecs.")
    ] = False,
    speakers: Annotated[
        str | None,
        typer.Option(
            metavar="NAME,...",
            help="Voices to convert between.",
            show_default="those of the model with 6 recordings or more",
        ),
    ] = None,
) -> None:
    """Measure a model, and reference codecs beside it; an interrupted run is continued.

    Writes tables, a plot and a page with examples: open report/index.html. With --conversion, only
    tables: read report/conversion.md.

    Example: vqcodec eval corpus/ --baselines codec2-2400,opus-6 -o report/
    """
    if speakers is not None and not conversion:
        raise typer.BadParameter("--speakers goes with --conversion")
    if baselines is not None and conversion:
        raise typer.BadParameter("--baselines does not go with --conversion")
    options: dict[str, Any] = {
        "split": split,
        "model": model,
        "decoder": decoder and decoder.value,
        "refine": refine,
        "limit": limit,
        "jobs": files_at_a_time(jobs),
    }
    with progress_bar("measuring") as on_progress:
        options["on_progress"] = lambda n_done, n_all: on_progress(n_done / n_all)
        if conversion:
            from vqcodec.evaluation.conversion import convert_pairs

            text = convert_pairs(corpus, output, speakers=_names(speakers), **options)
        else:
            from vqcodec.evaluation.comparison import compare

            codecs = _names(BASELINES if baselines is None else baselines)
            text = compare(corpus, output, baselines=codecs, **options)
    typer.echo(text)
    typer.echo(f"written to {output}")


def _names(text: str | None) -> list[str]:
    """Names separated by commas."""
    return [name for name in (text or "").split(",") if name]
