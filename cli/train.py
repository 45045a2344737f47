"""train and recipes."""

from __future__ import annotations

import logging
import os
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from vqcodec_cli.options import Device, DeviceName

if TYPE_CHECKING:
    from vqcodec.training.loop import Report


def train(
    recipe: Annotated[Path, typer.Argument(help="A recipe file, or the name of a packaged one.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Changes to the recipe.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where the run stopped.")] = False,
    max_minutes: Annotated[
        float | None, typer.Option(metavar="M", help="Stop after this time; --resume goes on.")
    ] = None,
    device: Device = "auto",
) -> None:
    """Train a model as a recipe says.

    For several processors: torchrun --nproc-per-node 8 -m vqcodec train …

    Example: vqcodec train vctk.yaml data.root=data/vctk steps=200000
    """
    from vqcodec.training.recipe_files import read_stages

    changes = list(overrides or [])
    if max_minutes is not None:
        changes.append(f"max_minutes={max_minutes}")
    trees = read_stages(recipe, changes)
    if trees[0].get("stage") == "prior":
        _train_prior(recipe, trees[0], device, resume)
    else:
        _train_codec(recipe, trees, device, resume)


def _train_codec(
    recipe: Path, trees: list[dict[str, Any]], device: DeviceName, resume: bool
) -> None:
    from vqcodec.training.recipe import Recipe
    from vqcodec.training.recipe_files import validated

    def figures(report: Report) -> tuple[str, str]:
        assert report.usage is not None
        return f"loss {report.losses['total']:.3f}", f"perplexity {report.usage.perplexity:.0f}"

    plans = [
        validated(Recipe, f"{recipe}, stage {number}" if number > 1 else recipe, tree)
        for number, tree in enumerate(trees, 1)
    ]
    from vqcodec.training import stages  # torch takes seconds: not before a fault

    with _reporter(figures) as on_report:
        path = stages.train(*plans, device=device, resume=resume, on_report=on_report)
    voice = ["--speaker", "NAME"] if plans[0].model.speaker.kind == "table" else []
    _end(path, ["encode", "in.wav", "out.codes", "--model", str(path), *voice])


def _train_prior(recipe: Path, tree: dict[str, Any], device: DeviceName, resume: bool) -> None:
    from vqcodec.training.recipe import PriorRecipe
    from vqcodec.training.recipe_files import validated

    def figures(report: Report) -> tuple[str, str]:
        return f"{report.losses['bits_per_code']:.3f} bits per code", ""

    plan = validated(PriorRecipe, recipe, tree)
    from vqcodec.training.prior_trainer import train

    with _reporter(figures) as on_report:
        path = train(plan, device=device, resume=resume, on_report=on_report)
    model = [] if plan.codec == PriorRecipe().codec else ["--model", plan.codec]
    _end(path, ["sample", "-o", "out.wav", "--prior", str(path), *model])


def _end(path: Path, use: list[str]) -> None:
    if not _is_first():
        return
    if not path.exists():
        typer.echo("no model yet, the time was too short: go on with --resume")
        return
    typer.echo(f"model: {path}")
    typer.echo(f"use it: {shlex.join(['vqcodec', *use])}")


def _is_first() -> bool:
    """Of the processes that torchrun may have started."""
    return os.environ.get("RANK", "0") == "0"


def recipes() -> None:
    """List the packaged recipes.

    Example: vqcodec recipes
    """
    from vqcodec.training.recipe import packaged_recipes

    found = packaged_recipes()
    width = max(map(len, found), default=0)
    for name, path in found.items():
        first = path.read_text(encoding="utf-8").partition("\n")[0]
        typer.echo(f"{name:<{width}}  {first.removeprefix('#').strip()}")


@contextmanager
def _reporter(figures: Callable[[Report], tuple[str, str]]) -> Iterator[Callable[[Report], None]]:
    """A live line of reports, or where there is no terminal a line for each validation.

    Before it, what the training says of itself. Warnings appear once each. `figures` tells what
    comes before the validation loss of a report, and what after.
    """
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    is_live = _is_first() and sys.stderr.isatty()
    progress = Progress(
        TextColumn("step {task.completed:.0f}/{task.total:.0f}"),
        BarColumn(),
        TextColumn("{task.description}"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        speed_estimate_period=600,
        redirect_stdout=False,
        disable=not is_live,
    )
    warned: set[str] = set()

    def on_report(report: Report) -> None:
        before, after = figures(report)
        # The line starts with the first report, so that resumed steps do not count as speed.
        if not progress.tasks or report.step < progress.tasks[-1].completed:  # of the next stage
            progress.add_task("", total=report.steps, completed=report.step)
        progress.update(
            progress.task_ids[-1], completed=report.step, description=f"{before}  {after}"
        )
        if not is_live and report.validation is not None:
            line = f"{before}  validation {report.validation:.3f}  {after}"
            typer.echo(f"step {report.step}/{report.steps}  {line.rstrip()}", err=True)
        # The figures after the colon change with every report.
        kind = (report.warning or "").partition(":")[0]
        if report.warning and kind not in warned:
            warned.add(kind)
            typer.secho(f"vqcodec: {report.warning}", fg="yellow", err=True)

    spoken = logging.getLogger("vqcodec.training")
    level = spoken.level
    with progress:
        handler = logging.StreamHandler()  # to where the live line lets others write
        handler.setFormatter(logging.Formatter("vqcodec: %(message)s"))
        spoken.addHandler(handler)
        spoken.setLevel(logging.INFO)
        try:
            yield on_report
        finally:
            spoken.removeHandler(handler)
            spoken.setLevel(level)
