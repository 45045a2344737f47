"""The steps of a WaveNet on a CPU, compiled: the algorithm of `graph.py` in lanes.

Recordings sampled side by side are the lanes of vector instructions; a lone one uses them across
channels and levels instead. Either way every sum is taken in the same order (see tile.py).
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np
from llvmlite.binding import get_host_cpu_features
from numba import config

from vqcodec.compilation import compiled
from vqcodec.inference.wavenet.tile import accumulate_tile
from vqcodec.models.mu_law import SAMPLES, SHARPEST

# Of the processor, unless numba is told to compile for another (NUMBA_CPU_FEATURES).
CPU_FEATURES = config.CPU_FEATURES or get_host_cpu_features().flatten()
# Whether there are 32 registers of 16 sums; AVX2 has 16 of eight, NEON 32 of four.
HAS_WIDE_REGISTERS = "+avx512f" in CPU_FEATURES.split(",")
TILE_ROWS = 16 if HAS_WIDE_REGISTERS else 4
# Sums are fused multiply-adds, as in the tiles, and are never put in another order. Division
# raises nothing (error_model), or loops with it would not use vector instructions.
vectorized = partial(compiled, error_model="numpy", fastmath={"contract", "nnan", "nsz"})
inlined = partial(vectorized, inline="always")
# 2^(1/2 - n): see `exp`.
POWERS = 2.0 ** (0.5 - np.arange(128, dtype=np.float32))


@vectorized
def accumulate(weights: Any, x: Any, starts: Any, sums: Any) -> None:
    """Sums (O, L) = starts (O, L) + weights (I, O)^T x (I, L).

    O is a multiple of 16, L is 1 (weights are float16 bits) or a multiple of 16 (float32); `sums`
    may be `starts`.
    """
    depth, n_outputs = weights.shape
    n_lanes = x.shape[1]
    w, v, s, b = weights.ctypes.data, x.ctypes.data, sums.ctypes.data, starts.ctypes.data
    if n_lanes > 1:
        for lane in range(0, n_lanes, 16):
            for output in range(0, n_outputs, TILE_ROWS):
                at = 4 * (output * n_lanes + lane)
                accumulate_tile(
                    s + at, b + at, n_lanes,
                    w + 4 * output, n_outputs, v + 4 * lane, n_lanes, depth, TILE_ROWS, 1, 4,
                )  # fmt: skip
        return
    output = 0
    # Wide blocks first: a short one leaves the multipliers waiting for each other.
    while output < n_outputs:
        at, left = 4 * output, n_outputs - output
        if not HAS_WIDE_REGISTERS and left >= 64:
            accumulate_tile(s + at, b + at, 0, v, 1, w + at // 2, n_outputs, depth, 1, 4, 2)
            output += 64
        elif HAS_WIDE_REGISTERS and left >= 256:
            accumulate_tile(s + at, b + at, 0, v, 1, w + at // 2, n_outputs, depth, 1, 16, 2)
            output += 256
        elif HAS_WIDE_REGISTERS and left >= 192:
            accumulate_tile(s + at, b + at, 0, v, 1, w + at // 2, n_outputs, depth, 1, 12, 2)
            output += 192
        elif HAS_WIDE_REGISTERS and left >= 128:
            accumulate_tile(s + at, b + at, 0, v, 1, w + at // 2, n_outputs, depth, 1, 8, 2)
            output += 128
        else:
            accumulate_tile(s + at, b + at, 0, v, 1, w + at // 2, n_outputs, depth, 1, 1, 2)
            output += 16


@vectorized
def copy(source: Any, target: Any) -> None:
    """Copy an array: to assign it, numba would first compile how to tell of shapes that differ."""
    values, places = source.ravel(), target.ravel()
    for index in range(len(values)):
        places[index] = values[index]


@inlined
def tanh(x: Any) -> Any:
    """Hyperbolic tangent of float32, within 4e-7.

    Lambert's continued fraction h / (1 + h^2 / (3 + h^2 / (5 + ...))), to the sixth level, gives
    tanh(h) = a / b for h = x / 2; then tanh(x) = 2ab / (a^2 + b^2), which is 1 in float32 at 9.
    """
    half = np.float32(0.5) * min(max(x, np.float32(-9)), np.float32(9))
    z = half * half
    a = half * ((np.float32(21) * z + np.float32(1260)) * z + np.float32(10395))
    b = ((z + np.float32(210)) * z + np.float32(4725)) * z + np.float32(10395)
    return (a + a) * b / (a * a + b * b)


@vectorized
def set_condition(weights: Any, state: Any, condition: Any) -> None:
    """Project the condition (H + 1, L) of a code for every layer; coarse bands (X, L) follow it."""
    for layer in range(len(weights.dilations)):
        accumulate(weights.condition[layer], condition, state.zeros, state.held[layer])
    accumulate(weights.taps, condition, state.zeros, state.taps)
    n_coarse, n_lanes = state.coarse.shape
    copy(condition[len(condition) - n_coarse :], state.coarse)
    for index in range(n_coarse):
        for lane in range(n_lanes):
            state.compressed[index, lane] = compress(state.coarse[index, lane])


@inlined
def expect(state: Any, heard: Any) -> None:
    """Set what is expected of the next step, which hears coarse bands (P * M, L)."""
    n_bands, n_lanes = state.levels.shape
    state.expected[:] = np.float32(0)
    for past in range(len(state.samples)):
        for band in range(n_bands):
            for lane in range(n_lanes):
                tap = state.taps[past * n_bands + band, lane]
                state.expected[band, lane] += tap * state.samples[past, lane]
    first = len(state.samples)
    for index in range(len(heard)):
        for band in range(n_bands):
            for lane in range(n_lanes):
                tap = state.taps[(first + index) * n_bands + band, lane]
                state.expected[band, lane] += tap * heard[index, lane]
    for band in range(n_bands):
        for lane in range(n_lanes):
            state.expected[band, lane] = compress(state.expected[band, lane])


@vectorized
def compress(x: Any) -> Any:
    """`models.companding.compress` of a float32, cut to [-1, 1]: a series for the logarithm."""
    mantissa, exponent = math.frexp(1.0 + 255.0 * min(abs(float(x)), 1.0))
    z = (mantissa - math.sqrt(0.5)) / (mantissa + math.sqrt(0.5))
    square = z * z
    series = 1 / 11
    for factor in (1 / 9, 1 / 7, 1 / 5, 1 / 3, 1.0):
        series = series * square + factor
    logarithm = 2 * z * series + (exponent - 0.5) * math.log(2.0)
    return np.float32(math.copysign(logarithm / math.log(256.0), x))


@inlined
def remember(state: Any) -> None:
    """Take the samples of the step's levels for the last ones."""
    n_bands, n_lanes = state.levels.shape
    n_kept = len(state.samples) - n_bands
    if n_kept > 0:
        copy(state.samples[n_bands:], state.samples)
    if n_kept >= 0:
        for band in range(n_bands):
            for lane in range(n_lanes):
                state.samples[n_kept + band, lane] = SAMPLES[state.levels[band, lane]]


@inlined
def step(weights: Any, state: Any, index: int) -> None:
    """Set the inputs of all bands of a step of the code from `state.levels` and what was before."""
    n_layers, width, _ = weights.newer.shape
    n_bands, n_lanes = state.levels.shape
    heard = slice(index * n_bands, index * n_bands + len(weights.coarse))
    if len(state.samples):
        expect(state, state.coarse[heard])
    for channel in range(width):
        for lane in range(n_lanes):
            total = np.float32(0)
            for band in range(n_bands):
                total += weights.embedding[band, state.levels[band, lane], channel]
                total += weights.expected[band, channel] * state.expected[band, lane]
            state.stream[channel, lane] = total
    x, skips = state.stream[:width], state.stream[width:]
    if len(weights.coarse):
        accumulate(weights.coarse, state.compressed[heard], x, x)
    skips[:-1] = np.float32(0)
    filters, gates = state.gates[:width].ravel(), state.gates[width:].ravel()
    hidden = state.hidden.ravel()
    start = 0
    for layer in range(n_layers):
        past = state.past[start + state.slots[layer]]
        accumulate(weights.older[layer], past, state.held[layer], state.gates)
        accumulate(weights.newer[layer], x, state.gates, state.gates)
        copy(x, past)
        start += weights.dilations[layer]
        state.slots[layer] = (state.slots[layer] + 1) % weights.dilations[layer]
        for place in range(len(gates)):
            gate = np.float32(0.5) * tanh(np.float32(0.5) * gates[place]) + np.float32(0.5)
            hidden[place] = tanh(filters[place]) * gate
        accumulate(weights.mixed[layer], state.hidden, state.stream, state.stream)
    scale(skips[:-1], np.float32(1 / math.sqrt(n_layers)))
    rectify(skips)
    accumulate(weights.hidden, skips, state.zeros, state.inputs)
    state.told[:] = np.float32(0)


@inlined
def predict(weights: Any, state: Any, band: int) -> None:
    """Set the logits of a band from its inputs and what the lower ones have told."""
    told, middle = state.told.ravel(), state.middle.ravel()
    start = band * len(told)
    inputs = state.inputs.ravel()[start : start + len(told)]
    for index in range(len(told)):
        middle[index] = max(inputs[index] + told[index], np.float32(0))
    accumulate(weights.logits[band], state.middle, state.zeros, state.logits)
    if len(state.samples):
        add_parabola(weights.sharpness[band], state, state.expected[band])


@inlined
def add_parabola(weights: Any, state: Any, expected: Any) -> None:
    """Add to the logits what `WaveNet.band_logits` adds around what is expected (L,)."""
    n_levels, n_lanes = state.logits.shape
    sharpness = state.sharpness
    sharpness[:] = np.float32(0)
    for channel in range(len(weights)):
        for lane in range(n_lanes):
            sharpness[lane] += weights[channel] * state.middle[channel, lane]
    for lane in range(n_lanes):
        square = sharpness[lane] * sharpness[lane]
        sharpness[lane] = square / (np.float32(1) + square / np.float32(SHARPEST))
    if n_lanes == 1:
        raise_logits(state.logits.ravel(), expected[0], sharpness[0])
        return
    for level in range(n_levels):
        place = np.float32(level) * np.float32(2 / 255) - np.float32(1)
        for lane in range(n_lanes):
            factor = place * (expected[lane] + expected[lane] - place)
            state.logits[level, lane] += sharpness[lane] * factor


@vectorized
def raise_logits(logits: Any, expected: Any, sharpness: Any) -> None:
    """`add_parabola` of a lone recording, whose levels are then the lanes."""
    for level in range(len(logits)):
        place = np.float32(level) * np.float32(2 / 255) - np.float32(1)
        logits[level] += sharpness * (place * (expected + expected - place))


@inlined
def tell(weights: Any, state: Any, band: int) -> None:
    """Tell the higher bands the level of a band."""
    for channel in range(len(state.told)):
        for lane in range(state.told.shape[1]):
            state.told[channel, lane] += weights.lower[band, state.levels[band, lane], channel]


@vectorized
def scale(x: Any, factor: Any) -> None:
    """Multiply in place."""
    flat = x.ravel()
    for index in range(len(flat)):
        flat[index] *= factor


@vectorized
def rectify(x: Any) -> None:
    """ReLU in place."""
    flat = x.ravel()
    for index in range(len(flat)):
        flat[index] = max(flat[index], np.float32(0))


@inlined
def exp(x: Any) -> Any:
    """Exponential of a float32 that is 0 or less, and -87 at least, within 4e-6 of its value.

    A power of two by table, the rest by a Taylor polynomial around half a power of two.
    """
    power = max(x, np.float32(-87)) * np.float32(1.4426950408889634)
    whole = math.floor(power)
    rest = (power - whole - np.float32(0.5)) * np.float32(0.6931471805599453)
    series = np.float32(1 / 720)
    for factor in (1 / 120, 1 / 24, 1 / 6, 1 / 2, 1.0, 1.0):
        series = series * rest + np.float32(factor)
    return series * POWERS[np.int64(-whole)]


@inlined
def choose(state: Any, band: int, temperature: float, draws: Any) -> None:
    """Set the levels of a band to where draws (L,) fall in the cumulative distributions."""
    # Temperature 0 is the limit: what is below the peak has next to no share, and of equals the
    # first is taken.
    least = 1e-30
    scale = np.float32(1 / max(temperature, least))
    logits, shares, peaks, totals = state.logits, state.shares, state.peaks, state.totals
    n_levels, n_lanes = logits.shape
    if n_lanes == 1:
        total = set_shares(logits.ravel(), scale, shares.ravel())
        totals[0] = total
    else:
        copy(logits[0], peaks)
        totals[:] = np.float32(0)
        for level in range(1, n_levels):
            for lane in range(n_lanes):
                peaks[lane] = max(peaks[lane], logits[level, lane])
        for level in range(n_levels):
            for lane in range(n_lanes):
                share = exp((logits[level, lane] - peaks[lane]) * scale)
                shares[level, lane] = share
                totals[lane] += share
    for lane in range(n_lanes):
        left = (draws[lane] if temperature > 0 else least) * totals[lane]
        for level in range(n_levels):
            left -= shares[level, lane]
            if left < 0:
                state.levels[band, lane] = level
                break


@vectorized
def set_shares(logits: Any, scale: Any, shares: Any) -> Any:
    """Fill in the shares of a lone recording, along its levels; returns their sum."""
    peak = logits[0]
    for level in range(1, len(logits)):
        peak = max(peak, logits[level])
    for level in range(len(logits)):
        shares[level] = exp((logits[level] - peak) * scale)
    total = np.float32(0)
    for level in range(len(logits)):
        total += shares[level]
    return total


@vectorized
def sample(
    weights: Any, state: Any, condition: Any, draws: Any, temperatures: Any, levels: Any
) -> None:
    """Sample the n steps of each of N codes, going on from `state`.

    Args:
        weights: of the network.
        state: of the group.
        condition: (N, H + 1 + X, L), see `set_condition`.
        draws: (N, n, M, L) in [0, 1).
        temperatures: of the draws of each band, (M,).
        levels: (N, n, M, L), to be filled.
    """
    n_bands = len(state.levels)
    for frame in range(len(condition)):
        set_condition(weights, state, condition[frame])
        for index in range(draws.shape[1]):
            step(weights, state, index)
            for band in range(n_bands):
                predict(weights, state, band)
                choose(state, band, temperatures[band], draws[frame, index, band])
                if band < n_bands - 1:
                    tell(weights, state, band)
            remember(state)
            copy(state.levels, levels[frame, index])
