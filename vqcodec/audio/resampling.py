"""Resampling of streams to exact lengths."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np
import soxr

from vqcodec.audio.soundfiles import BLOCK_LENGTH


def resampled_length(n_samples: int, input_rate: int, output_rate: int) -> int:
    """Count the samples of a recording at another rate: ``ceil(n_samples * output / input)``."""
    return -(-n_samples * output_rate // input_rate)


def resample_blocks(
    blocks: Iterable[np.ndarray],
    input_rate: int,
    output_rate: int,
    n_samples: int | Callable[[], int | None],
) -> Iterator[np.ndarray]:
    """Resample a stream of mono blocks (T,) float32 to an exact length.

    Their samples do not depend on how the input was cut; at one rate in Hz they pass untouched.
    Audio longer than `n_samples` is trimmed, shorter is followed by zeros. A function may tell that
    number, None while nobody knows: it must be known when the blocks end, and no less than what had
    come while it was not.
    """
    resampler = ExactResampler(input_rate, output_rate, n_samples)
    for block in blocks:
        yield from resampler.process(block)
    yield from resampler.finish()


class ExactResampler:
    """Resamples what is pushed into it, and delivers exactly ``n_samples`` in short pieces."""

    def __init__(
        self, input_rate: int, output_rate: int, n_samples: int | Callable[[], int | None]
    ) -> None:
        same = input_rate == output_rate
        self._stream = None if same else soxr.ResampleStream(input_rate, output_rate, 1)
        # soxr rounds the length down; one more output sample's worth of silence rounds it up.
        self._tail = np.zeros(input_rate // output_rate + 1, dtype=np.float32)
        self._n_samples = n_samples if callable(n_samples) else lambda: n_samples
        self._n_done = 0

    def process(self, block: np.ndarray) -> Iterator[np.ndarray]:
        """Push a block (T,) and take what comes out."""
        for start in range(0, len(block), BLOCK_LENGTH):
            chunk = block[start : start + BLOCK_LENGTH]
            yield from self._trim(self._stream.resample_chunk(chunk) if self._stream else chunk)

    def finish(self) -> Iterator[np.ndarray]:
        """Take the rest."""
        if self._stream:
            yield from self._trim(self._stream.resample_chunk(self._tail, last=True))
        n_samples = self._n_samples()
        assert n_samples is not None
        while self._n_done < n_samples:
            yield from self._trim(np.zeros(BLOCK_LENGTH, dtype=np.float32))

    def _trim(self, samples: np.ndarray) -> Iterator[np.ndarray]:
        n_samples = self._n_samples()
        if n_samples is not None:
            samples = samples[: n_samples - self._n_done]
        self._n_done += len(samples)
        for start in range(0, len(samples), BLOCK_LENGTH):
            yield samples[start : start + BLOCK_LENGTH]
