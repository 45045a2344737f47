"""One file, a stream or a folder of files through the same work."""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import typer
from vqcodec_cli.display import OnProgress, progress_bar
from vqcodec_cli.errors import message
from vqcodec_cli.options import files_at_a_time

AUDIO_SUFFIXES = (
    *(".wav", ".flac", ".ogg", ".opus", ".mp3", ".aiff", ".aif"),
    *(".m4a", ".aac", ".amr", ".3gp", ".webm", ".mp4", ".mov", ".mkv"),
)
STREAM, STDIN = "-", "<stdin>"

# Reads a source, writes a target and tells the share done.
Work = Callable[[str, str, OnProgress], None]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Plan:
    """What is to be made from what.

    Attributes:
        pairs: sources and targets: paths, or `-` for a standard stream.
        n_existing: targets of a folder that exist and are left alone.
        is_folder: whether a folder was given.
    """

    pairs: list[tuple[str, str]]
    n_existing: int
    is_folder: bool


def plan(
    source: str, target: str, *, suffixes: tuple[str, ...], target_suffix: str, force: bool
) -> Plan:
    """Say what to do with a source.

    Args:
        source: a file, a folder or `-`.
        target: as the source.
        suffixes: of the files to take from a folder.
        target_suffix: of the files made from a folder.
        force: make again what exists.

    Raises:
        VqcodecError: the source is missing, the target exists or is the source, or the folder holds
            nothing or two files of one name.
    """
    from vqcodec.errors import VqcodecError

    if not source or not target:
        raise VqcodecError("an empty path names nothing; perhaps a variable of the shell is unset")
    if Path(source).is_dir():
        return _plan_folder(Path(source), target, suffixes, target_suffix, force)
    if source != STREAM and not os.path.lexists(source):
        raise VqcodecError(f"{source}: no such file or folder; check the path")
    if target != STREAM:
        is_audio = target_suffix in AUDIO_SUFFIXES
        if not is_audio and Path(target).suffix.lower() in AUDIO_SUFFIXES:
            raise VqcodecError(f"{target}: ends as a sound file does; name a {target_suffix} file")
        check_target(target, force, is_audio=is_audio)
        if Path(target).is_file() and source != STREAM and Path(target).samefile(source):
            raise VqcodecError(f"{target}: would replace what it is made of; name another file")
    return Plan([(source, target)], 0, is_folder=False)


def check_target(path: str | Path, force: bool, *, is_audio: bool = False) -> None:
    """Refuse what cannot be written, before any work is done for it.

    Args:
        path: the file to write.
        force: overwrite one that exists.
        is_audio: whether its suffix must be one of a sound file.

    Raises:
        VqcodecError: it is a folder or ends otherwise, its folder is missing or cannot be written,
            or it exists and is not to be overwritten.
    """
    from vqcodec.errors import VqcodecError

    folder = Path(path).parent
    if Path(path).is_dir() or str(path).endswith(os.sep):
        raise VqcodecError(f"{path}: is a folder; name a file")
    if is_audio:
        from vqcodec.soundfiles import checked_suffix

        checked_suffix(path)
    if not folder.is_dir():
        raise VqcodecError(f"{path}: there is no folder {folder}; make it or choose another")
    if not os.access(folder, os.W_OK):
        raise VqcodecError(f"{path}: its folder cannot be written; choose another")
    # What is no regular file, such as /dev/null, holds nothing to lose.
    if Path(path).is_file() and not force:
        raise VqcodecError(f"{path}: exists; add --force to overwrite it")


def _plan_folder(
    source: Path, target: str, suffixes: tuple[str, ...], target_suffix: str, force: bool
) -> Plan:
    from vqcodec.errors import VqcodecError
    from vqcodec.files import files_below

    folder = Path(target)
    is_named_as_file = folder.suffix.lower() in (*AUDIO_SUFFIXES, ".codes") and not folder.is_dir()
    if target == STREAM or folder.is_file() or is_named_as_file:
        raise VqcodecError(f"{target}: no folder, and {source} is one; name a folder to write to")
    results = folder.resolve()
    sources: dict[Path, Path] = {}
    for path in files_below(source, suffixes):
        if results != source.resolve() and results in path.resolve().parents:
            continue
        result = (folder / path.relative_to(source)).with_suffix(target_suffix)
        if result == path:
            raise VqcodecError(f"{path}: would be overwritten; name another folder to write to")
        other = sources.setdefault(result, path)
        if other != path:
            raise VqcodecError(f"{path}: would become {result}, and so would {other}; rename one")
    if not sources:
        raise VqcodecError(f"{source}: holds no file that ends in {', '.join(suffixes)}")
    pairs = [
        (str(path), str(result)) for result, path in sources.items() if force or not result.exists()
    ]
    return Plan(pairs, len(sources) - len(pairs), is_folder=True)


def run(plan: Plan, start: Callable[[], Work], *, label: str, jobs: int | None) -> None:
    """Do the work; a file of a folder that fails is reported, and the others go on.

    Args:
        plan: what to do.
        start: what to do first, such as loading the model; returns the work on one file.
        label: of the progress bar.
        jobs: files of a folder at a time, each on one core; one for each available core when None.

    Raises:
        typer.Exit: a file of a folder failed.
        Exception: whatever the work on a single file raises.
    """
    with progress_bar(label) as on_progress:
        if not plan.is_folder:
            ((source, target),) = plan.pairs
            _one(start(), source, target, on_progress)
            return
        n_failed = _run_all(plan.pairs, start(), jobs, on_progress) if plan.pairs else 0
    n_done = len(plan.pairs) - n_failed
    anew = " (--force makes them anew)" if plan.n_existing else ""
    typer.echo(f"{n_done} done, {plan.n_existing} already there{anew}, {n_failed} failed")
    if n_failed:
        raise typer.Exit(1)


def _run_all(
    pairs: list[tuple[str, str]], work: Work, jobs: int | None, on_progress: OnProgress
) -> int:
    """Work through pairs on several threads; returns how many failed."""
    import torch

    stopped = threading.Event()

    def watch(share: float) -> None:
        if stopped.is_set():
            raise InterruptedError

    def one(source: str, target: str) -> None:
        Path(target).parent.mkdir(parents=True, exist_ok=True)
        _one(work, source, target, watch)

    n_failed = 0
    pool = ThreadPoolExecutor(
        files_at_a_time(jobs), initializer=torch.set_num_threads, initargs=(1,)
    )
    try:
        waiting: set[Future[None]] = {pool.submit(one, *pair) for pair in pairs}
        while waiting:
            # A wait without an end may miss an interrupt that came as it began.
            finished, waiting = wait(waiting, timeout=0.2, return_when=FIRST_COMPLETED)
            for error in (future.exception() for future in finished):
                if isinstance(error, Exception):
                    n_failed += 1
                    typer.echo(f"vqcodec: {message(error)}", err=True)
                    logger.debug("traceback:", exc_info=error)
            on_progress(1 - len(waiting) / len(pairs))
    finally:
        stopped.set()
        pool.shutdown(cancel_futures=True)
    return n_failed


def _one(work: Work, source: str, target: str, on_progress: OnProgress) -> None:
    """Work on one pair, whose errors name the source or the target."""
    from vqcodec.errors import VqcodecError

    name = STDIN if source == STREAM else source
    try:
        work(source, target, on_progress)
    except VqcodecError as error:
        if str(error).startswith((f"{name}: ", f"{target}: ")):
            raise
        raise type(error)(f"{name}: {error}") from error


def readable(source: str) -> str | BinaryIO:
    """A path as it is, or standard input."""
    return sys.stdin.buffer if source == STREAM else source


def writable(target: str) -> str | BinaryIO:
    """A path as it is, or standard output."""
    return sys.stdout.buffer if target == STREAM else target
