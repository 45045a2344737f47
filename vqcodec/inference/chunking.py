"""A stream cut into chunks with context, and threads that share them.

A matrix product split over several threads may add in another order; so threads share chunks,
not products.
"""

from __future__ import annotations

import itertools
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import cache
from typing import NamedTuple, TypeVar

import numpy as np
import torch

Item = TypeVar("Item")
Result = TypeVar("Result")

LENGTH = 500  # codes
LIVE_LENGTH = 25  # codes: 0.2 s of the default model
_starting = threading.Lock()


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
    function: Callable[[Item], Result],
    items: Iterable[Item],
    device: torch.device,
    *,
    live: bool = False,
) -> Iterator[Result]:
    """`map`, on a CPU over as many threads as torch has; each call computes on one thread.

    A caller for whom torch has but one thread computes in its own: as many such callers, each of
    `lone_threads`, use as many cores.

    Args:
        function: what to do; it may not call `map_in_order`, whose threads it would wait for.
        items: with what.
        device: a CPU or a GPU.
        live: give each result before asking for the next item.
    """
    if device.type != "cpu" or torch.get_num_threads() == 1:
        yield from map(function, items)
        return
    with _starting:
        n_threads = torch.get_num_threads()
        pool = _kept_threads(n_threads)
    pending: deque[Future[Result]] = deque()
    try:
        for item in items:
            pending.append(pool.submit(function, item))
            if live or len(pending) > n_threads:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        for future in pending:
            future.cancel()


def lone_threads(n_threads: int) -> ThreadPoolExecutor:
    """Threads on each of which torch computes alone; elsewhere its thread count stays.

    All of them start before this returns: while they start, a thread that meets torch for the
    first time may take their count for its own.
    """
    before = torch.get_num_threads()
    pool = ThreadPoolExecutor(n_threads, initializer=_compute_alone)
    all_started = threading.Barrier(n_threads)
    try:
        wait([pool.submit(all_started.wait) for _ in range(n_threads)])
    except BaseException:
        # Interrupted before all have started: those that have would wait for ever.
        all_started.abort()
        pool.shutdown()
        raise
    finally:
        torch.set_num_threads(before)
    return pool


_kept_threads = cache(lone_threads)
os.register_at_fork(after_in_child=_kept_threads.cache_clear)  # threads do not survive it


def _compute_alone() -> None:
    torch.set_num_threads(1)
    # A thread adopts the count that holds at its first look, and set_num_threads sets it for all.
    torch.get_num_threads()
