"""encode-dataset, decode-dataset, and units of data sets."""

from __future__ import annotations

import os
from collections.abc import Collection
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from vqcodec_cli import options as opt
from vqcodec_cli.display import progress_bar

from vqcodec.errors import CodesError, DataError

if TYPE_CHECKING:
    from vqcodec.scale.code_columns import Layout
    from vqcodec.scale.dataset_files import Content, SinkName
    from vqcodec.scale.listing import Listing

RECORDINGS_ON_GPU = 64
"""That one encodes at a time, while as many threads read and track others."""

Source = Annotated[
    str,
    typer.Argument(
        help="A folder, bucket, pattern (*) or file: recordings, Parquet, WebDataset shards, or a "
        "manifest (.csv, .jsonl, .tsv of fairseq, cuts of Lhotse)."
    ),
]
Sink = Annotated[
    str, typer.Option("--output", "-o", metavar="SINK", help="The folder or bucket of the result.")
]
Ray = Annotated[
    str | None,
    typer.Option(
        "--ray",
        metavar="ADDRESS",
        help="A Ray cluster: ray://HOST:10001, or auto.",
        show_default="this machine",
    ),
]
AtATime = Annotated[
    int | None,
    typer.Option("--jobs", min=1, help="Parts at a time.", show_default="one per core, or GPU"),
]
PartSize = Annotated[
    int, typer.Option(min=1, help="Recordings of a part, where they are files by themselves.")
]


def encode_dataset(
    source: Source,
    output: Sink,
    to: Annotated[
        Literal["parquet", "webdataset", "lhotse"], typer.Option(help="Kind of the result.")
    ] = "parquet",
    model: opt.Model = None,
    device: opt.Device = "auto",
    jobs: AtATime = None,
    ray: Ray = None,
    part_size: PartSize = 200,
    quiet: opt.Quiet = False,
) -> None:
    """Make codes of a data set of any size, on this machine or a cluster.

    An interrupted run is continued by the same command. Recordings that cannot be read are listed
    in SINK/vqcodec/errors.jsonl with their reasons.

    Example: vqcodec encode-dataset recordings/ -o codes/ --to webdataset
    """
    options = model, device, jobs, ray, quiet
    make_dataset(source, output, to, "codes", *options, part_size=part_size)


def decode_dataset(
    source: Annotated[str, typer.Argument(help="What encode-dataset made.")],
    output: Sink,
    to: Annotated[
        Literal["parquet", "webdataset", "folder"],
        typer.Option(help="Kind of the result; the sound is FLAC in each."),
    ] = "folder",
    speaker: opt.OtherVoice = None,
    model: opt.ModelOfCodes = None,
    device: opt.Device = "auto",
    jobs: AtATime = None,
    ray: Ray = None,
    quiet: opt.Quiet = False,
) -> None:
    """Make recordings of a data set of codes.

    Example: vqcodec decode-dataset codes/ -o speech/ --speaker p225
    """
    make_dataset(source, output, to, "sound", model, device, jobs, ray, quiet, speaker=speaker)


def make_dataset(
    source: str,
    output: str,
    to: SinkName,
    content: Content,
    model: str | None,
    device: opt.DeviceName,
    jobs: int | None,
    ray: str | None,
    quiet: bool,
    *,
    part_size: int = 200,
    collapse: bool = False,
    speaker: str | None = None,
) -> None:
    """Make a data set of a source, and say what is in it; `scale.work.Job` has the rest."""
    from vqcodec.data.clips import duration
    from vqcodec.scale import storage
    from vqcodec.scale.dataset_files import RECORDS
    from vqcodec.scale.listing import list_source
    from vqcodec.scale.pipeline import Cluster, run
    from vqcodec.scale.sinks import Form
    from vqcodec.scale.work import Job

    listing = list_source(source, part_size)
    if listing.content == "units":
        raise DataError(f"{source}: holds units; give what they were made of, with its sound")
    if content == "codes" and listing.layout is not None:
        raise DataError(
            f"{source}: holds codes already; vqcodec decode-dataset makes sound of them"
        )
    if content == "sound" and listing.layout is None:
        raise DataError(f"{source}: holds no codes; vqcodec encode-dataset makes them")
    if content == "units" and (collapse, to) == (True, "lhotse"):
        raise typer.BadParameter(
            "--dedup makes units that last unlike long, which Lhotse cannot cut"
        )
    sink = storage.absolute(output)
    if f"{sink}/".startswith(f"{storage.absolute(source)}/"):
        raise typer.BadParameter(
            f"{output} lies in {source}, and would be read as a part of it; name a folder beside it"
        )
    model, layout, voices = _model(model, content, listing)
    if speaker is not None:
        speaker = _for_workers(speaker, voices)
    form = Form(sink, to, content, layout, listing.extra)
    place = "cuda" if opt.is_gpu(device) else "cpu"
    side_by_side = RECORDINGS_ON_GPU if place == "cuda" and content != "sound" else 1
    job = Job(form, model, place, side_by_side, collapse=collapse, speaker=speaker)
    with progress_bar(content) as on_progress:
        summary = run(job, listing, Cluster(ray, jobs), on_progress)
    if summary.n_errors and not summary.n:
        raise DataError(
            f"{source}: nothing could be made of any of {summary.n_errors} recordings; "
            f"{storage.join(output, RECORDS, 'errors')}.jsonl says why; remove {output} to try "
            "again"
        )
    if quiet:
        return
    typer.echo(f"{summary.n} recordings, {duration(summary.seconds)} → {output}")
    for name, n, what in (
        ("errors", summary.n_errors, "left out"),
        ("warnings", summary.n_warnings, "odd"),
    ):
        if n:
            typer.echo(f"{n} {what}: {storage.join(output, RECORDS, name)}.jsonl")


def _model(
    model: str | None, content: Content, listing: Listing
) -> tuple[str | None, Layout, Collection[str]]:
    """The model to work with, if one is needed, how codes lie, and the names of its voices."""
    from vqcodec.scale.code_columns import Layout
    from vqcodec.weights import model_file
    from vqcodec.weights.registry import DEFAULT_MODEL, maker, packaged
    from vqcodec.weights.voices import VoicesFile, default_path

    held = listing.layout
    if held is not None and content == "units":
        return None, held, ()
    if held is not None and model is None:
        model = maker(bytes.fromhex(held.fingerprint))
        if model is None:
            raise CodesError(
                f"the codes are of model {held.model}, {held.fingerprint}, which is not packaged: "
                "give it with --model"
            )
    model = model or DEFAULT_MODEL
    file = model_file.read(model)
    layout = Layout.of_model(file.name, file.fingerprint, file.config)
    if held is not None and held.fingerprint != layout.fingerprint:
        raise CodesError(
            f"the codes are of model {held.fingerprint}, and {file.name} is {layout.fingerprint}: "
            "decode with the model that encoded (--model)"
        )
    voices = {*file.voices, *VoicesFile(default_path()).voices(file.fingerprint)}
    return _for_workers(model, packaged()), layout, voices


def _for_workers(given: str, names: Collection[str]) -> str:
    """A name, or an absolute path of what is none: workers have folders of their own."""
    return os.path.abspath(given) if given not in names and os.path.isfile(given) else given
