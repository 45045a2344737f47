"""What numba compiles works where nothing can be kept."""

from __future__ import annotations

from typing import Any

from vqcodec.compilation import compiled


def test_a_function_that_cannot_be_kept_is_compiled_all_the_same() -> None:
    namespace: dict[str, Any] = {}
    exec("def double(x):\n    return 2 * x", namespace)  # has no file, nor has its cache a place
    assert compiled(namespace["double"])(21) == 42
