"""What is done of a file of many lines stands beside it until all are, so that none is lost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

from vqcodec.errors import VqcodecError


class Line(NamedTuple):
    """What was made of a source, by the model of this fingerprint."""

    model: str
    data: bytes


class Unfinished:
    """Lines that are done, in `units.txt.unfinished` beside `units.txt`.

    They depend on `options` besides their sources; with `force` they begin anew.

    Attributes:
        lines: by their sources; those of sources that have changed since are left out.

    Raises:
        VqcodecError: there is such a file already, which has other options or is none of ours.
    """

    def __init__(self, output: Path, options: dict[str, str | bool | None], *, force: bool) -> None:
        self.path = path_beside(output)
        self.lines: dict[str, Line] = {}
        self._options = options
        if force:
            self.remove()
        elif self.path.exists():
            self._read()

    def add(self, source: str, line: Line) -> None:
        """Keep a line, even if the process is killed in the next moment."""
        self.lines[source] = line
        text = line.data.decode(errors="surrogateescape")
        entries: list[object] = [] if self.path.exists() else [self._options]
        entries.append([source, _changed(source), line.model, text])
        with self.path.open("a", encoding="ascii") as file:
            file.write("".join(f"{json.dumps(entry)}\n" for entry in entries))

    def remove(self) -> None:
        """Forget the lines: the file is finished."""
        self.path.unlink(missing_ok=True)

    def _read(self) -> None:
        whole, _, torn = self.path.read_bytes().rpartition(b"\n")
        try:
            options, *entries = map(json.loads, whole.split(b"\n"))
            found = {
                source: (changed, Line(model, text.encode(errors="surrogateescape")))
                for source, changed, model, text in entries
            }
        except (AttributeError, TypeError, ValueError):
            raise VqcodecError(
                f"{self.path}: is no file that an earlier run left; remove it, or add --force"
            ) from None
        if options != self._options:
            raise VqcodecError(
                f"{self.path}: was begun with other options ({_described(options)}); give those, "
                "or begin anew with --force"
            )
        self.lines = {
            source: line for source, (changed, line) in found.items() if changed == _changed(source)
        }
        if torn:  # a line that a killed process has begun
            self.path.write_bytes(whole + b"\n")


def path_beside(output: Path) -> Path:
    """Where the lines that are done stand."""
    return output.with_name(f"{output.name}.unfinished")


def _changed(source: str) -> int | None:
    """When a file was changed last, in ns; None of a stream."""
    path = Path(source)
    return path.stat().st_mtime_ns if path.is_file() else None


def _described(options: object) -> str:
    if not isinstance(options, dict):
        return "none"
    return ", ".join(f"{name} {value}" for name, value in options.items())
