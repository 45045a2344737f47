"""Sampling from a WaveNet on a CPU: recordings in groups of lanes, on any number of threads.

Recordings sampled side by side are the lanes of vector instructions, in groups of 16 (kernel.py).
A recording's samples are the same bits alone, in any group, and on any number of threads.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import NamedTuple

import numpy as np

from vqcodec.inference import chunking
from vqcodec.inference.wavenet.kernel import sample
from vqcodec.inference.wavenet.layout import State, Weights, export_weights, new_state
from vqcodec.inference.wavenet.tile import VECTOR
from vqcodec.models.config import ModelConfig, WaveNetConfig
from vqcodec.models.mu_law import LevelDecoder

# A padded group costs as much as seven lone recordings.
SMALLEST_GROUP = 7


class CpuSampler:
    """State of sampling B recordings side by side; the interface of `graph.GraphSampler`.

    Args:
        state: the WaveNet's weights by their names in the network.
        config: of the network.
        hop_length: samples per code.
        seeds: of each recording: its samples do not depend on what else is sampled.
        temperature: factor of `WaveNetConfig.temperatures`; 0 takes the peak of a distribution.
    """

    # Codes between looks at the outside: a block per code would cost a thread switch each.
    FRAMES = 25

    def __init__(
        self,
        state: Mapping[str, np.ndarray],
        config: WaveNetConfig,
        hop_length: int,
        *,
        seeds: Sequence[int | Sequence[int]],
        temperature: float = 1.0,
    ) -> None:
        self.hop_length, self.n_bands = hop_length, config.n_bands
        self.temperatures = temperature * np.array(config.temperatures)
        n_lanes = len(seeds)
        self.generators = [np.random.default_rng(seed) for seed in seeds]
        self.synthesize = LevelDecoder(n_lanes, config.n_bands, config.pre_emphasis)
        weights = {width: export_weights(state, config, width) for _, width in _groups(n_lanes)}
        n_coarse = config.coarse_channels(hop_length)
        self.groups = [
            _Group(lanes, weights[width], new_state(weights[width], config, width, n_coarse))
            for lanes, width in _groups(n_lanes)
        ]
        self.condition_channels = config.condition_channels

    def blocks(self, condition: np.ndarray) -> Iterator[np.ndarray]:
        """Sample the hops of a condition; call again with what follows to go on.

        From (B, N, _) of `WaveNet.per_code` to (B, n * hop_length) float32 of a few codes each.
        """
        n_lanes, n_codes, _ = condition.shape
        conditions = self.inputs(condition.transpose(1, 2, 0))
        with ThreadPoolExecutor(min(len(self.groups), chunking.thread_count())) as pool:
            for start in range(0, n_codes, self.FRAMES):
                part = conditions[start : start + self.FRAMES]
                shape = len(part), self.hop_length // self.n_bands, self.n_bands
                draws = np.stack([rng.random(shape) for rng in self.generators], axis=-1)
                parts = pool.map(partial(self._sample, conditions=part, draws=draws), self.groups)
                levels = np.concatenate(list(parts), axis=-1)
                yield self.synthesize(levels.reshape(-1, self.n_bands, n_lanes).transpose(2, 0, 1))

    def inputs(self, condition: np.ndarray) -> np.ndarray:
        """`WaveNet.per_code`, as (N, _, B) -> as the kernel reads it."""
        n_codes, n_channels, n_lanes = condition.shape
        at = self.groups[0].weights.condition.shape[1] - 1  # of the constant 1
        n_told, n_coarse = self.condition_channels, n_channels - self.condition_channels
        inputs = np.zeros((n_codes, at + 1 + n_coarse, n_lanes), np.float32)
        inputs[:, :n_told] = condition[:, :n_told]
        inputs[:, at] = 1
        inputs[:, at + 1 :] = condition[:, n_told:]
        return inputs

    def _sample(self, group: _Group, conditions: np.ndarray, draws: np.ndarray) -> np.ndarray:
        """Levels (n, steps, M, lanes) of a group; lanes that only fill it up are dropped."""
        conditions, draws = conditions[..., group.lanes], draws[..., group.lanes]
        n_lanes, width = draws.shape[-1], group.state.levels.shape[1]
        room = [(0, 0), (0, width - n_lanes)]
        levels = np.empty((*draws.shape[:3], width), np.int64)
        sample(
            group.weights,
            group.state,
            np.pad(conditions, [(0, 0), *room]),
            np.pad(draws, [(0, 0), (0, 0), *room]),
            self.temperatures,
            levels,
        )
        return levels[..., :n_lanes]


class _Group(NamedTuple):
    """Lanes that are sampled together."""

    lanes: slice
    weights: Weights
    state: State


def _groups(n_lanes: int) -> list[tuple[slice, int]]:
    """Which lanes go together, and the width of each group: 16, or 1 for a few left over."""
    groups, start = [], 0
    while n_lanes - start >= SMALLEST_GROUP:
        stop = min(start + VECTOR, n_lanes)
        groups.append((slice(start, stop), VECTOR))
        start = stop
    return groups + [(slice(lane, lane + 1), 1) for lane in range(start, n_lanes)]


def sampled(
    state: Mapping[str, np.ndarray],
    config: ModelConfig,
    conditions: Sequence[np.ndarray],
    *,
    seeds: Sequence[Sequence[int]],
    temperature: float,
) -> list[np.ndarray]:
    """`Engine.sample`, by the WaveNet's weights under their names in the network."""
    assert config.wavenet is not None
    sampler = CpuSampler(
        state, config.wavenet, config.hop_length, seeds=seeds, temperature=temperature
    )
    lengths = [len(condition) for condition in conditions]
    padded = np.zeros((len(lengths), max(lengths), conditions[0].shape[1]), np.float32)
    for lane, condition in zip(padded, conditions, strict=True):
        lane[: len(condition)] = condition
    waveforms = np.concatenate(list(sampler.blocks(padded)), axis=1)
    return [
        waveform[: n_codes * config.hop_length]
        for waveform, n_codes in zip(waveforms, lengths, strict=True)
    ]
