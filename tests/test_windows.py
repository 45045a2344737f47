"""Windows, and the threads that compute them."""

from __future__ import annotations

import itertools
import multiprocessing
import threading
import time

import numpy as np
import pytest
import torch

from vqcodec import windows

CPU = torch.device("cpu")


@pytest.mark.parametrize("block_length", [1, 7, 100, 1000])
def test_windows_are_the_same_however_the_stream_is_cut(block_length: int) -> None:
    samples = np.arange(1000)[None]
    blocks = (samples[:, i : i + block_length] for i in range(0, 1000, block_length))
    found = list(windows.windows(blocks, length=30, context=(4, 2), step=8))
    expected = list(windows.windows([samples], length=30, context=(4, 2), step=8))
    assert len(found) == len(expected) == 5
    for one, other in zip(found, expected, strict=True):
        assert np.array_equal(one.data, other.data)
        assert one[1:] == other[1:]


def test_work_is_shared_in_order_by_threads_that_compute_alone() -> None:
    def work(number: int) -> tuple[int, int, int]:
        time.sleep(0.001 * (number % 3))
        return number, torch.get_num_threads(), threading.get_ident()

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        numbers, counts, threads = zip(*windows.map_in_order(work, range(30), CPU), strict=True)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
    assert numbers == tuple(range(30))
    assert set(counts) == {1}
    assert 1 < len(set(threads)) <= 3


def test_calls_from_many_threads_leave_torch_its_threads() -> None:
    before = torch.get_num_threads()
    seen: list[int] = []

    def caller() -> None:
        for _ in range(20):
            list(windows.map_in_order(abs, range(3), CPU))
        seen.append(torch.get_num_threads())

    try:
        torch.set_num_threads(2)
        list(windows.map_in_order(abs, range(3), CPU))
        callers = [threading.Thread(target=caller) for _ in range(8)]
        for each in callers:
            each.start()
        for each in callers:
            each.join()
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert seen == [2] * 8


def test_an_error_ends_the_work() -> None:
    begun = []

    def work(number: int) -> int:
        begun.append(number)
        if number == 2:
            raise ValueError("two")
        return number

    results = windows.map_in_order(work, itertools.count(), CPU)
    with pytest.raises(ValueError, match="two"):
        list(results)
    time.sleep(0.05)
    assert len(begun) <= 3 + 2 * torch.get_num_threads()


def _in_a_child(results: multiprocessing.Queue[list[int]]) -> None:
    results.put(list(windows.map_in_order(abs, [-1, -2], CPU)))


def test_a_forked_process_has_threads_of_its_own() -> None:
    list(windows.map_in_order(abs, [1], CPU))
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    child = context.Process(target=_in_a_child, args=(results,))
    child.start()
    assert results.get(timeout=60) == [1, 2]
    child.join()
