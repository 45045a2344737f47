"""Several processes: started by torchrun, absent otherwise."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import NamedTuple

import torch
import torch.distributed as dist

from vqcodec.errors import ConfigError


class Processes(NamedTuple):
    """This process's place among all, and its device."""

    rank: int
    world_size: int
    device: torch.device


@contextmanager
def processes(device: str) -> Iterator[Processes]:
    """Join the group that torchrun announces (NCCL on GPUs, gloo on CPUs), and leave it after.

    Args:
        device: `auto`, `cpu` or `cuda`.

    Raises:
        ConfigError: `cuda` where there is none.
    """
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
