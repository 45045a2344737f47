"""Data sets of codes and units, read part by part: on a disk, in a bucket, by many processes."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from vqcodec.errors import DataError
from vqcodec.extras import library
from vqcodec.format.codes import Codes
from vqcodec.scale.listing import Listing, list_source
from vqcodec.scale.part_reading import read_part
from vqcodec.scale.records import Record

if TYPE_CHECKING:
    from torch.utils.data import IterableDataset


@dataclass(frozen=True, eq=False)
class Example:
    """One recording of a data set.

    Attributes:
        name, speaker, text: of the recording; "" where that is not told.
        units: (N,) int64 in [0, codebook_size); of several codebooks (Q, N).
        durations: (N,) int64, codes that each unit lasts, of `vqcodec units --dedup`; else None.
        codes: what `Codec.decode` takes; None in a data set of units.
        extra: whatever else the source told.
    """

    name: str
    speaker: str
    text: str
    units: npt.NDArray[np.int64]
    durations: npt.NDArray[np.int64] | None
    codes: Codes | None
    extra: Mapping[str, Any]


def read(
    source: str | os.PathLike[str], *, seed: int | None = None, shard: int = 0, n_shards: int = 1
) -> Iterator[Example]:
    """Read what `vqcodec encode-dataset` and `vqcodec units --to` make.

    Args:
        source: path or URL of the data set, or of parts of it.
        seed: of the order of the parts; None for their own.
        shard: which share of the parts, in [0, n_shards).
        n_shards: into how many shares the parts are dealt.

    Raises:
        DataError: it is not complete, holds neither codes nor units, or has no such share.
        CodesError: codes are damaged.
    """
    if not 0 <= shard < n_shards:
        raise DataError(f"shard {shard} of {n_shards}: give one from 0 to {n_shards - 1}")
    return _read(_listed(source), seed, shard, n_shards)


def torch_dataset(
    source: str | os.PathLike[str], *, seed: int | None = None
) -> IterableDataset[dict[str, Any]]:
    """Read a data set by PyTorch's `DataLoader`.

    Its workers, and the processes of a distributed training, each read parts of their own.

    Args:
        source: as of `read`.
        seed: as of `read`.

    Returns:
        Dictionaries of name, speaker, text and `units`, a tensor (N,) or (Q, N) int64.

    Raises:
        DataError: as `read`.
        VqcodecError: torch is not installed.
    """
    torch = library("torch")
    listing = _listed(source)

    class Examples(torch.utils.data.IterableDataset):  # type: ignore[name-defined]
        def __iter__(self) -> Iterator[dict[str, Any]]:
            worker, rank, n_ranks = torch.utils.data.get_worker_info(), 0, 1
            if torch.distributed.is_available() and torch.distributed.is_initialized():
                rank, n_ranks = torch.distributed.get_rank(), torch.distributed.get_world_size()
            number, n_workers = (worker.id, worker.num_workers) if worker else (0, 1)
            shard, n_shards = rank * n_workers + number, n_ranks * n_workers
            for one in _read(listing, seed, shard, n_shards):
                named = {"name": one.name, "speaker": one.speaker, "text": one.text}
                yield {**named, "units": torch.from_numpy(one.units)}

    found: IterableDataset[dict[str, Any]] = Examples()
    return found


def _listed(source: str | os.PathLike[str]) -> Listing:
    listing = list_source(os.fspath(source))
    if listing.layout is None and listing.content != "units":
        raise DataError(
            f"{source}: holds neither codes nor units; vqcodec encode-dataset makes them"
        )
    return listing


def _read(listing: Listing, seed: int | None, shard: int, n_shards: int) -> Iterator[Example]:
    parts = np.arange(len(listing.parts))
    if seed is not None:
        parts = np.random.default_rng(seed).permutation(parts)
    for number in parts[shard::n_shards].tolist():
        for record in read_part(listing.parts[number]):
            yield _example(record)


def _example(record: Record) -> Example:
    codes = None if record.codes is None else record.codes()
    durations = None
    if codes is not None:
        units = codes.codes.astype(np.int64)
        units = units[0] if len(units) == 1 else units
    elif record.units is not None:
        units = record.units.astype(np.int64)
        if units.ndim == 2:
            units, durations = units
    else:
        raise DataError(f"{record.name}: has neither codes nor units; take it out of the data set")
    return Example(record.name, record.speaker, record.text, units, durations, codes, record.extra)
