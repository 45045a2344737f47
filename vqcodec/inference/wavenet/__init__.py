"""Sampling from the autoregressive decoder."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np

from vqcodec.extras import library
from vqcodec.models import AUTOREGRESSIVE, DecoderName

if TYPE_CHECKING:
    from vqcodec.inference.engines import Engine

LANES_PER_THREAD = 16  # segments that are sampled side by side


def announced(
    decoder: DecoderName, device: str, tell: Callable[[], object]
) -> AbstractContextManager[None]:
    """Within this context, have it told once when the sampler is being compiled, if it is.

    `tell` is called as the compiler starts, which takes seconds and cannot be stopped. Raises
    VqcodecError if numba is needed, and not installed.
    """
    if decoder not in AUTOREGRESSIVE or device != "cpu":
        return nullcontext()
    library("numba")  # says which extra has it
    from numba.core import event

    class Notice(event.Listener):
        is_told = False

        def on_start(self, event: Any) -> None:
            if not self.is_told:
                tell()
            self.is_told = True

        def on_end(self, event: Any) -> None:
            pass

    listening: AbstractContextManager[None] = event.install_listener("numba:compile", Notice())
    return listening


def compile_sampler(engine: Engine) -> None:
    """Have the sampler of a CPU compiled, or read from its cache, for processes forked later.

    The engine is of a model with a WaveNet. Raises VqcodecError if numba is not installed.
    """
    codes = np.zeros((engine.config.quantizer.n_codebooks, 1), np.uint16)
    condition = engine.wavenet_condition(codes, np.zeros(engine.config.speaker.dim, np.float32))
    engine.sample([condition], seeds=[[0]], temperature=1.0)
