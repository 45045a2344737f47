"""Finding files, and writing them so that they are either whole or untouched."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path


def files_below(folder: str | os.PathLike[str], suffixes: Collection[str]) -> list[Path]:
    """The files of a folder that end so, at any depth.

    Links are followed; a folder that several ways lead to is entered once. What is hidden, as file
    systems and archives leave it beside recordings, is left out.

    Args:
        folder: where to look.
        suffixes: in lower case, each with its dot; those of files may be in upper case.

    Returns:
        Their paths, sorted.
    """
    found, entered = [], set()
    for parent, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(parent)
        if real in entered:
            folders.clear()
            continue
        entered.add(real)
        # In the order of their names, so that which way is taken does not depend on the disk.
        folders[:] = sorted(name for name in folders if name[0] != ".")
        paths = (Path(parent, name) for name in files if name[0] != ".")
        found += [path for path in paths if path.suffix.lower() in suffixes and path.is_file()]
    return sorted(found)


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
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())  # on the disk before the name says so
        if target.exists():
            shutil.copymode(target, temporary)
        os.replace(temporary, target)
    except OSError as error:
        if error.strerror and error.filename in (None, str(temporary)):  # None of a full disk
            error.filename = str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)


def write_atomically(path: str | os.PathLike[str], data: bytes) -> None:
    """Replace `path` by `data`; folders are made as needed.

    Raises:
        OSError: the folder or the file cannot be written.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        temporary.write_bytes(data)
