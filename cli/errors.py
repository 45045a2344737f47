"""Errors as one line."""

from __future__ import annotations

from typing import Any

import typer

from vqcodec.errors import VqcodecError
from vqcodec.extras import extra_with

# What Typer raises for bad arguments; only its subclasses have public names.
USAGE_ERROR: type[BaseException] = typer.BadParameter.__mro__[1]


def usage_message(error: Any) -> str:
    """One line about an error in the arguments."""
    command = error.ctx.command_path if error.ctx else "vqcodec"
    return f"{_one_line(error.format_message()).rstrip('.')}; see {command} --help"


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
