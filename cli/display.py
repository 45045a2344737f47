"""What is shown: progress and errors on stderr, results on stdout."""

from __future__ import annotations

import json
import math
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer

from vqcodec.errors import RecordingWarning, VqcodecError
from vqcodec.extras import extra_with

if TYPE_CHECKING:
    from vqcodec.evaluation.cache import OnProgress as OnReportProgress
    from vqcodec.evaluation.cache import Progress as ReportProgress

OnProgress = Callable[..., None]
LOG_SECONDS = 30.0
"""Between the lines of a log, at least."""
# What Typer raises for bad arguments; only its subclasses have public names.
USAGE_ERROR: type[BaseException] = typer.BadParameter.__mro__[1]


@contextmanager
def progress_bar(label: str) -> Iterator[OnProgress]:
    """A bar that the yielded function moves to a share in [0, 1]; until then it pulses.

    A second argument of that function says what stands before the bar from then on. Nothing is
    shown where stderr is no terminal.
    """
    if not sys.stderr.isatty():
        yield lambda share, description=label: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn
    from rich.progress import TimeRemainingColumn as TimeLeft

    with Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TimeLeft(),
        console=Console(stderr=True),
        transient=True,
        redirect_stdout=False,
    ) as progress:
        task = progress.add_task(label, total=None)

        def move(share: float, description: str = label) -> None:
            progress.update(task, total=1.0, completed=share, description=description)

        yield move


@contextmanager
def progress_of_report(label: str) -> Iterator[OnReportProgress]:
    """A bar as of `progress_bar`, and where stderr is no terminal a line now and then.

    Both name what is waited for.
    """
    if sys.stderr.isatty():
        with progress_bar(label) as move:
            yield lambda now: move(now.n_done / max(now.n_all, 1), f"{label} {now.waiting_for}")
        return
    began, told_at = time.monotonic(), -math.inf

    def log(now: ReportProgress) -> None:
        nonlocal told_at
        seconds = time.monotonic()
        if 0 < now.n_done < now.n_all and seconds - told_at < LOG_SECONDS:
            return
        told_at = seconds
        line = f"{label}: {now.n_done} of {now.n_all}" if now.n_all else "waiting for"
        if 0 < now.n_done < now.n_all:
            left_s = (seconds - began) * (now.n_all - now.n_done) / now.n_done
            line += f", {math.ceil(left_s / 60)} min left"
        if now.n_all and now.waiting_for:
            line += ", at"
        typer.echo(f"{line} {now.waiting_for}".rstrip(), err=True)

    yield log


def warn_of_clipping(target: str, share: float, advice: str) -> None:
    """Say on stderr which share of what was written is clipped, if it can be heard."""
    from vqcodec.audio.writing import AUDIBLE_CLIPPING

    if share > AUDIBLE_CLIPPING:
        typer.echo(
            f"vqcodec: {target}: {share:.1%} of its samples are too loud and were clipped; "
            f"{advice}",
            err=True,
        )


@contextmanager
def recording_warnings() -> Iterator[None]:
    """Say on stderr what the library warns of in recordings, from any thread, each thing once."""
    told: set[str] = set()

    def tell(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
        if not issubclass(category, RecordingWarning):
            show_other(message, category, *where, **more)
        elif str(message) not in told:
            told.add(str(message))
            typer.echo(f"vqcodec: {message}", err=True)

    with warnings.catch_warnings():
        show_other, warnings.showwarning = warnings.showwarning, tell
        yield


def usage_message(error: Any) -> str:
    """One line about an error in the arguments."""
    command = error.ctx.command_path if error.ctx else "vqcodec"
    told = _one_line(error.format_message()).rstrip(".")
    is_target = getattr(error, "option_name", None) in ("-o", "--output")
    if is_target and error.ctx.info_name in ("encode", "decode"):
        told += ": name the target last"
    return f"{told}; see {command} --help"


def message(error: Exception) -> str:
    """One line about an error in the data, the system or the program."""
    if isinstance(error, VqcodecError):
        return _one_line(str(error))
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    if isinstance(error, ModuleNotFoundError) and (extra := extra_with(error.name or "")):
        return f"{error.name}: is not installed; pip install 'vqcodec[{extra}]'"
    return _one_line(f"this is a bug ({type(error).__name__}: {error}); report what --debug prints")


def _one_line(text: str) -> str:
    return " ".join(text.split("\n"))


def show(results: Mapping[str, Any] | list[dict[str, Any]], *, as_json: bool) -> None:
    """Print results as JSON, or one row each; of a list, one table each."""
    if as_json:
        typer.echo(json.dumps(results, indent=2, ensure_ascii=False))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    for record in results if isinstance(results, list) else [results]:
        table = Table(show_header=False)
        table.add_column(style="bold", no_wrap=True)
        table.add_column(overflow="fold")
        for name, value in record.items():
            table.add_row(name.replace("_", " "), Text(_text(value)))
        Console().print(table)


def _text(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value / 1e6:.4g} million" if value >= 1e6 else f"{value:.6g}"
    if isinstance(value, Mapping):
        entries = {name: _inline(entry) for name, entry in value.items()}
        return "\n".join(f"{name}: {entry}" for name, entry in entries.items()) or "-"
    if isinstance(value, list):
        return ", ".join(map(_text, value)) or "-"
    return str(value)


def _inline(value: Any) -> str:
    """What stands in a line of a table's cell."""
    if not isinstance(value, Mapping):
        return _text(value)
    return ", ".join(f"{name.replace('_', ' ')} {_text(entry)}" for name, entry in value.items())
