"""Training from a source of any size: the recordings of some of its parts at a time.

Which parts is a function of seed and step, and what is drawn from them is, too: so a resumed or
distributed training follows the same path, and nothing of the source is kept on a disk.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Generic, NamedTuple, Protocol, TypeVar

import numpy as np

from vqcodec.data.clips import AudioClips, Clip
from vqcodec.data.corpora import SPLITS, hashed_split
from vqcodec.data.data_config import PoolConfig
from vqcodec.data.prepared import read_recording
from vqcodec.errors import CodesError, DataError, VqcodecError
from vqcodec.scale.listing import Part, list_source
from vqcodec.scale.part_reading import read_part
from vqcodec.scale.records import Record
from vqcodec.scale.utterances import named_split, told_split
from vqcodec.training.prior_data import CodedClip

BatchT = TypeVar("BatchT", covariant=True)

logger = logging.getLogger(__name__)


class Sampler(Protocol[BatchT]):
    """Makes the batch of any step."""

    def batch(self, step: int, rank: int = 0, world_size: int = 1) -> BatchT:
        """Rows of a process in the batch of `step`."""


class StreamedSampler(Generic[BatchT]):
    """Batches from pools of parts: `config.pool_steps` steps from each, then from the next.

    While one pool is drawn from, the next is read: `build` reads parts, by their numbers, and
    samples their recordings.
    """

    def __init__(
        self,
        n_parts: int,
        config: PoolConfig,
        seed: int,
        build: Callable[[Sequence[int]], Sampler[BatchT]],
    ) -> None:
        self.n_parts, self.config, self.seed, self.build = n_parts, config, seed, build
        self._reader = ThreadPoolExecutor(1)
        self._pools: dict[int, Future[Sampler[BatchT]]] = {}

    def batch(self, step: int, rank: int = 0, world_size: int = 1) -> BatchT:
        """Rows of this process in the batch of `step`."""
        pool = step // self.config.pool_steps
        kept = {number: self._pools.get(number) for number in (pool, pool + 1)}
        self._pools = {
            number: held or self._reader.submit(self._built, number)
            for number, held in kept.items()
        }
        return self._pools[pool].result().batch(step, rank, world_size)

    def batches(self, steps: range, rank: int = 0, world_size: int = 1) -> Iterator[BatchT]:
        """The batch of every one of `steps`."""
        return (self.batch(step, rank, world_size) for step in steps)

    def _built(self, pool: int) -> Sampler[BatchT]:
        return self.build(pool_parts(self.n_parts, self.config, self.seed, pool))


def pool_parts(n_parts: int, config: PoolConfig, seed: int, pool: int) -> list[int]:
    """Numbers of the parts of a pool, in an order that every pass over the source draws anew."""
    size = min(config.pool_parts, n_parts)
    epoch, place = divmod(pool, -(-n_parts // size))
    order = np.random.default_rng([seed, epoch]).permutation(n_parts)
    return order[place * size : (place + 1) * size].tolist()


class StreamedSource(NamedTuple):
    """The parts of a source.

    Attributes:
        parts: those that are drawn from, and then those whose files are named for validation.
        n_drawn: how many are drawn from.
    """

    parts: list[Part]
    n_drawn: int

    def first_parts(self, config: PoolConfig, seed: int) -> list[int]:
        """Numbers of those of the first steps, and of some of those that are for validation."""
        held = range(self.n_drawn, len(self.parts))
        return [*pool_parts(self.n_drawn, config, seed, 0), *held[: config.pool_parts]]


def streamed_source(root: str) -> StreamedSource | None:
    """The source that a recipe names, or None where that is, or is to be, a prepared folder.

    Parts whose files are named for tests are left out. Raises DataError if nothing is left.
    """
    folder = Path(root)
    holds_audio = (folder / "audio.i16").exists() or (folder / "dataset.json").exists()
    is_prepared = holds_audio or ("://" not in root and "*" not in root and not folder.exists())
    if is_prepared:
        return None
    parts = [(named_split(part) or "train", part) for part in list_source(root).parts]
    drawn, held = ([part for split, part in parts if split == own] for own in ("train", "valid"))
    if not drawn:
        raise DataError(f"{root}: no training clips; name a source that has some")
    return StreamedSource([*drawn, *held], len(drawn))


def audio_pool(
    source: StreamedSource, parts: Sequence[int], *, root: str, sample_rate: int, n_threads: int
) -> AudioClips:
    """The recordings of some parts, in memory; those that cannot be read are logged.

    `n_threads` read them side by side, and `root` is what the source is called.
    """

    def read(record: Record) -> tuple[np.ndarray, float] | VqcodecError:
        if record.sound is None:
            return DataError(f"{record.name}: has no sound")
        return read_recording(record.sound.source, sample_rate)

    clips, samples, faults, end = list[Clip](), [np.zeros(0, np.int16)], list[str](), 0
    with ThreadPoolExecutor(n_threads) as pool:
        for number in parts:
            records = _records(source, number, faults)
            for place, (record, found) in enumerate(
                zip(records, pool.map(read, records), strict=True)
            ):
                if isinstance(found, VqcodecError):
                    faults.append(str(found))
                    continue
                name = f"{number}-{place}/{record.name}"
                split = split_of(source.parts[number], record)
                own, gain = found
                speaker = record.speaker or name  # who is not named is like nobody else
                clips.append(Clip(name, speaker, split, end, len(own), gain, record.text))
                samples.append(own)
                end += len(own)
    _log(faults, len(clips))
    return AudioClips(Path(root), sample_rate, root, clips, np.concatenate(samples))


def coded_pool(
    source: StreamedSource, parts: Sequence[int], fingerprint: bytes
) -> dict[str, list[CodedClip]]:
    """The codes of some parts of a data set, by splits; those that cannot be read are logged.

    Raises CodesError if codes are not of the model of the fingerprint, or do not tell their voice.
    """
    found: dict[str, list[CodedClip]] = {name: [] for name in SPLITS}
    faults: list[str] = []
    for number in parts:
        for record in _records(source, number, faults):
            if record.codes is None:
                faults.append(f"{record.name}: has no codes")
                continue
            codes = record.codes()
            if codes.fingerprint != fingerprint or isinstance(codes.speaker, str):
                raise CodesError(
                    f"{record.name}: its codes are of model {codes.fingerprint.hex()}, and the "
                    f"codec is {fingerprint.hex()}, which has to tell voices by vectors: make "
                    "others with vqcodec encode-dataset --model"
                )
            clip = CodedClip(record.speaker, codes.codes[0].astype(np.int64), codes.speaker)
            found[split_of(source.parts[number], record)].append(clip)
    _log(faults, sum(map(len, found.values())))
    return found


def split_of(part: Part, record: Record) -> str:
    """What a recording is for: as its source says, else by a hash of its name."""
    return told_split(part, record) or hashed_split(record.name, _MANY)


_MANY = 1 << 30  # recordings


def _records(source: StreamedSource, number: int, faults: list[str]) -> list[Record]:
    records: list[Record] = []
    try:
        for record in read_part(source.parts[number]):
            records.append(record)
    except DataError as error:
        faults.append(str(error))
    return records


def _log(faults: list[str], n_read: int) -> None:
    if faults:
        logger.warning("left out %d of %d: %s", len(faults), n_read + len(faults), faults[0])
