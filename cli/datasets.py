"""encode-dataset, decode-dataset, and units of data sets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import typer
from vqcodec_cli import options as opt
from vqcodec_cli.display import progress_bar

from vqcodec.errors import CodesError, DataError

if TYPE_CHECKING:
    from vqcodec.scale.dataset_files import Content, SinkName
    from vqcodec.scale.listing import Listing

Source = Annotated[
    str,
    typer.Argument(
        help="A folder, bucket, pattern (*) or file: recordings, Parquet, WebDataset shards, or a "
        "manifest (.csv, .jsonl, .tsv of fairseq, cuts of Lhotse)."
    ),
]
Sink = Annotated[
    str,
    typer.Option("--output", "-o", metavar="SINK", help="The folder or bucket of the result."),
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
    from vqcodec.scale.listing import list_source

    listing = list_source(source, part_size)
    if listing.layout is not None:
        raise DataError(
            f"{source}: holds codes already; vqcodec decode-dataset makes sound of them"
        )
    make_dataset(listing, output, to, "codes", model or "speech-1k", device, jobs, ray, quiet)


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
    from vqcodec.scale.listing import list_source

    listing = list_source(source)
    if listing.layout is None:
        raise DataError(f"{source}: holds no codes; vqcodec encode-dataset makes them")
    make_dataset(listing, output, to, "sound", model, device, jobs, ray, quiet, speaker=speaker)


def make_dataset(
    listing: Listing,
    output: str,
    to: SinkName,
    content: Content,
    model: str | None,
    device: opt.DeviceName,
    jobs: int | None,
    ray: str | None,
    quiet: bool,
    *,
    collapse: bool = False,
    speaker: str | None = None,
) -> None:
    """Make a data set of a listed source, and say what is in it; `scale.work.Job` has the rest."""
    from vqcodec.scale import storage
    from vqcodec.scale.code_columns import Layout
    from vqcodec.scale.dataset_files import RECORDS
    from vqcodec.scale.pipeline import Cluster, run
    from vqcodec.scale.sinks import Form
    from vqcodec.scale.work import Job
    from vqcodec.weights import model_file
    from vqcodec.weights.registry import maker

    layout = listing.layout
    if model is None and layout is not None:
        model = maker(bytes.fromhex(layout.fingerprint))
        if model is None:
            raise CodesError(
                f"{output}: the codes are of {layout.model}, {layout.fingerprint}, which is not "
                "packaged: give it with --model"
            )
    if layout is None:
        file = model_file.read(model)
        layout = Layout.of_model(file.name, file.fingerprint, file.config)
    form = Form(storage.absolute(output), to, content, layout, listing.extra)
    if model is not None and storage.is_file(model):
        model = storage.absolute(model)
    place = "cuda" if opt.is_gpu(device) else "cpu"
    job = Job(form, model, place, collapse=collapse, speaker=speaker)
    with progress_bar(content) as on_progress:
        summary = run(job, listing, Cluster(ray, jobs), on_progress)
    if quiet:
        return
    typer.echo(f"{summary.n} recordings, {summary.seconds / 3600:.2f} h → {output}")
    for name, n, what in (
        ("errors", summary.n_errors, "left out"),
        ("warnings", summary.n_warnings, "odd"),
    ):
        if n:
            typer.echo(f"{n} {what}: {storage.join(output, RECORDS, name)}.jsonl")
