"""Windows, and the threads that compute them."""

from __future__ import annotations

import itertools
import multiprocessing
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

from vqcodec.inference import chunking


@pytest.fixture(autouse=True)
def _threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """None have been started yet, and torch has as many afterwards as before."""
    monkeypatch.setattr(
        chunking, "_kept_threads", cache(lambda n_threads, _: chunking.lone_threads(n_threads))
    )
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("block_length", [1, 7, 100])
def test_chunks_are_the_same_however_the_stream_is_cut(block_length: int) -> None:
    samples = np.arange(1000)[None]
    blocks = (samples[:, i : i + block_length] for i in range(0, 1000, block_length))
    found = list(chunking.chunks(blocks, length=30, context=(4, 2), step=8))
    expected = list(chunking.chunks([samples], length=30, context=(4, 2), step=8))
    assert len(found) == len(expected) == 5
    for one, other in zip(found, expected, strict=True):
        assert np.array_equal(one.data, other.data)
        assert one[1:] == other[1:]


def test_work_is_shared_in_order_by_threads_that_compute_alone() -> None:
    # The first two wait for each other, and the first comes back last.
    both_begun, second_done = threading.Barrier(2), threading.Event()

    def work(number: int) -> tuple[int, int, int]:
        if number < 2:
            both_begun.wait(600)
        if number == 0:
            second_done.wait()
        elif number == 1:
            second_done.set()
        return number, torch.get_num_threads(), threading.get_ident()

    torch.set_num_threads(3)
    numbers, counts, threads = zip(
        *chunking.map_in_order(work, range(30), chunking.thread_count()), strict=True
    )
    assert numbers == tuple(range(30))
    assert set(counts) == {1}
    assert 1 < len(set(threads)) <= 3


def test_the_thread_count_of_the_caller_stays() -> None:
    """In this thread and, which torch counts apart, in those that start later."""
    torch.set_num_threads(3)
    results = chunking.map_in_order(abs, range(9), chunking.thread_count())
    assert next(results) == 0
    counts: list[int] = []
    observer = threading.Thread(target=lambda: counts.append(torch.get_num_threads()))
    observer.start()
    observer.join()
    assert counts == [3]
    assert torch.get_num_threads() == 3


def test_calls_from_many_threads_leave_each_its_count() -> None:
    counts: list[int] = []

    def caller() -> None:
        for _ in range(20):
            list(chunking.map_in_order(abs, range(3), chunking.thread_count()))
        counts.append(torch.get_num_threads())

    torch.set_num_threads(2)
    list(chunking.map_in_order(abs, range(3), chunking.thread_count()))
    callers = [threading.Thread(target=caller) for _ in range(8)]
    for each in callers:
        each.start()
    for each in callers:
        each.join()
    assert counts == [2] * 8
    assert torch.get_num_threads() == 2


def test_a_fault_is_raised_and_ends_the_work() -> None:
    begun = []

    def work(number: int) -> int:
        begun.append(number)
        if number == 3:
            raise ValueError("three")
        return number

    torch.set_num_threads(2)
    with pytest.raises(ValueError, match="three"):
        list(chunking.map_in_order(work, itertools.count(), chunking.thread_count()))
    # By the same threads, after whatever they were still at.
    list(chunking.map_in_order(abs, range(4), chunking.thread_count()))
    assert len(begun) <= 3 + 2 * 2


def test_an_interrupt_while_threads_start_leaves_none_waiting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Interrupted(ThreadPoolExecutor):
        def submit(self, *call: Any, **options: Any) -> Any:
            if self._threads:
                raise KeyboardInterrupt
            return super().submit(*call, **options)

    monkeypatch.setattr(chunking, "ThreadPoolExecutor", Interrupted)
    torch.set_num_threads(2)
    before = set(threading.enumerate())
    with pytest.raises(KeyboardInterrupt):
        next(chunking.map_in_order(abs, range(2), chunking.thread_count()))
    assert set(threading.enumerate()) <= before
    assert torch.get_num_threads() == 2


def _in_a_child(results: multiprocessing.Queue[list[int]]) -> None:
    results.put(list(chunking.map_in_order(abs, [-1, -2], chunking.thread_count())))


def test_a_forked_process_has_threads_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()  # it is the module's own that are left behind
    list(chunking.map_in_order(abs, [1], chunking.thread_count()))
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    child = context.Process(target=_in_a_child, args=(results,))
    child.start()
    assert results.get() == [1, 2]
    child.join()
