"""Writing files so that they are either whole or untouched."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary path beside `path`, renamed to it if the block succeeds, else deleted.

    The temporary keeps the suffix of `path`, and the finished file has the permissions of any new
    file (tempfile would make it readable by its owner alone).

    Raises:
        OSError: the folder or the file cannot be written.
    """
    path = Path(path)
    temporary = path.with_name(f".vqcodec-{uuid.uuid4().hex}{path.suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_atomically(path: str | os.PathLike[str], data: bytes) -> None:
    """Replace `path` by `data`, on the disk before it is renamed; folders are made as needed.

    Raises:
        OSError: the folder or the file cannot be written.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary, temporary.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
