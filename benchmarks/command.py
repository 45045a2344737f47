"""How every benchmark is started from the command line."""

from __future__ import annotations

import sys
from collections.abc import Callable

import typer

from vqcodec.errors import DataError, VqcodecError


def run(main: Callable[..., None]) -> None:
    """Run `main` with the options of the command line; an error of the data is one line."""
    try:
        typer.run(main)
    except VqcodecError as error:
        sys.exit(f"error: {error}")


def numbers(text: str, option: str) -> list[float]:
    """Numbers separated by commas.

    Raises:
        DataError: naming the option that they are given by.
    """
    try:
        return [float(each) for each in text.split(",")]
    except ValueError:
        raise DataError(f"{option} {text}: give numbers separated by commas") from None
