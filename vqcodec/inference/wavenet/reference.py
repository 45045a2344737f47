"""Sampling from a WaveNet, one sample at a time, with queues (Paine et al. 2016, arXiv 1611.09482).

Each layer keeps its last `dilation` inputs, so a step computes one column of every layer instead
of the whole receptive field. This is the plain statement of the algorithm in PyTorch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from vqcodec.models.harmonics import harmonic_waves
from vqcodec.models.mu_law import SILENCE, Synthesizer
from vqcodec.models.wavenet import GatedLayer, WaveNet


class _Queue:
    """The last inputs of one layer, of B recordings sampled side by side."""

    def __init__(self, layer: GatedLayer, n_lanes: int) -> None:
        self.layer = layer
        width = layer.taps.in_features // 2
        self.past = layer.taps.weight.new_zeros(layer.dilation, n_lanes, width)
        self.position = 0

    def step(self, x: Tensor, held: Tensor) -> tuple[Tensor, Tensor]:
        """X (B, C), held condition (B, 2C) -> next x (B, C), skip (B, K)."""
        slot = self.position % len(self.past)
        older = self.past[slot].clone()
        self.past[slot] = x
        self.position += 1
        return self.layer.step(older, x, held)


class Held(NamedTuple):
    """What is told of a code.

    Attributes:
        conditions: of each layer, (B, 2C).
        taps: (B, M * (J + P), M) of `LinearPrediction`, or None.
        frequency: (B,) cycles per step, or None.
    """

    conditions: list[Tensor]
    taps: Tensor | None
    frequency: Tensor | None


class ReferenceSampler:
    """State of sampling B recordings side by side.

    Args:
        wavenet: in evaluation mode.
        seeds: of each recording: its samples do not depend on what else is in the batch.
        temperature: factor of `WaveNetConfig.temperatures`; 0 takes the peak of a distribution.
    """

    def __init__(
        self, wavenet: WaveNet, *, seeds: Sequence[int | Sequence[int]], temperature: float = 1.0
    ) -> None:
        self.wavenet = wavenet
        self.temperatures = [temperature * own for own in wavenet.config.temperatures]
        self.queues = [_Queue(layer, len(seeds)) for layer in wavenet.layers]  # type: ignore[arg-type]
        self.generators = [np.random.default_rng(seed) for seed in seeds]
        n_bands = wavenet.n_bands
        device = wavenet.embedding.weight.device
        self.levels = torch.full((len(seeds), n_bands), SILENCE, device=device)
        self.samples = torch.zeros(len(seeds), wavenet.config.memory_length, n_bands, device=device)
        self.phase = torch.zeros(len(seeds), dtype=torch.float64, device=device)
        self.synthesize = Synthesizer(len(seeds), n_bands, wavenet.config.pre_emphasis)

    @torch.no_grad()
    def blocks(self, condition: Tensor) -> Iterator[Tensor]:
        """Sample the hops of a condition; call again with what follows to go on.

        From (B, N, H or H + 1) of `WaveNet.per_code` to (B, hop_length) float32 of each code.
        """
        hop_length = self.wavenet.hop_length
        for code in condition.unbind(1):
            held = self.held(code)
            uniform = np.stack([rng.random(hop_length) for rng in self.generators], axis=1)
            draws = torch.from_numpy(uniform).to(condition.device)
            steps = []
            for draw in draws.unflatten(0, (-1, self.wavenet.n_bands)):
                self.step(held, draw)
                steps.append(self.levels)
            levels = torch.stack(steps, dim=1)
            yield torch.from_numpy(self.synthesize(levels.cpu().numpy())).to(levels.device)

    def held(self, code: Tensor) -> Held:
        """What is told of a code (B, H or H + 1), as its steps need it."""
        prediction = self.wavenet.prediction
        told, frequency = self.wavenet.split(code)
        return Held(
            [queue.layer.condition(told) for queue in self.queues],
            None if prediction is None else prediction.taps(told),
            frequency,
        )

    def step(self, held: Held, draw: Tensor) -> None:
        """Draw the next step by uniform numbers in [0, 1), (M, B)."""
        expected = self.expected(held)
        inputs, levels = self.inputs(held, expected), []
        for band in range(self.wavenet.n_bands):
            logits = self.wavenet.band_logits(inputs[:, band], band, expected)
            levels.append(self._choose(logits, draw[band], self.temperatures[band]))
            if band < self.wavenet.n_bands - 1:
                inputs = inputs + self.wavenet.told_lower(levels[-1], band)[:, None]
        self.tell(torch.stack(levels, dim=-1))

    def tell(self, levels: Tensor) -> None:
        """Go on from the levels (B, M) of a step."""
        self.levels = levels
        if self.wavenet.prediction is not None:
            heard = self.wavenet.prediction.heard(levels)
            self.samples = torch.cat([self.samples[:, 1:], heard[:, None]], dim=1)

    def expected(self, held: Held) -> Tensor | None:
        """What is expected of the next step, (B, M)."""
        if held.taps is None or self.wavenet.prediction is None:
            return None
        past = self.wavenet.prediction.memory(self.samples, held.frequency)
        return self.wavenet.prediction.expect(past[:, None], held.taps)[:, 0]

    def waves(self, held: Held) -> Tensor | None:
        """Harmonics of the next step, (B, 2K)."""
        if self.wavenet.harmonics is None or held.frequency is None:
            return None
        self.phase = (self.phase + held.frequency).remainder(1)
        n_harmonics = self.wavenet.config.n_harmonics
        return harmonic_waves(self.phase.float(), held.frequency, n_harmonics)

    def inputs(self, held: Held, expected: Tensor | None) -> Tensor:
        """What each band of the next step begins from, (B, M, W)."""
        x = self.wavenet.embed(self.levels, expected, self.waves(held))
        skips: Tensor | float = 0.0
        for queue, condition in zip(self.queues, held.conditions, strict=True):
            x, skip = queue.step(x, condition)
            skips = skips + skip
        assert isinstance(skips, Tensor)
        return self.wavenet.band_inputs(skips)

    def _choose(self, logits: Tensor, draw: Tensor, temperature: float) -> Tensor:
        if temperature == 0:
            return logits.argmax(-1)
        cumulative = (logits.double() / temperature).softmax(-1).cumsum(-1)
        # Rounding may leave the last sum under the draw.
        levels = torch.searchsorted(cumulative, draw[:, None], right=True)[:, 0]
        return levels.clamp(max=logits.shape[-1] - 1)
