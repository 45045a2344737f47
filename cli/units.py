"""units: codes as phoneme-like units."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from vqcodec_cli import options as opt
from vqcodec_cli.batch import (
    CODES_SUFFIXES,
    STREAM,
    Output,
    at_a_time,
    check_target,
    distinct_names,
    finish,
    map_reported,
    naming,
    readable,
)
from vqcodec_cli.datasets import Ray, make_dataset
from vqcodec_cli.display import progress_bar
from vqcodec_cli.options import load_codec
from vqcodec_cli.unfinished import Line, Unfinished, path_beside

from vqcodec.errors import VqcodecError
from vqcodec.files import AUDIO_SUFFIXES, files_below, write_atomically

if TYPE_CHECKING:
    from vqcodec import Codec
    from vqcodec.inference.units import Units

# Suffix of the output -> whether it takes several recordings.
FORMATS = {".txt": True, ".jsonl": True, ".npy": False, ".textgrid": False}
# Of a recording, by its source; and of one whose source and name are given.
UnitsOf = Callable[[str], "Units"]
Work = Callable[[tuple[str, str]], Line]

Sources = Annotated[
    list[str], typer.Argument(help="Recordings, code files, folders of either, or - (a recording).")
]
Target = Annotated[
    str | None,
    typer.Option(
        "--output",
        "-o",
        metavar="FILE",
        help="A .txt, .jsonl, .npy or .TextGrid file, the last two of one recording.",
        show_default="lines of .txt on standard output",
    ),
]
Dedup = Annotated[
    bool, typer.Option("--dedup", help="Collapse consecutive repeats, and add their durations.")
]


def units(
    sources: Sources,
    target: Target = None,
    to: Annotated[
        Literal["parquet", "webdataset", "lhotse"] | None,
        typer.Option(help="Make a data set in the folder FILE, of any source of encode-dataset."),
    ] = None,
    dedup: Dedup = False,
    model: Annotated[
        str | None, opt.model_option("speech-1k; of code files, the packaged one that made them")
    ] = None,
    device: opt.Device = "auto",
    jobs: opt.Jobs = None,
    ray: Ray = None,
    force: opt.Force = False,
    quiet: opt.Quiet = False,
) -> None:
    """Write codes as sequences of units, for programs that take them for phonemes or text.

    What is done of several recordings stands in FILE.unfinished until all are: a run that was
    stopped, or in which some failed, is continued by the same command.

    Example: vqcodec units recordings/ --dedup -o units.txt
    """
    if to is not None:
        if len(sources) > 1 or target is None:
            raise typer.BadParameter("--to makes one data set of one source: name it, and -o")
        options = model, device, jobs, ray, quiet
        make_dataset(sources[0], target, to, "units", *options, collapse=dedup)
        return
    output = None if target is None else Path(target)
    kind = ".txt" if output is None else output.suffix.lower()
    if kind not in FORMATS:
        raise typer.BadParameter(f"{output}: must end in .txt, .jsonl, .npy or .TextGrid")
    named = _named(sources)
    if len(named) > 1 and not FORMATS[kind]:
        raise typer.BadParameter(
            f"{output}: takes one recording, not {len(named)}; write .txt or .jsonl"
        )
    if output is not None:
        check_target(output, force or (len(named) > 1 and path_beside(output).exists()))
    needs_model = model is not None or not all(map(_holds_codes, named))

    def load() -> UnitsOf:
        codec = load_codec(model, None, device) if needs_model else None
        return partial(_units, codec, model is not None, dedup)

    def start() -> Work:
        return partial(_line, load(), kind)

    if len(named) == 1:
        ((source, name),) = named.items()
        with progress_bar("encoding"):
            found = load()(source)
            _write(output, [_formatted(kind, name, source, found)])
        if output is not None and not quiet:
            typer.echo(f"{source} → {output}  {Output(found.duration_s)}")
        return
    n_jobs = 1
    # Standard input belongs to this process; and to read codes, torch would be loaded for nothing.
    if needs_model and STREAM not in named:
        n_jobs = at_a_time(jobs, device)
    unfinished = None
    if output is not None:
        unfinished = Unfinished(output, {"model": model, "dedup": dedup}, force=force)
    _write_all(list(named.items()), start, n_jobs, output, unfinished, quiet)


def _write_all(
    items: list[tuple[str, str]],
    start: Callable[[], Work],
    n_jobs: int,
    output: Path | None,
    unfinished: Unfinished | None,
    quiet: bool,
) -> None:
    """Write the lines of several recordings, to standard output as they come."""
    n_existing = sum(source in unfinished.lines for source, _ in items) if unfinished else 0
    lines = []
    for line in _in_order(start, items, n_jobs, unfinished):
        lines.append(line)
        if output is None:
            _write(None, [line])
    n_failed = len(items) - len(lines)
    if output is not None and lines:
        _write(output, lines)
    if unfinished and not n_failed:
        unfinished.remove()
    quiet = quiet or output is None
    finish(len(lines) - n_existing, n_existing, n_failed, quiet=quiet, result=f"→ {output}")


def _named(sources: list[str]) -> dict[str, str]:
    """Recordings and their names, as far as these differ below the given folders."""
    found: dict[Path, Path] = {}
    for source in sources:
        for path, name in _found(source):
            found.setdefault(path, name)
    named: dict[str, str] = {}
    for path, name in distinct_names(found).items():
        if (other := named.setdefault(name.as_posix(), str(path))) != str(path):
            raise VqcodecError(f"{path}: would be called {name}, and so would {other}; rename one")
    return {path: name for name, path in named.items()}


def _found(source: str) -> Iterator[tuple[Path, Path]]:
    """Paths of recordings, and their names with suffixes."""
    folder = Path(source)
    if not folder.is_dir():
        yield folder, Path("stdin" if source == STREAM else folder.name)
        return
    for suffixes in (AUDIO_SUFFIXES, CODES_SUFFIXES):
        paths = files_below(folder, suffixes)
        # Codes lie beside the recordings they were made of.
        if paths:
            for path in paths:
                yield path, path.relative_to(folder)
            return
    raise VqcodecError(f"{source}: holds neither recordings nor {CODES_SUFFIXES[0]} files")


def _in_order(
    start: Callable[[], Work],
    items: list[tuple[str, str]],
    n_jobs: int,
    unfinished: Unfinished | None,
) -> Iterator[bytes]:
    """Lines in the order of their sources, as soon as those before are there.

    Of those that fail, or are of another model than the first, there is a word on stderr.
    """
    found: dict[str, Line | None] = {**unfinished.lines} if unfinished else {}
    left = [item for item in items if item[0] not in found]
    sources, model = iter([source for source, _ in items]), ""
    source = next(sources, None)

    def ready() -> Iterator[bytes]:
        nonlocal source, model
        while source in found:
            if (line := found[source]) is not None:
                model = model or line.model
                if line.model == model:
                    yield line.data
                else:
                    typer.echo(
                        f"vqcodec: {source}: its units are of model {line.model}, those before of "
                        f"{model}; write them to a file of their own",
                        err=True,
                    )
            source = next(sources, None)

    with closing(map_reported(start, left, "encoding", n_jobs)) as results:
        for place, line in results:
            item, _ = left[place]
            found[item] = line
            if unfinished and line is not None:
                unfinished.add(item, line)
            yield from ready()
    yield from ready()


def _holds_codes(source: str) -> bool:
    return Path(source).suffix.lower() in CODES_SUFFIXES


def _line(units_of: UnitsOf, kind: str, item: tuple[str, str]) -> Line:
    source, name = item
    units = units_of(source)
    return Line(units.fingerprint, _formatted(kind, name, source, units))


def _units(codec: Codec | None, is_named: bool, collapse: bool, source: str) -> Units:
    """The units of a recording, by a model that codes must be of if it was named."""
    from vqcodec import Codes
    from vqcodec.inference.units import NOBODY, Units

    with naming(source):
        if codec is None or _holds_codes(source):
            codes = Codes.load(source, tables=codec.tables if codec and is_named else None)
            if codec and is_named:
                codec.check(codes)
        else:
            codes = codec.encode(readable(source), speaker=NOBODY)
        return Units.of(codes, collapse=collapse)


def _write(output: Path | None, lines: list[bytes]) -> None:
    if output is None:
        typer.echo(b"".join(lines), nl=False)
    else:
        write_atomically(output, b"".join(lines))


def _formatted(kind: str, name: str, source: str, units: Units) -> bytes:
    from vqcodec.format.textgrid import textgrid
    from vqcodec.inference.units import json_line, npy_bytes, text_line

    match kind:
        case ".txt":
            return text_line(name, units).encode(errors="surrogateescape")
        case ".jsonl":
            return json_line(source, units).encode(errors="backslashreplace")
        case ".npy":
            return npy_bytes(units)
        case _:
            return textgrid(units.intervals(), tier="units").encode()
