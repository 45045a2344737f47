"""What surrounds a training: its processes and folder, the memory it keeps, who tells it to end."""

from __future__ import annotations

import ctypes
import logging
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from vqcodec.files import claim
from vqcodec.training.distributed import Processes, processes
from vqcodec.training.recipe import RunConfig

logger = logging.getLogger(__name__)


@contextmanager
def open_session(recipe: RunConfig, device: str) -> Iterator[Processes]:
    """Join the processes of a training; the first has the output folder to itself meanwhile.

    Args:
        recipe: what is trained.
        device: `auto`, `cpu` or `cuda`.

    Raises:
        ConfigError: `cuda` where there is none.
        VqcodecError: another training writes to the folder.
        OSError: the folder cannot be written.
    """
    keep_freed_memory()
    with (
        processes(device) as place,
        claim(recipe.output, "training") if place.rank == 0 else nullcontext(),
    ):
        yield place


@contextmanager
def catch_signals() -> Iterator[Callable[[], bool]]:
    """Whether SIGINT or SIGTERM came; the second of either does what it did before."""
    told: list[int] = []

    def remember(number: int, frame: object) -> None:
        told.append(number)
        signal.signal(number, before[number])

    before: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():  # others may not change handlers
        before = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)}
        # What is ignored, as by nohup, stays so.
        before = {each: how for each, how in before.items() if how is not signal.SIG_IGN}
    try:
        for number in before:
            signal.signal(number, remember)
        yield lambda: bool(told)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def keep_freed_memory() -> None:
    """Tell glibc not to hand freed tensors back to the kernel.

    Their page faults would otherwise take most of the time of training on a CPU.
    """
    try:
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(-4, 0)  # M_MMAP_MAX
        libc.mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD
    except (OSError, AttributeError):
        logger.debug("no glibc: memory settings left alone")
