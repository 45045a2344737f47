"""One file, a stream or many files through the same work."""

from __future__ import annotations

import logging
import os
import sys
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TypeVar

import typer
from vqcodec_cli.display import OnProgress, progress_bar
from vqcodec_cli.jobs import map_unordered
from vqcodec_cli.options import DeviceName, files_at_a_time, is_gpu

from vqcodec.errors import VqcodecError
from vqcodec.files import AUDIO_SUFFIXES, files_below

CODES_SUFFIXES = (".codes",)
STREAM, STDIN = "-", "<stdin>"

Item = TypeVar("Item")
Result = TypeVar("Result")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Output:
    """Seconds of audio made of a file, or of several, and bytes of codes; 0 of audio."""

    seconds: float
    n_bytes: int = 0

    def __add__(self, other: Output) -> Output:
        return Output(self.seconds + other.seconds, self.n_bytes + other.n_bytes)

    def __str__(self) -> str:
        text = f"{self.seconds:.2f} s"
        if not self.n_bytes:
            return text
        return f"{text}, {self.n_bytes} bytes, {self.n_bytes / self.seconds / 125:.2f} kbit/s"


# Reads a source, writes a target and tells the share done; nothing is known of live streams.
Work = Callable[[str, str, OnProgress], Output | None]
Ahead = Callable[[Sequence[tuple[str, str]]], None]


@dataclass(frozen=True)
class Plan:
    """What is to be made from what.

    Attributes:
        pairs: sources and targets: paths, or `-` for a standard stream.
        n_existing: targets of many that exist and are left alone.
        is_one: whether one file or stream was named, and not several or a folder.
    """

    pairs: list[tuple[str, str]]
    n_existing: int = 0
    is_one: bool = True


def sources_and_target(
    paths: list[str], suffixes: tuple[str, ...], target_suffixes: tuple[str, ...]
) -> tuple[list[str], str | None]:
    """Say which of the paths of a command line are read, and which, if any, is written to.

    The last one is written to if it ends as what is made does, or is `-`, a folder or not there
    yet. It is read if it ends as what is read does.
    """
    *sources, last = paths
    suffix = Path(last).suffix.lower()
    if not sources or (suffix in suffixes and not Path(last).is_dir()):
        return paths, None
    if suffix not in target_suffixes and Path(last).is_file():
        return paths, None
    return sources, last


@dataclass(frozen=True)
class Planner:
    """Finds what is to be made from what.

    Attributes:
        suffixes: of the files to read, and to take from a folder.
        target_suffix: of results that have no name of their own.
        force: make again what exists.
        mark: stands before the suffix of results beside their sources.
    """

    suffixes: tuple[str, ...]
    target_suffix: str
    force: bool
    mark: str = ""

    def plan(self, sources: list[str], target: str | None) -> Plan:
        """Say what to do with files, folders or `-`.

        The target is a file, a folder or `-`; each result lies beside its source when it is None.
        Raises VqcodecError if a source is missing, a target exists or is a source, or a folder
        holds nothing or two files whose results would have one name.
        """
        if "" in (*sources, target):
            raise VqcodecError(
                "an empty path names nothing; perhaps a variable of the shell is unset"
            )
        for place, source in enumerate(sources):
            if source != STREAM and not os.path.lexists(source):
                is_last = place and target is None
                end = f", or end a target in {self.target_suffix}" if is_last else ""
                raise VqcodecError(f"{source}: no such file or folder; check the path{end}")
        if len(sources) > 1 or Path(sources[0]).is_dir():
            return self._many(sources, target)
        return Plan([self._pair(sources[0], target)])

    def _pair(self, source: str, target: str | None) -> tuple[str, str]:
        path, is_audio = Path(source), self.target_suffix in AUDIO_SUFFIXES
        reads_codes = self.suffixes == CODES_SUFFIXES
        if path.suffix.lower() in (AUDIO_SUFFIXES if reads_codes else CODES_SUFFIXES):
            kind = "recording, no code file" if reads_codes else "code file, no recording"
            command = "encode" if reads_codes else "decode"
            raise VqcodecError(f"{source}: is a {kind}; vqcodec {command} makes one of it")
        if target is None:
            beside = str(path.with_suffix(self.mark + self.target_suffix))
            target = STREAM if source == STREAM else beside
        elif Path(target).is_dir() and source != STREAM:
            target = str(Path(target, path.with_suffix(self.target_suffix).name))
        if target != STREAM:
            if not is_audio and Path(target).suffix.lower() in AUDIO_SUFFIXES:
                raise VqcodecError(
                    f"{target}: ends as a sound file does; name a {self.target_suffix} file"
                )
            if Path(target).is_file() and source != STREAM and Path(target).samefile(source):
                raise VqcodecError(f"{target}: would replace what it is made of; name another file")
            check_target(target, self.force, is_audio=is_audio)
        return source, target

    def _many(self, sources: list[str], target: str | None) -> Plan:
        if STREAM in sources:
            raise VqcodecError("-: standard input comes alone; give it a command of its own")
        if target is not None:
            is_name = Path(target).suffix.lower() in (*AUDIO_SUFFIXES, *CODES_SUFFIXES)
            is_name = is_name and not Path(target).is_dir()
            if target == STREAM or Path(target).is_file() or is_name:
                one = f"{sources[0]} is one"
                many = one if len(sources) == 1 else f"{len(sources)} are to be read"
                raise VqcodecError(f"{target}: no folder, and {many}; name a folder to write to")
        bare: dict[Path, Path] = {}
        for source in sources:
            for path, result in self._results(Path(source), target):
                bare.setdefault(path, result)
        if not bare:
            named, ends = ", ".join(sources), ", ".join(self.suffixes)
            raise VqcodecError(f"{named}: holds no file that ends in {ends}")
        ending = (self.mark if target is None else "") + self.target_suffix
        results = {
            path: result.with_name(result.name + ending)
            for path, result in distinct_names(bare).items()
        }
        makers: dict[Path, Path] = {}
        for path, result in results.items():
            if result in results:
                raise VqcodecError(
                    f"{result}: would be overwritten; name another folder to write to"
                )
            if (other := makers.setdefault(result, path)) != path:
                raise VqcodecError(
                    f"{path}: would become {result}, and so would {other}; rename one"
                )
        pairs = [
            (str(path), str(result))
            for path, result in results.items()
            if self.force or not result.exists()
        ]
        return Plan(pairs, len(results) - len(pairs), is_one=False)

    def _results(self, source: Path, target: str | None) -> Iterator[tuple[Path, Path]]:
        """Files of a source, and what is made of each, with the suffix that it has."""
        if not source.is_dir():
            yield source, source if target is None else Path(target, source.name)
            return
        folder = source if target is None else Path(target)
        results = folder.resolve()
        for path in files_below(source, self.suffixes):
            if results == source.resolve() or results not in path.resolve().parents:
                yield path, folder / path.relative_to(source)


def check_target(path: str | Path, force: bool, *, is_audio: bool = False) -> None:
    """Refuse to write a file that cannot be written, before any work is done for it.

    Raises VqcodecError if it is a folder, does not end as `is_audio` wants it to, its folder is
    missing or cannot be written, or it exists and is not to be overwritten.
    """
    folder = Path(path).parent
    if Path(path).is_dir() or str(path).endswith(os.sep):
        raise VqcodecError(f"{path}: is a folder; name a file")
    if is_audio:
        from vqcodec.audio.writing import checked_suffix

        checked_suffix(path)
    if not folder.is_dir():
        raise VqcodecError(f"{path}: there is no folder {folder}; make it or choose another")
    if not os.access(folder, os.W_OK):
        raise VqcodecError(f"{path}: its folder cannot be written; choose another")
    # What is no regular file, such as /dev/null, holds nothing to lose.
    if Path(path).is_file() and not force:
        raise VqcodecError(f"{path}: exists; add --force to overwrite it, or name another target")


def distinct_names(named: dict[Path, Path]) -> dict[Path, Path]:
    """Names without their suffixes, which only those keep that would be the same without."""
    short = {path: name.with_suffix("") for path, name in named.items()}
    while True:
        count = Counter(short.values())
        same = [path for path in short if count[short[path]] > 1 and short[path] != named[path]]
        if not same:
            return short
        short |= {path: named[path] for path in same}


def run(
    plan: Plan,
    start: Callable[[], Work],
    *,
    label: str,
    jobs: int | None,
    device: DeviceName,
    quiet: bool,
    ahead: Ahead | None = None,
) -> None:
    """Do the work that `start` gives; of many files those that fail are reported, others go on.

    Then typer.Exit is raised; of a single file, whatever the work on it raises. `ahead` is that of
    `jobs.map_unordered`.
    """
    if plan.is_one:
        _run_one(plan.pairs[0], start, label, quiet=quiet)
        return

    def start_many() -> Callable[[tuple[str, str]], Output | None]:
        work = start()

        def work_on(pair: tuple[str, str]) -> Output | None:
            Path(pair[1]).parent.mkdir(parents=True, exist_ok=True)
            with naming(*pair):
                return work(*pair, lambda share: None)

        return work_on

    # So that all processes end at about the same time.
    pairs = sorted(plan.pairs, key=lambda pair: _size(pair[0]), reverse=True)
    n_jobs = at_a_time(jobs, device) if pairs else 1
    with closing(map_reported(start_many, pairs, label, n_jobs, ahead)) as results:
        made = [output for _, output in results if output is not None]
    result = ""
    if made:
        folder = os.path.commonpath([Path(target).parent for _, target in pairs])
        result = f"→ {folder or '.'}  {sum(made, Output(0.0))}"
    finish(len(made), plan.n_existing, len(pairs) - len(made), quiet=quiet, result=result)


def _run_one(pair: tuple[str, str], start: Callable[[], Work], label: str, *, quiet: bool) -> None:
    source, target = pair
    with progress_bar(label) as on_progress:
        work = start()
        with naming(source, target):
            output = work(source, target, on_progress)
    # What is no file may be where the data itself goes.
    if output and not quiet and Path(target).is_file():
        typer.echo(f"{source} → {target}  {output}")


def _size(path: str) -> int:
    try:
        return os.path.getsize(path)
    except OSError:
        return 0  # reading it will say what is wrong


def map_reported(
    start: Callable[[], Callable[[Item], Result]],
    items: list[Item],
    label: str,
    n_jobs: int,
    ahead: Callable[[Sequence[Item]], None] | None = None,
) -> Generator[tuple[int, Result | None]]:
    """Work on items as `jobs.map_unordered` does; what is said, and faults, go to stderr.

    Yields places in `items`, as they are done, and what was made of them; None of those that
    failed.
    """
    with (
        progress_bar(label) as on_progress,
        closing(map_unordered(start, items, n_jobs, ahead)) as results,
    ):
        for n_done, (place, done) in enumerate(results, 1):
            sys.stderr.write(done.stderr)
            if done.error:
                typer.echo(f"vqcodec: {done.error}", err=True)
                logger.debug("%s", done.traceback)
            on_progress(n_done / len(items))
            yield place, done.result


def at_a_time(jobs: int | None, device: DeviceName) -> int:
    """How many files to work on at a time: on a GPU one, since its process cannot be forked."""
    return 1 if is_gpu(device) else files_at_a_time(jobs)


def finish(n_done: int, n_existing: int, n_failed: int, *, quiet: bool, result: str = "") -> None:
    """Say what became of many files, and where it is; raises typer.Exit if some failed."""
    if not quiet:
        anew = " (--force makes them anew)" if n_existing else ""
        typer.echo(f"{n_done} done, {n_existing} already there{anew}, {n_failed} failed")
        if result:
            typer.echo(result)
    if n_failed:
        raise typer.Exit(1)


@contextmanager
def naming(source: str, *others: str) -> Iterator[None]:
    """Let errors name a source, if they do not already, or another file that they are about."""
    name = STDIN if source == STREAM else source
    try:
        yield
    except VqcodecError as error:
        if str(error).startswith(tuple(f"{one}: " for one in (name, *others))):
            raise
        raise type(error)(f"{name}: {error}") from error


def readable(source: str) -> str | BinaryIO:
    """A path as it is, or standard input."""
    return sys.stdin.buffer if source == STREAM else source


def writable(target: str) -> str | BinaryIO:
    """A path as it is, or standard output."""
    return sys.stdout.buffer if target == STREAM else target
