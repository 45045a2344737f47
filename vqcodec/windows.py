"""Windows on a fixed grid of codes, and threads that share them.

A matrix product split over several threads may add in another order, and a code may then fall on
the other side; so threads share windows, not products, and the grid never moves.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import NamedTuple, TypeVar

import numpy as np
import torch

Item = TypeVar("Item")
Result = TypeVar("Result")

LENGTH = 500  # codes
_starting = threading.Lock()


class Window(NamedTuple):
    """Codes `first` to `last` are computed; of these, `start` to `end` (from `first`) are kept."""

    first: int
    last: int
    start: int
    end: int


def windows(n_codes: int, context: int) -> Iterator[Window]:
    """The grid.

    Args:
        n_codes: of the recording.
        context: codes that are computed and dropped on each side, where the recording has them.
    """
    for start in range(0, n_codes, LENGTH):
        end = min(start + LENGTH, n_codes)
        first = max(start - context, 0)
        yield Window(first, min(end + context, n_codes), start - first, end - first)


def cut(
    blocks: Iterable[np.ndarray], grid: Iterable[Window], hop_length: int
) -> Iterator[tuple[np.ndarray, Window]]:
    """Cut a stream of samples into windows, holding little more than one of them.

    Args:
        blocks: (T,) float32 samples, T free.
        grid: of `windows`.
        hop_length: samples per code.

    Yields:
        ((last - first) * hop_length,) samples, zeros where the stream has ended; the window.
    """
    stream = iter(blocks)
    held = np.zeros(0, np.float32)
    position = 0  # of held[0], in codes
    for window in grid:
        held = held[(window.first - position) * hop_length :]
        position = window.first
        length = (window.last - window.first) * hop_length
        while len(held) < length and (block := next(stream, None)) is not None:
            held = np.concatenate([held, block])
        samples = held[:length]
        yield np.pad(samples, (0, length - len(samples))), window


def map_in_order(
    function: Callable[[Item], Result], items: Iterable[Item], device: torch.device
) -> Iterator[Result]:
    """`map`, on a CPU over as many threads as torch has; each call computes on one thread."""
    if device.type != "cpu":
        yield from map(function, items)
        return
    with _lone_threads() as (pool, n_threads):
        pending: deque[Future[Result]] = deque()
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) > n_threads:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


@contextmanager
def _lone_threads() -> Iterator[tuple[ThreadPoolExecutor, int]]:
    """Threads on each of which torch computes alone; elsewhere its thread count stays."""
    with _starting:
        n_threads = torch.get_num_threads()
        pool = ThreadPoolExecutor(n_threads, initializer=_compute_alone)
        all_started = threading.Barrier(n_threads)
        wait([pool.submit(all_started.wait) for _ in range(n_threads)])
        torch.set_num_threads(n_threads)
    with pool:
        yield pool, n_threads


def _compute_alone() -> None:
    torch.set_num_threads(1)
    # A thread adopts the count that holds at its first look, and set_num_threads sets it for all.
    torch.get_num_threads()
