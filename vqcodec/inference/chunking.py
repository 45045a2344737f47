"""A stream cut into chunks with context, and threads that share them.

A matrix product split over several threads may add in another order; so threads share chunks,
not products.
"""

from __future__ import annotations

import itertools
import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor, wait
from functools import cache
from typing import NamedTuple, TypeVar

import numpy as np

Item = TypeVar("Item")
Result = TypeVar("Result")

LENGTH = 1000  # codes
LIVE_LENGTH = 25  # codes: 0.2 s of the default model
_starting = threading.Lock()
_own = threading.local()


class Chunk(NamedTuple):
    """`data` (..., n * step) is computed; of its n codes, `start` to `end` are kept."""

    data: np.ndarray
    start: int
    end: int


def chunks(
    blocks: Iterable[np.ndarray], *, length: int, context: tuple[int, int], step: int
) -> Iterator[Chunk]:
    """Cut a stream into chunks, each as soon as what it needs is there.

    Args:
        blocks: (..., T) of samples or codes, T free.
        length: codes that a chunk keeps.
        context: codes to the left and right that are computed and dropped, where there are any.
        step: of `data` per code: the hop length for samples, 1 for codes.

    Yields:
        Chunks; the last code of all is filled up with zeros.
    """
    stream = iter(blocks)
    held: list[np.ndarray] = []
    n_held, position = 0, 0  # length of `held`, and where it begins in the stream
    for start in itertools.count(0, length):
        first = max(start - context[0], 0)
        wanted = (start + length + context[1]) * step
        while position + n_held < wanted and (block := next(stream, None)) is not None:
            held.append(block)
            n_held += block.shape[-1]
        if position + n_held <= start * step:
            return
        joined = held[0] if len(held) == 1 else np.concatenate(held, axis=-1)
        joined = joined[..., first * step - position :]
        position, n_held, held = first * step, joined.shape[-1], [joined]
        n_codes = -(-(position + n_held) // step)
        last = min(start + length + context[1], n_codes)
        data = joined[..., : (last - first) * step]
        room = [(0, 0)] * (data.ndim - 1) + [(0, (last - first) * step - data.shape[-1])]
        yield Chunk(np.pad(data, room), start - first, min(start + length, n_codes) - first)


def map_in_order(
    function: Callable[[Item], Result], items: Iterable[Item], n_threads: int, *, live: bool = False
) -> Iterator[Result]:
    """`map`, over threads each of which computes alone; a single one is the caller's own.

    The function may not call `map_in_order`, whose threads it would wait for. `n_threads` are those
    of `Engine.n_threads`; live, each result is given before the next item is asked for.
    """
    if n_threads == 1:
        yield from map(function, items)
        return
    with _starting:
        # Threads that started before torch was there let it use them all.
        pool = _kept_threads(n_threads, "torch" in sys.modules)
    yield from map_ahead(pool, function, items, 0 if live else n_threads)


def map_ahead(
    pool: Executor, function: Callable[[Item], Result], items: Iterable[Item], n_ahead: int
) -> Iterator[Result]:
    """`map` in a pool, where at most so many results wait for the one that is given next."""
    pending: deque[Future[Result]] = deque()
    try:
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) > n_ahead:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        for future in pending:
            future.cancel()


def thread_count() -> int:
    """Over how many threads a caller on a CPU is to spread its chunks.

    One for a caller that computes alone: as many such callers use as many cores. Else as many as
    torch has been told to use, where it is loaded; else `OMP_NUM_THREADS`, or one for each core
    that this process may use.
    """
    if getattr(_own, "is_alone", False):
        return 1
    if torch := sys.modules.get("torch"):
        with _starting:
            n_threads: int = torch.get_num_threads()
        return n_threads
    told = os.environ.get("OMP_NUM_THREADS", "")
    return int(told) if told.isdecimal() and int(told) else available_cores()


def available_cores() -> int:
    """Cores that this process may use: it may be confined to some of them."""
    # Not every system can say to which.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def lone_threads(n_threads: int) -> ThreadPoolExecutor:
    """Threads each of which computes alone; elsewhere torch's thread count stays.

    All of them start before this returns: while they start, a thread that meets torch for the
    first time may take their count for its own.
    """
    torch = sys.modules.get("torch")
    before = torch.get_num_threads() if torch else 0
    pool = ThreadPoolExecutor(n_threads, initializer=compute_alone)
    all_started = threading.Barrier(n_threads)
    try:
        wait([pool.submit(all_started.wait) for _ in range(n_threads)])
    except BaseException:
        # Interrupted before all have started: those that have would wait for ever.
        all_started.abort()
        pool.shutdown()
        raise
    finally:
        if torch:
            torch.set_num_threads(before)
    return pool


@cache
def _kept_threads(n_threads: int, with_torch: bool) -> ThreadPoolExecutor:
    return lone_threads(n_threads)


os.register_at_fork(after_in_child=_kept_threads.cache_clear)  # threads do not survive it


def compute_alone() -> None:
    """Keep what this thread computes to the thread."""
    _own.is_alone = True
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)
        # A thread adopts the count that holds at its first look, and set_num_threads sets it for
        # all.
        torch.get_num_threads()
