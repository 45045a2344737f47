"""Writing files so that they are either whole or untouched."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary path beside `path`, renamed to it if the block succeeds, else deleted.

    The temporary keeps the suffix of `path`, and the finished file has the permissions of the one
    it replaces, or of any new file (tempfile would make it readable by its owner alone). Of a
    symbolic link, what it points to is replaced.

    Raises:
        OSError: the folder or the file cannot be written.
    """
    target = Path(os.path.realpath(path))
    temporary = target.with_name(f".vqcodec-{uuid.uuid4().hex}{target.suffix}")
    try:
        yield temporary
        if target.exists():
            shutil.copymode(target, temporary)
        os.replace(temporary, target)
    except OSError as error:
        if error.filename == str(temporary):
            error.filename = str(path)
        raise
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
