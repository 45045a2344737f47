"""Models of the Hugging Face Hub: `hf://owner/name` or `hf://owner/name@revision`.

A repository `owner/name` holds the model as `name.safetensors`. What is fetched lies in the cache
of huggingface_hub, in a folder that is named for its commit: so a file there tells its revision.
"""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import NamedTuple

from vqcodec.errors import CheckpointError
from vqcodec.extras import library
from vqcodec.files import file_digest

SCHEME = "hf://"
_PART = r"[A-Za-z0-9_](?:[\w.-]{0,94}\w)?"
_NAME = re.compile(rf"{SCHEME}({_PART})/({_PART})(?:@([\w/-]+(?:\.[\w/-]+)*))?", re.ASCII)
_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


class Place(NamedTuple):
    """Where a model is on the hub, by default on the main branch."""

    repository: str
    file: str
    revision: str | None


def is_hub_name(name: str) -> bool:
    """Whether that names a model of the hub, and not a file or a packaged model."""
    return name.startswith(SCHEME)


def place(name: str) -> Place:
    """Where `hf://owner/name@revision` is; raises CheckpointError if that is not its form."""
    match = _NAME.fullmatch(name)
    if match is None or re.search(r"--|\.\.|\.git(@|$)", name.partition("@")[0]):
        raise CheckpointError(f"{name}: no name of the hub; write {SCHEME}owner/name[@revision]")
    owner, model, revision = match.groups()
    return Place(f"{owner}/{model}", f"{model}.safetensors", revision)


def fetch(name: str) -> Path:
    """Path of a model of the hub, downloaded unless the cache has it; offline, of the cached one.

    Raises:
        CheckpointError: there is no such model, the hub cannot be reached, or what came is damaged
            by the hub's SHA-256.
        VqcodecError: the extra `hub` is not installed.
    """
    repository, file, revision = place(name)
    hub = library("huggingface_hub")
    try:
        with _told(name):
            # One request without retries, which tell of themselves line by line.
            known = hub.get_hf_file_metadata(hub.hf_hub_url(repository, file, revision=revision))
            path = Path(hub.hf_hub_download(repository, file, revision=revision))
    except _UnreachableError:
        cached = hub.try_to_load_from_cache(repository, file, revision=revision)
        if not isinstance(cached, str):
            raise
        return Path(cached)
    if path.parent.name == known.commit_hash:
        _check(name, path, known.etag)
    return path


class _UnreachableError(CheckpointError):
    """The hub cannot be asked."""


@contextmanager
def _told(name: str) -> Iterator[None]:
    """Errors of the hub in the block as ours."""
    errors = library("huggingface_hub.errors")
    try:
        yield
    except errors.RevisionNotFoundError:
        raise CheckpointError(f"{name}: the hub has no such revision; leave @ out") from None
    except errors.RemoteEntryNotFoundError:
        file = place(name).file
        raise CheckpointError(f"{name}: holds no {file}; vqcodec model push makes one") from None
    except errors.HfHubHTTPError as error:
        status = error.response.status_code
        if status in (401, 403, 404):
            raise CheckpointError(
                f"{name}: the hub does not know it, or not you; check the name, or log in by "
                "hf auth login"
            ) from None
        raise _UnreachableError(f"{name}: the hub answers {status}; try again later") from None
    except (errors.HTTPError, errors.LocalEntryNotFoundError, ConnectionError):
        raise _UnreachableError(
            f"{name}: the hub cannot be reached; connect and try again"
        ) from None


def _check(name: str, path: Path, etag: str | None) -> None:
    """Refuse, and remove, a large download whose SHA-256 is not the hub's etag."""
    if etag is None or not _SHA256.fullmatch(etag) or file_digest(path) == etag:
        return
    path.resolve().unlink()
    path.unlink(missing_ok=True)
    raise CheckpointError(f"{name}: came damaged (its SHA-256 is another); fetch it again")


def push(path: Path, name: str, card: str) -> str:
    """Put a model and its card on the hub, in one commit; returns its name, pinned to that.

    The repository is made if need be.

    Raises:
        CheckpointError: the name is none or has a revision, the hub cannot be reached or refuses.
        VqcodecError: the extra `hub` is not installed.
    """
    where = place(name)
    if where.revision is not None:
        raise CheckpointError(f"{name}: is a revision, which the hub makes; leave @ out")
    hub, utils = library("huggingface_hub"), library("huggingface_hub.utils")
    # Its bars of downloads look at where they go, those of uploads do not.
    quiet = nullcontext() if sys.stderr.isatty() else utils.disable_progress_bars()
    with _told(name), quiet:
        api = hub.HfApi()
        api.create_repo(where.repository, exist_ok=True)
        commit = api.create_commit(
            where.repository,
            [
                hub.CommitOperationAdd(where.file, path),
                hub.CommitOperationAdd("README.md", card.encode()),
            ],
            commit_message=f"{path.stem} by vqcodec",
        )
    return f"{name}@{commit.oid}"


def pinned(path: Path) -> str | None:
    """`hf://owner/name@commit` of a file that lies in the cache; of other files None."""
    commit, repository = path.parent.name, path.parent.parent.parent.name.split("--")
    if path.parent.parent.name != "snapshots" or not _COMMIT.fullmatch(commit):
        return None
    if len(repository) != 3 or repository[0] != "models" or path.stem != repository[2]:
        return None
    return f"{SCHEME}{repository[1]}/{repository[2]}@{commit}"


def cached() -> list[Path]:
    """The models in the cache, the latest that was fetched first."""
    if importlib.util.find_spec("huggingface_hub") is None:
        return []
    folder = Path(library("huggingface_hub.constants").HF_HUB_CACHE)
    found = folder.glob("models--*/snapshots/*/*.safetensors")
    ours = [path for path in found if pinned(path) and path.exists()]
    return sorted(ours, key=lambda path: path.stat().st_mtime, reverse=True)
