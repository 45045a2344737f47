"""How every benchmark is started from the command line."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from vqcodec.errors import VqcodecError

Output = Annotated[Path, typer.Option("--output", "-o", help="Folder.")]


def run(main: Callable[..., None]) -> None:
    """Run `main` with the options of the command line; an error of the data is one line."""
    try:
        typer.run(main)
    except VqcodecError as error:
        sys.exit(f"error: {error}")
