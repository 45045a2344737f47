"""The engine that fills a GPU: chunks of many recordings side by side."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import Future

import numpy as np
import torch

from vqcodec.inference.engines import Encoded
from vqcodec.inference.engines.pytorch import TorchEngine
from vqcodec.models.receptive_field import encoder_context
from vqcodec.models.vqvae import VQVAE

WINDOWS = (64, 96, 128, 192, 256, 384, 512)
"""Codes of the windows that chunks are cut into: those of one length make a batch."""
MOST_CODES = {"cuda": 1 << 16, "cpu": 1 << 12}
"""Of a batch, by device: nine minutes of the default model, or half a minute."""


class BatchedEngine(TorchEngine):
    """`TorchEngine` for many threads at a time, each with a recording of its own.

    While one batch is computed, the windows for the next gather. Codes are those of chunk by chunk:
    a window has all that its codes can see, and close calls are settled as those of chunks are.
    """

    def __init__(self, model: VQVAE, device: str) -> None:
        super().__init__(model, device)
        before, after = encoder_context(self.config.encoder)
        hop_length = self.config.hop_length
        self._context = -(-before // hop_length), -(-after // hop_length)
        self._waiting: dict[int, list[tuple[np.ndarray, Future[Encoded]]]] = defaultdict(list)
        self._news = threading.Condition()
        threading.Thread(target=self._compute, daemon=True).start()

    def encode_chunk(self, waveform: np.ndarray) -> Encoded:
        hop_length = self.config.hop_length
        n_codes = len(waveform) // hop_length
        fitting = [length for length in WINDOWS if sum(self._context) < length <= n_codes]
        # Codes without margins cannot be settled: their chunks stay as they are.
        if not fitting or not self.config.quantizer.has_margins:
            return super().encode_chunk(waveform)
        length = fitting[-1]
        found = []
        with self._news:
            for start, first, end in windows(n_codes, length, self._context):
                future = Future[Encoded]()
                data = waveform[start * hop_length : (start + length) * hop_length]
                self._waiting[length].append((data, future))
                found.append((future, slice(first - start, end - start)))
            self._news.notify()
        parts = [[array[..., span] for array in future.result()] for future, span in found]
        return Encoded(*(np.concatenate(own, axis=-1) for own in zip(*parts, strict=True)))

    def _compute(self) -> None:
        while True:
            with self._news:
                self._news.wait_for(lambda: any(self._waiting.values()))
                length = max(self._waiting, key=lambda one: one * len(self._waiting[one]))
                most = MOST_CODES[self.device] // length
                batch = self._waiting[length][:most]
                self._waiting[length] = self._waiting[length][most:]
            try:
                results = self._encoded(np.stack([data for data, _ in batch]))
                for (_, future), result in zip(batch, results, strict=True):
                    future.set_result(result)
            except Exception as error:  # whoever waits is to hear of it
                for _, future in batch:
                    future.set_exception(error)

    @torch.no_grad()
    def _encoded(self, waveforms: np.ndarray) -> list[Encoded]:
        latents = self.model.norm(self.model.encoder(torch.from_numpy(waveforms).to(self.device)))
        parts = [part.cpu().numpy() for part in self.model.quantizer.margins(latents)]
        return [Encoded(*own) for own in zip(*parts, strict=True)]


def windows(n_codes: int, length: int, context: tuple[int, int]) -> Iterator[tuple[int, int, int]]:
    """Cover a chunk with windows of one length.

    Args:
        n_codes: of the chunk, `length` or more.
        length: of a window, more than its context.
        context: codes to the left and right of a window that it does not tell, but at the ends of
            the chunk.

    Yields:
        Where a window begins, and the first of the codes that it tells and the one after the last.
    """
    before, after = context
    done, start = 0, 0
    while start + length < n_codes:
        yield start, done, start + length - after
        done = start + length - after
        start = done - before
    yield n_codes - length, done, n_codes
