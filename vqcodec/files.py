"""Finding files, and writing them so that they are either whole or untouched."""

from __future__ import annotations

import os
import platform
import shutil
import uuid
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from vqcodec.errors import VqcodecError

_TEMPORARY = ".vqcodec-"
_LOCK, _OWNER = ".vqcodec.lock", ".vqcodec.owner"


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
    temporary = target.with_name(f"{_TEMPORARY}{uuid.uuid4().hex}{target.suffix}")
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


@contextmanager
def claim(folder: str | os.PathLike[str], doing: str) -> Iterator[None]:
    """Have a folder to oneself while the block runs; it is made if need be.

    The lock is the system's and ends with the process that has it, whatever ends that. Temporary
    files that an interrupted owner of before left are deleted.

    Args:
        folder: what others who claim it are kept out of.
        doing: what another is told: "training".

    Raises:
        VqcodecError: another has it; the message says which process.
        OSError: the folder cannot be written.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    lock, owner = FileLock(folder / _LOCK), folder / _OWNER
    try:
        lock.acquire(timeout=0)
    except Timeout:
        who = owner.read_text(encoding="utf-8") if owner.is_file() else "another process is at work"
        raise VqcodecError(
            f"{folder}: {who} there; wait for it, or choose another output"
        ) from None
    try:
        for left in folder.glob(f"{_TEMPORARY}*"):
            left.unlink(missing_ok=True)
        # Beside the lock, whose file is the locking library's where a file system has no locks.
        write_atomically(
            owner, f"process {os.getpid()} on host {platform.node()} is {doing}".encode()
        )
        yield
    finally:
        owner.unlink(missing_ok=True)
        lock.release()
