"""How every benchmark is started from the command line, and how it ends."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer

from vqcodec.errors import VqcodecError
from vqcodec.evaluation.report import markdown_table, write_report

Output = Annotated[Path, typer.Option("--output", "-o", help="Folder.")]


def run(main: Callable[..., None]) -> None:
    """Run `main` with the options of the command line; an error of the data is one line."""
    try:
        typer.run(main)
    except VqcodecError as error:
        sys.exit(f"error: {error}")


def publish(output: Path, name: str, rows: Sequence[Mapping[str, object]], page: str) -> None:
    """Write NAME.csv and NAME.md into a folder, and print the page."""
    write_report(output, name, rows, page)
    typer.echo(page)


def facts_table(facts: Mapping[str, str]) -> str:
    """A Markdown table of single facts."""
    return markdown_table([{"what": what, "": value} for what, value in facts.items()])
