"""units and units-eval: codes as phoneme-like units, and how like phonemes they are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from vqcodec_cli.batch import AUDIO_SUFFIXES, STDIN, STREAM, check_target, readable
from vqcodec_cli.display import progress_bar
from vqcodec_cli.errors import message
from vqcodec_cli.options import Device, DeviceName, Force, Model, ModelOfEither, load_codec

if TYPE_CHECKING:
    from vqcodec.units import Units

CODES_SUFFIX = ".codes"
# Suffix of the output -> whether it takes several recordings.
FORMATS = {".txt": True, ".jsonl": True, ".npy": False, ".textgrid": False}


def units(
    sources: Annotated[
        list[str],
        typer.Argument(help="Recordings, code files, folders of either, or - (a recording)."),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="A .txt, .jsonl, .npy or .TextGrid file, the last two of one recording.",
            show_default="lines of .txt on standard output",
        ),
    ] = None,
    dedup: Annotated[
        bool,
        typer.Option("--dedup", help="Collapse consecutive repeats, and add their durations."),
    ] = False,
    model: ModelOfEither = None,
    device: Device = DeviceName.auto,
    force: Force = False,
) -> None:
    """Write codes as sequences of units, for programs that take them for phonemes or text.

    Example: vqcodec units recordings/ --dedup -o units.txt
    """
    kind = ".txt" if output is None else output.suffix.lower()
    if kind not in FORMATS:
        raise typer.BadParameter(f"{output}: must end in .txt, .jsonl, .npy or .TextGrid")
    named = _named(sources)
    if len(named) > 1 and not FORMATS[kind]:
        raise typer.BadParameter(
            f"{output}: takes one recording, not {len(named)}; write .txt or .jsonl"
        )
    if output is not None:
        check_target(output, force)

    from vqcodec.errors import CodesError
    from vqcodec.files import write_atomically

    parts, n_failed, fingerprint = [], 0, ""
    with progress_bar("encoding") as on_progress:
        read = _reader(model, device, dedup)
        for n_done, (name, source) in enumerate(named.items(), 1):
            try:
                found = read(source)
                fingerprint = fingerprint or found.fingerprint
                if found.fingerprint != fingerprint:
                    raise CodesError(
                        f"{source}: its units are of model {found.fingerprint}, those before of "
                        f"{fingerprint}; write them to a file of their own"
                    )
                part = _formatted(kind, name, source, found)
            except Exception as error:
                if len(named) == 1:
                    raise
                n_failed += 1
                typer.echo(f"vqcodec: {message(error)}", err=True)
                continue
            if output is None:
                typer.echo(part, nl=False)
            parts.append(part)
            on_progress(n_done / len(named))
    if output is not None and parts:
        write_atomically(output, b"".join(parts))
    if n_failed:
        raise typer.Exit(1)


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
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FOLDER", help="Where the report goes.")
    ] = Path("report"),
    model: Model = None,
    device: Device = DeviceName.auto,
) -> None:
    """Compare units, and clusters of MFCCs, with phone labels.

    Learns which phone a unit stands for on one part, and scores the other.

    Example: vqcodec units-eval labels/ --audio corpus/ -o report/
    """
    from vqcodec.evaluation.unit_report import evaluate

    with progress_bar("encoding") as on_progress:
        codec = load_codec(model, None, device)
        page = evaluate(labels, audio or labels, output, codec, on_progress)
    typer.echo(page)
    typer.echo(f"written to {output}")


def _named(sources: list[str]) -> dict[str, str]:
    """Names of recordings, as far as they differ below the given folders, and where each is."""
    from vqcodec.errors import VqcodecError

    named: dict[str, str] = {}
    for source in sources:
        for name, path in _found(source):
            other = named.setdefault(name, path)
            if other != path:
                raise VqcodecError(
                    f"{path}: would be called {name}, and so would {other}; rename one"
                )
    return named


def _found(source: str) -> Iterator[tuple[str, str]]:
    from vqcodec.errors import VqcodecError
    from vqcodec.files import files_below

    folder = Path(source)
    if not folder.is_dir():
        yield "stdin" if source == STREAM else folder.stem, source
        return
    for suffixes in (AUDIO_SUFFIXES, (CODES_SUFFIX,)):
        paths = files_below(folder, suffixes)
        # Codes lie beside the recordings they were made of.
        if paths:
            for path in paths:
                yield path.relative_to(folder).with_suffix("").as_posix(), str(path)
            return
    raise VqcodecError(f"{source}: holds neither recordings nor {CODES_SUFFIX} files")


def _reader(model: str | None, device: DeviceName, collapse: bool) -> Callable[[str], Units]:
    """What turns a path into units; the model is loaded when it is first needed."""
    from functools import cache

    from vqcodec import Codes
    from vqcodec.errors import VqcodecError
    from vqcodec.units import NOBODY, Units

    codec = cache(lambda: load_codec(model, None, device))

    def read(source: str) -> Units:
        name = STDIN if source == STREAM else source
        try:
            if Path(source).suffix.lower() == CODES_SUFFIX:
                codes = Codes.load(source, tables=None if model is None else codec().tables)
                if model is not None:
                    codec().check(codes)
            else:
                codes = codec().encode(readable(source), speaker=NOBODY)
            return Units.of(codes, collapse=collapse)
        except VqcodecError as error:
            if str(error).startswith(f"{name}: "):
                raise
            raise type(error)(f"{name}: {error}") from error

    return read


def _formatted(kind: str, name: str, source: str, units: Units) -> bytes:
    from vqcodec.units import json_line, npy_bytes, text_line, textgrid

    match kind:
        case ".txt":
            return text_line(name, units).encode(errors="surrogateescape")
        case ".jsonl":
            return json_line(source, units).encode(errors="backslashreplace")
        case ".npy":
            return npy_bytes(units)
        case _:
            return textgrid(units.intervals(), tier="units").encode()
