"""Functions that numba compiles, once for a machine where it can keep them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import njit


def compiled(function: Callable[..., Any], **options: Any) -> Any:
    """`numba.njit` that frees the interpreter's lock and keeps what it compiles.

    It is kept beside the source or in the user's cache folder (`NUMBA_CACHE_DIR` names another);
    where none can be written, every process compiles anew.
    """
    options["nogil"] = True
    try:
        return njit(function, cache=True, **options)
    except RuntimeError:
        return njit(function, **options)
