"""What surrounds a training: its processes and folder, the memory it keeps, who tells it to end.

Several processes are started by torchrun; without it there is one.
"""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from datetime import timedelta
from typing import Any, NamedTuple

import torch
import torch.distributed as dist

from vqcodec.errors import ConfigError
from vqcodec.files import claim
from vqcodec.training.recipe import RunConfig

logger = logging.getLogger(__name__)


class Processes(NamedTuple):
    """This process's place among all, and its device."""

    rank: int
    world_size: int
    device: torch.device


@contextmanager
def claim_output(recipe: RunConfig, place: Processes) -> Iterator[None]:
    """Give the first process the output folder to itself; at the end, all wait for it.

    Raises:
        VqcodecError: Another training writes to the folder.
        OSError: The folder cannot be written.
    """
    with claim(recipe.output, "training") if place.rank == 0 else nullcontext():
        yield
    if place.world_size > 1:
        dist.barrier()


@contextmanager
def join_processes(device: str) -> Iterator[Processes]:
    """Join the group that torchrun announces (NCCL on GPUs, gloo on CPUs), and leave it after.

    It can be joined once. The device is `auto`, `cpu` or `cuda`. Raises ConfigError for `cuda`
    where there is none.
    """
    keep_freed_memory()
    if device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("--device cuda: torch sees no GPU; use --device cpu")
    on_gpu = device != "cpu" and torch.cuda.is_available()
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    target = torch.device("cuda", local_rank) if on_gpu else torch.device("cpu")
    if on_gpu:
        torch.cuda.set_device(target)
    if world_size == 1:
        yield Processes(0, 1, target)
        return
    # One process encodes a whole corpus for the prior of all.
    patience = timedelta(hours=12)
    dist.init_process_group("nccl" if on_gpu else "gloo", timeout=patience)
    try:
        yield Processes(dist.get_rank(), world_size, target)
    finally:
        dist.destroy_process_group()


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
