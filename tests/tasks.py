"""Work for processes, which import what is in the module of their work, and here that is little."""

from __future__ import annotations

import os
import time

from vqcodec.errors import DataError


def late(task: tuple[int, float]) -> int:
    """A number after some seconds; 13 is an error, and of 14 the process dies."""
    number, seconds = task
    time.sleep(seconds)
    if number == 13:
        raise DataError("thirteen: unlucky; take another")
    if number == 14:
        os._exit(1)
    return number
