"""A WaveNet's weights and state as the compiled kernel (kernel.py) reads them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from vqcodec.inference.wavenet.tile import VECTOR
from vqcodec.models.config import WaveNetConfig
from vqcodec.models.mu_law import N_LEVELS, SILENCE


class Weights(NamedTuple):
    """A WaveNet as the kernel reads it: (inputs, outputs), widths padded to multiples of 16.

    Values are rounded to float16, which is what model files hold: a lone recording is bound by
    reading weights, and reads half as many bytes. Groups of lanes read the same values in float32.

    Attributes:
        embedding: (M, 256, C) float32, of the bands of models/filterbank.py.
        condition: (layers, H + 1, 2C). Here and below the last input may be the constant 1, whose
            weights are biases.
        older, newer: (layers, C, 2C), the two taps of the dilated convolutions.
        mixed: (layers, C + 1, C + K): residual, then skip.
        hidden: (K + 1, M * W).
        logits: (M, W + 1, 256).
        lower: (M, 256, W) float32, what each band tells the higher ones; 0 of the highest.
        taps: (H + 1, (J + P) * M * M) of `LinearPrediction`, padded; J and P may be 0.
        expected: (M, C) float32, what is expected of each band to the first layer.
        coarse: (P * M, C), the bands of P coarse steps to the first layer; P may be 0.
        sharpness: (M, W + 1) float32.
        dilations: (layers,) int64.
    """

    embedding: np.ndarray
    condition: np.ndarray
    older: np.ndarray
    newer: np.ndarray
    mixed: np.ndarray
    hidden: np.ndarray
    logits: np.ndarray
    lower: np.ndarray
    taps: np.ndarray
    expected: np.ndarray
    coarse: np.ndarray
    sharpness: np.ndarray
    dilations: np.ndarray


class State(NamedTuple):
    """What a group of L lanes remembers, and its scratch space; the constant 1 stands in last rows.

    Attributes:
        levels: (M, L) int64, the last step.
        past: (sum of dilations, C, L), a ring of inputs for each layer.
        slots: (layers,) int64, the place in each ring.
        held: (layers, 2C, L), the condition of the current code.
        taps: ((J + P) * M * M, L), padded, the filter of the current code.
        samples: (J * M, L), what the last steps stand for, the oldest first.
        coarse: (X, L), the bands of all coarse steps that those of the current code hear.
        compressed: (X, L), the same on the scale of mu-law.
        expected: (M, L), of the next step, on the scale of mu-law.
        sharpness: (L,), of the band that is next.
        stream: (C + K + 1, L), the residual stream, then the summed skips.
        gates: (2C, L).
        hidden: (C + 1, L).
        inputs: (M * W, L), what each band's distribution begins from.
        told: (W, L), what the lower bands of a step have told.
        middle: (W + 1, L).
        logits: (256, L), of the band that is next.
        shares: (256, L), of its levels.
        peaks, totals: (L,), of them.
        zeros: (channels, L), as many as any product has.
    """

    levels: np.ndarray
    past: np.ndarray
    slots: np.ndarray
    held: np.ndarray
    taps: np.ndarray
    samples: np.ndarray
    coarse: np.ndarray
    compressed: np.ndarray
    expected: np.ndarray
    sharpness: np.ndarray
    stream: np.ndarray
    gates: np.ndarray
    hidden: np.ndarray
    inputs: np.ndarray
    told: np.ndarray
    middle: np.ndarray
    logits: np.ndarray
    shares: np.ndarray
    peaks: np.ndarray
    totals: np.ndarray
    zeros: np.ndarray


def export_weights(state: Mapping[str, np.ndarray], config: WaveNetConfig, n_lanes: int) -> Weights:
    """Copy the weights of a WaveNet, by their names in the network, into the kernel's layout.

    It is for groups of `n_lanes`, 1 or a multiple of 16.
    """
    n_bands, width = config.n_bands, _whole_vectors(config.residual_channels)
    embedding = state["embedding.weight"].reshape(n_bands, N_LEVELS, -1)

    def ready(array: np.ndarray) -> np.ndarray:
        # numba computes with neither float16 nor its own idea of it: the tile reads the bits.
        return np.ascontiguousarray(
            array.view(np.uint16) if n_lanes == 1 else array.astype(np.float32)
        )

    multiplied = {**_layers(state, config), **_heads(state, config)}
    looked_up = {
        "embedding": _padded(embedding, n_bands, N_LEVELS, width),
        **_told_of_bands(state, config),
    }
    return Weights(
        **{name: ready(array) for name, array in multiplied.items()},
        **{name: np.ascontiguousarray(a.astype(np.float32)) for name, a in looked_up.items()},
        dilations=np.array(config.dilations),
    )


def _layers(state: Mapping[str, np.ndarray], config: WaveNetConfig) -> dict[str, np.ndarray]:
    """`condition`, `older`, `newer`, `mixed` and `coarse` of `Weights`."""
    channels = config.residual_channels
    width, skip, heard = map(
        _whole_vectors, (channels, config.skip_channels, config.condition_channels)
    )
    layers = [f"layers.{index}" for index in range(config.n_stacks * config.layers_per_stack)]
    condition = [
        _biased(
            _halves(state[f"{layer}.condition.weight"].T, heard, width),
            _halves(state[f"{layer}.taps.bias"], width),
        )
        for layer in layers
    ]
    older, newer = (
        [_halves(state[f"{layer}.taps.weight"][:, tap].T, width, width) for layer in layers]
        for tap in (slice(None, channels), slice(channels, None))
    )
    parts = (slice(None, channels), width), (slice(channels, None), skip)
    mixed = [
        np.concatenate(
            [
                _biased(
                    _padded(state[f"{layer}.mixed.weight"][part].T, width, size),
                    _padded(state[f"{layer}.mixed.bias"][part], size),
                )
                for part, size in parts
            ],
            axis=-1,
        )
        for layer in layers
    ]
    stacks = {"condition": condition, "older": older, "newer": newer, "mixed": mixed}
    coarse = np.zeros((channels, 0))
    if config.coarse_steps:
        coarse = state["coarse.weight"]
    return {
        **{name: np.stack(arrays) for name, arrays in stacks.items()},
        "coarse": _padded(coarse.T, coarse.shape[1], width),
    }


def _heads(state: Mapping[str, np.ndarray], config: WaveNetConfig) -> dict[str, np.ndarray]:
    """`hidden`, `logits` and `taps` of `Weights`."""
    n_bands, own = config.n_bands, _whole_vectors(config.hidden_channels)
    skip, heard = map(_whole_vectors, (config.skip_channels, config.condition_channels))
    hidden = _biased(
        *(
            np.concatenate([_padded(part, *size, own) for part in np.split(whole, n_bands, -1)], -1)
            for whole, size in ((state["hidden.weight"].T, (skip,)), (state["hidden.bias"], ()))
        )
    )
    logits = [
        _biased(_padded(weight.T, own, N_LEVELS), _padded(bias, N_LEVELS))
        for weight, bias in zip(
            *(np.split(state[f"logits.{part}"], n_bands) for part in ("weight", "bias")),
            strict=True,
        )
    ]
    n_taps = (config.prediction_order + config.coarse_steps) * n_bands**2
    weight, bias = np.zeros((n_taps, config.condition_channels)), np.zeros(n_taps)
    if config.prediction_order:
        weight, bias = state["prediction.filter.weight"], state["prediction.filter.bias"]
    padded = _whole_vectors(n_taps)
    taps = _biased(_padded(weight.T, heard, padded), _padded(bias, padded))
    return {"hidden": hidden, "logits": np.stack(logits), "taps": taps}


def _told_of_bands(state: Mapping[str, np.ndarray], config: WaveNetConfig) -> dict[str, np.ndarray]:
    """`lower`, `expected` and `sharpness` of `Weights`; zeros of what the network lacks."""
    n_bands, own = config.n_bands, _whole_vectors(config.hidden_channels)
    width = _whole_vectors(config.residual_channels)
    lower = np.zeros((n_bands - 1, N_LEVELS, config.hidden_channels), np.float32)
    if n_bands > 1:
        lower = state["lower.weight"].reshape(lower.shape)
    expected = np.zeros((config.residual_channels, n_bands))
    weight, bias = np.zeros((n_bands, config.hidden_channels)), np.zeros(n_bands)
    if config.prediction_order:
        expected = state["expected.weight"]
        weight, bias = state["sharpness.weight"], state["sharpness.bias"]
    sharpness = _biased(_padded(weight.T, own, n_bands), _padded(bias, n_bands))
    return {
        "lower": _padded(lower, n_bands, N_LEVELS, own),
        "expected": _padded(expected.T, n_bands, width),
        "sharpness": sharpness.T,
    }


def _whole_vectors(channels: int) -> int:
    return -(-channels // VECTOR) * VECTOR


def _padded(array: np.ndarray, *shape: int) -> np.ndarray:
    room = [(0, size - have) for size, have in zip(shape, array.shape, strict=True)]
    return np.pad(array.astype(np.float16), room)


def _halves(array: np.ndarray, *shape: int) -> np.ndarray:
    """Filter and gate, padded each for itself; outputs last."""
    halves = np.split(array, 2, axis=-1)
    return np.concatenate([_padded(half, *shape) for half in halves], axis=-1)


def _biased(weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    return np.concatenate([weight, bias[None]])


def new_state(weights: Weights, config: WaveNetConfig, n_lanes: int, n_coarse: int) -> State:
    """The state before the first sample, silence; `n_coarse` values are heard with each code."""
    n_layers, width, both = weights.newer.shape
    n_bands, _, own = weights.lower.shape
    n_taps = weights.taps.shape[1]

    def zeros(*shape: int) -> np.ndarray:
        return np.zeros((*shape, n_lanes), np.float32)

    def with_one(channels: int) -> np.ndarray:
        return np.concatenate([zeros(channels), np.ones((1, n_lanes), np.float32)])

    return State(
        levels=np.full((n_bands, n_lanes), SILENCE),
        past=zeros(int(weights.dilations.sum()), width),
        slots=np.zeros(n_layers, np.int64),
        held=zeros(n_layers, both),
        taps=zeros(n_taps),
        samples=zeros(config.prediction_order * n_bands),
        coarse=zeros(n_coarse),
        compressed=zeros(n_coarse),
        expected=zeros(n_bands),
        sharpness=zeros(),
        stream=with_one(weights.mixed.shape[-1]),
        gates=zeros(both),
        hidden=with_one(width),
        inputs=zeros(n_bands * own),
        told=zeros(own),
        middle=with_one(own),
        logits=zeros(N_LEVELS),
        shares=zeros(N_LEVELS),
        peaks=zeros(),
        totals=zeros(),
        zeros=zeros(max(N_LEVELS, both, n_bands * own, n_taps)),
    )
