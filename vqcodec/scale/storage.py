"""Files wherever fsspec finds them: on a disk, in a bucket, in memory."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vqcodec.errors import DataError, VqcodecError
from vqcodec.extras import library
from vqcodec.files import replacing

READERS_AT_A_TIME = 16


def opened(url: str) -> tuple[Any, str]:
    """A file system, and the path of a URL in it.

    Raises DataError if none is known, or installed, for such a URL, and VqcodecError without the
    extra.
    """
    fsspec = library("fsspec")
    if is_local(url):  # whose names may have ::, of which fsspec would make a chain
        system = fsspec.filesystem("file")
        return system, system._strip_protocol(url)
    try:
        found: tuple[Any, str] = fsspec.core.url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise DataError(f"{url}: cannot be reached ({error}); install what that names") from None
    return found


@contextmanager
def reaching(url: str) -> Iterator[None]:
    """Tell what ails a storage, whose library may raise anything, by one line of a DataError."""
    try:
        yield
    except VqcodecError:
        raise
    except Exception as error:
        if is_local(url):
            raise
        raise DataError(
            f"{url}: cannot be reached ({type(error).__name__}: {error}); check the address and "
            "what it asks for"
        ) from error


def is_local(url: str) -> bool:
    """Whether a path or URL is of this machine's disk."""
    return "://" not in url or url.startswith("file://")


def absolute(url: str) -> str:
    """A path or URL that means the same in whatever folder a process runs."""
    return str(Path(opened(url)[1])) if is_local(url) else url.rstrip("/")


def join(url: str, *parts: str) -> str:
    """What lies below a path or URL."""
    return "/".join([url.rstrip("/"), *parts])


def files_at(url: str) -> dict[str, str]:
    """Path below a folder -> path or URL of what lies there, sorted; of no folder, nothing.

    Hidden files, as file systems and archives leave them, are left out, and so is what an earlier
    `replacing` has not finished.
    """
    system, root = opened(url)
    root = root.rstrip("/")
    system.invalidate_cache()  # others write there, too
    below = {path[len(root) + 1 :]: path for path in system.find(root) if path != root}
    return {
        name: path if is_local(url) else system.unstrip_protocol(path)
        for name, path in sorted(below.items())
        if not any(part.startswith(".") for part in name.split("/"))
    }


def is_pattern(url: str) -> bool:
    """Whether a * stands for what is there, and is not a letter of a name that is there."""
    if "*" not in url:
        return False
    system, path = opened(url)
    return not system.exists(path)


def is_file(url: str) -> bool:
    """Whether there is a file."""
    system, path = opened(url)
    return bool(system.isfile(path))


def read(url: str) -> bytes:
    """The bytes of a file; raises OSError if it cannot be read."""
    system, path = opened(url)
    data: bytes = system.cat_file(path)
    return data


def read_all(urls: Iterable[str]) -> list[bytes]:
    """The bytes of files, several of which are read at a time."""
    with ThreadPoolExecutor(READERS_AT_A_TIME) as pool:
        return list(pool.map(read, urls))


def reading(url: str) -> Any:
    """A binary file object, to be closed, that can seek; raises OSError if it cannot be read."""
    system, path = opened(url)
    return system.open(path, "rb")


@contextmanager
def writing(url: str) -> Iterator[Path]:
    """A file on this machine's disk, which is what the URL names once the block has succeeded.

    Whoever reads the URL meantime, or after the block has failed, finds what was there before.
    Raises OSError if it cannot be written.
    """
    system, path = opened(url)
    if is_local(url):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            yield temporary
        return
    descriptor, copy = tempfile.mkstemp(prefix="vqcodec-", suffix=Path(path).suffix)
    os.close(descriptor)
    try:
        yield Path(copy)
        system.put_file(copy, path)  # an object is there when all of it is
    finally:
        os.unlink(copy)


def write(url: str, data: bytes) -> None:
    """Write a file, which others see whole or not at all."""
    with writing(url) as path:
        path.write_bytes(data)


def write_json(url: str, value: Any) -> None:
    """Write a value as JSON, keys in their order."""
    write(url, (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode())
