"""eval, leakage and units-eval: reports of what a model can do."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from vqcodec_cli import options as opt
from vqcodec_cli.display import progress_bar, progress_of_report
from vqcodec_cli.options import files_at_a_time, load_codec

from vqcodec.extras import require

BASELINES = "codec2-1200,codec2-2400,codec2-3200,opus-6,opus-9,narrowband"
REPORT = Path("report")

Baselines = Annotated[
    str | None,
    typer.Option(
        metavar="CODEC,...",
        help="Reference codecs: codec2-MODE, opus-KBITS, narrowband; may be empty.",
        show_default=BASELINES,
    ),
]
OwnCodecs = Annotated[
    list[str] | None,
    typer.Option(
        "--baseline",
        metavar="NAME=CODEC",
        help="Another codec, any number of times: a command with {input} and {output}, two WAV "
        "files, and {bits} if it writes a file to be counted, or FILE.py:FUNCTION (docs/"
        "evaluation.md).",
    ),
]
Listener = Annotated[
    str | None,
    typer.Option(
        metavar="NAME|FOLDER",
        help="Who counts words: a Whisper by its size, folder or Hugging Face name (extra asr), "
        "or pocketsphinx.",
        show_default="base, pocketsphinx where that cannot be had",
    ),
]
ConvertedVoices = Annotated[
    str | None,
    typer.Option(
        metavar="NAME,...",
        help="Voices to convert between.",
        show_default="those of the model with 6 recordings or more",
    ),
]
Refined = Annotated[
    bool,
    typer.Option(
        "--refine", help="Measure refined codes, too (see encode); with --conversion, only them."
    ),
]
Conditions = Annotated[
    str | None,
    typer.Option(
        metavar="CONDITION,...",
        help="Measure in these, too: noise-DB, babble-DB, room, telephone, dc, quiet.",
    ),
]
Generations = Annotated[
    int | None,
    typer.Option(min=2, help="Code what was decoded again, so often in all; measure each."),
]


def evaluate(
    corpus: opt.Corpus,
    output: opt.Report = REPORT,
    model: opt.Model = None,
    split: Annotated[str, typer.Option(help="train, valid, test or test_unseen.")] = "test",
    decoder: opt.Decoder = "auto",
    refine: Refined = False,
    baselines: Baselines = None,
    baseline: OwnCodecs = None,
    degrade: Conditions = None,
    generations: Generations = None,
    recognizer: Listener = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Files at most; with --conversion, of each voice.")
    ] = None,
    jobs: opt.Jobs = None,
    conversion: Annotated[
        bool, typer.Option("--conversion", help="Convert voices instead of comparing codecs.")
    ] = False,
    speakers: ConvertedVoices = None,
) -> None:
    """Measure a model, and reference codecs beside it; an interrupted run is continued.

    Writes tables, a plot and a page with examples: open report/index.html. With --conversion, only
    tables: read report/conversion.md.

    Example: vqcodec eval corpus/ --baselines codec2-2400,opus-6 -o report/
    """
    if speakers is not None and not conversion:
        raise typer.BadParameter("--speakers goes with --conversion")
    of_codecs = {
        "--baselines": baselines is not None,
        "--baseline": bool(baseline),
        "--degrade": degrade is not None,
        "--generations": generations is not None,
    }
    for name, is_given in of_codecs.items():
        if is_given and conversion:
            raise typer.BadParameter(f"{name} does not go with --conversion")
    require("eval")
    options: dict[str, Any] = {
        "split": split,
        "model": model,
        "decoder": decoder,
        "refine": refine,
        "limit": limit,
        "jobs": files_at_a_time(jobs),
        "recognizer": recognizer,
    }
    with progress_of_report("measuring") as options["on_progress"]:
        if conversion:
            from vqcodec.evaluation.conversion import convert_pairs

            text = convert_pairs(corpus, output, speakers=_names(speakers), **options)
        else:
            from vqcodec.evaluation.comparison import compare

            codecs = _names(BASELINES if baselines is None else baselines) + (baseline or [])
            options |= {"conditions": _names(degrade), "generations": generations or 1}
            text = compare(corpus, output, baselines=codecs, **options)
    _show(text, output)


def leakage(
    corpus: opt.Corpus,
    output: opt.Report = REPORT,
    model: opt.Model = None,
    device: opt.Device = "auto",
    min_clips: Annotated[
        int, typer.Option(min=1, help="Recordings that a speaker needs in train and in test.")
    ] = 1,
    max_clips: Annotated[
        int, typer.Option(min=1, help="Recordings used of a speaker in train and in test.")
    ] = 20,
    recognizer: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FOLDER",
            help="Also count the words wrong in what is decoded; see eval.",
            show_default="no words",
        ),
    ] = None,
) -> None:
    """Measure how much of the voice is left in the codes.

    Tells speaker and pitch from codes, beside MFCCs and chance, and decodes with wrong codes and
    voices.

    Example: vqcodec leakage corpus/ -o report/
    """
    require("eval")
    from vqcodec.evaluation.leakage import leakage as measured
    from vqcodec.evaluation.recognition import find_recognizer

    options: dict[str, Any] = {"min_clips": min_clips, "max_clips": max_clips}
    if recognizer is not None:
        options["recognizer"] = find_recognizer(recognizer)
    with progress_bar("listening") as on_progress:
        codec = load_codec(model, False, device)
        text = measured(corpus, output, codec, on_progress=on_progress, **options)
    _show(text, output)


def units_eval(
    labels: Annotated[
        Path,
        typer.Argument(
            metavar="LABELS", help="Folder of .lab, .phn, .TextGrid or .ctm files.", exists=True
        ),
    ],
    audio: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="The recordings: VCTK, LibriSpeech, SPEAKER/NAME.wav, or a manifest.csv.",
            show_default="LABELS",
        ),
    ] = None,
    output: opt.Report = REPORT,
    model: opt.Model = None,
    device: opt.Device = "auto",
) -> None:
    """Compare units, and clusters of MFCCs, with phone labels.

    Learns which phone a unit stands for on one part, and scores the other.

    Example: vqcodec units-eval labels/ --audio corpus/ -o report/
    """
    require("eval")
    from vqcodec.evaluation.unit_report import evaluate

    with progress_bar("encoding") as on_progress:
        codec = load_codec(model, None, device)
        text = evaluate(labels, audio or labels, output, codec, on_progress)
    _show(text, output)


def _names(text: str | None) -> list[str]:
    """Names separated by commas."""
    return [name for name in (text or "").split(",") if name]


def _show(text: str, output: Path) -> None:
    typer.echo(text)
    typer.echo(f"written to {output}")
