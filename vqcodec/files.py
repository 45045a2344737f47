"""Finding files, and writing them so that they are either whole or untouched."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
import uuid
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

from vqcodec.errors import VqcodecError

try:
    import fcntl
except ImportError:  # not on Windows, where what a killed process leaves stays
    fcntl = None  # type: ignore[assignment]

AUDIO_SUFFIXES = (
    *(".wav", ".flac", ".ogg", ".opus", ".mp3", ".aiff", ".aif"),
    *(".m4a", ".aac", ".amr", ".3gp", ".webm", ".mp4", ".mov", ".mkv"),
)
"""Of the recordings in a folder; what a file is read as is told by its content."""

_TEMPORARY = re.compile(r"\.vqcodec-[0-9a-f]{32}(\..*)?")
_LOCK, _OWNER = ".vqcodec.lock", ".vqcodec.owner"


def files_below(folder: str | os.PathLike[str], suffixes: Collection[str]) -> list[Path]:
    """The files of a folder that end so, in upper or lower case, at any depth: their paths, sorted.

    Links are followed; a folder that several ways lead to is entered once. What is hidden, as file
    systems and archives leave it beside recordings, is left out.
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
    """A temporary file beside `path`, renamed to it if the block succeeds, else deleted.

    The temporary is empty, and keeps the suffix of `path`; the finished file has the permissions of
    the one it replaces, or of any new file (tempfile would make it readable by its owner alone). Of
    a symbolic link, what it points to is replaced. What killed processes have left in the folder is
    removed. Raises OSError if the folder or the file cannot be written.
    """
    target = Path(os.path.realpath(path))
    descriptor, temporary = None, None
    try:
        _remove_abandoned(target.parent)
        descriptor, temporary = _claimed(target)
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())  # on the disk before the name says so
        if target.exists():
            shutil.copymode(target, temporary)
        os.replace(temporary, target)
    except OSError as error:
        # There is no name of a full disk.
        name = Path(str(error.filename)).name
        if error.strerror and (error.filename is None or _TEMPORARY.fullmatch(name)):
            error.filename = str(path)
        raise
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        if descriptor is not None:
            os.close(descriptor)


def _claimed(target: Path) -> tuple[int, Path]:
    """A new temporary file beside `target`, and a descriptor by which it is locked."""
    while True:
        temporary = target.with_name(f".vqcodec-{uuid.uuid4().hex}{target.suffix}")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        _is_locked(descriptor, wait=True)
        # Before it was locked, another process may have taken it for abandoned.
        if temporary.exists():
            return descriptor, temporary
        os.close(descriptor)


def _is_locked(descriptor: int, *, wait: bool) -> bool:
    """Lock a file until it is closed or its process ends; False if another one has, or none can."""
    if fcntl is None:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:
        return False
    return True


@cache
def _remove_abandoned(folder: Path) -> None:
    """Remove the temporary files of processes that were killed; once in a folder, for speed."""
    with suppress(OSError):  # gone, or another user's
        for path in filter(lambda path: _TEMPORARY.fullmatch(path.name), folder.iterdir()):
            with path.open("rb+") as file:
                if _is_locked(file.fileno(), wait=False):
                    path.unlink()


def file_digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_atomically(path: str | os.PathLike[str], data: bytes) -> None:
    """Replace `path` by `data`, or raise OSError; folders are made as needed."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        temporary.write_bytes(data)


@contextmanager
def claim(folder: str | os.PathLike[str], doing: str) -> Iterator[None]:
    """Have a folder to oneself while the block runs; it is made if need be.

    The lock is the system's and ends with the process that has it, whatever ends that. Raises
    VqcodecError if another has it, which says what it is `doing`, and OSError if it cannot be
    written.
    """
    from filelock import FileLock, Timeout  # the command line's help does without

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
        # Beside the lock, whose file is the locking library's where a file system has no locks.
        write_atomically(
            owner, f"process {os.getpid()} on host {platform.node()} is {doing}".encode()
        )
        yield
    finally:
        owner.unlink(missing_ok=True)
        lock.release()
