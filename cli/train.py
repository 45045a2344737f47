"""train and recipes."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from vqcodec_cli.options import Device, DeviceName

if TYPE_CHECKING:
    from vqcodec.training.trainer import Report


def train(
    recipe: Annotated[Path, typer.Argument(help="A recipe file, or the name of a packaged one.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Changes to the recipe.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where the run stopped.")] = False,
    max_minutes: Annotated[
        float | None, typer.Option(metavar="M", help="Stop after this time; --resume goes on.")
    ] = None,
    device: Device = DeviceName.auto,
) -> None:
    """Train a model as a recipe says.

    For several processors: torchrun --nproc-per-node 8 -m vqcodec train …

    Example: vqcodec train vctk.yaml data.root=data/vctk steps=200000
    """
    from vqcodec.training.config import load_recipe
    from vqcodec.training.trainer import train as run

    changes = list(overrides or [])
    if max_minutes is not None:
        changes.append(f"max_minutes={max_minutes}")
    plan = load_recipe(recipe, changes)
    is_first = os.environ.get("RANK", "0") == "0"
    with _reporter(is_live=is_first and sys.stderr.isatty()) as on_report:
        path = run(plan, device=device.value, resume=resume, on_report=on_report)
    if is_first and not path.exists():
        typer.echo("no model yet, the time was too short: go on with --resume")
    elif is_first:
        typer.echo(f"model: {path}")
        use = ["vqcodec", "encode", "in.wav", "out.codes", "--model", str(path)]
        typer.echo(f"use it: {shlex.join(use)}")


def recipes() -> None:
    """List the packaged recipes.

    Example: vqcodec recipes
    """
    from vqcodec.training.config import packaged_recipes

    found = packaged_recipes()
    width = max(map(len, found), default=0)
    for name, path in found.items():
        first = path.read_text(encoding="utf-8").partition("\n")[0]
        typer.echo(f"{name:<{width}}  {first.removeprefix('#').strip()}")


@contextmanager
def _reporter(*, is_live: bool) -> Iterator[Callable[[Report], None]]:
    """A live line of reports, or where there is no terminal a line for each validation.

    Warnings appear once each.
    """
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    progress = Progress(
        TextColumn("step {task.completed:.0f}/{task.total:.0f}"),
        BarColumn(),
        TextColumn("loss {task.fields[loss]:.3f}  perplexity {task.fields[perplexity]:.0f}"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        speed_estimate_period=600,
        redirect_stdout=False,
        disable=not is_live,
    )
    warned: set[str] = set()

    def on_report(report: Report) -> None:
        loss, perplexity = report.losses["total"], report.usage.perplexity
        # The line starts with the first report, so that resumed steps do not count as speed.
        if not progress.task_ids:
            progress.add_task(
                "", total=report.steps, completed=report.step, loss=loss, perplexity=perplexity
            )
        progress.update(
            progress.task_ids[0], completed=report.step, loss=loss, perplexity=perplexity
        )
        if not is_live and report.validation is not None:
            typer.echo(
                f"step {report.step}/{report.steps}  loss {loss:.3f}  "
                f"validation {report.validation:.3f}  perplexity {perplexity:.0f}",
                err=True,
            )
        # The figures after the colon change with every report.
        kind = (report.warning or "").partition(":")[0]
        if report.warning and kind not in warned:
            warned.add(kind)
            typer.secho(f"vqcodec: {report.warning}", fg="yellow", err=True)

    with progress:
        yield on_report
