"""As loud as the recording: a decoding is led to the level that its codes were made at.

A normalised recording has an active level of `TARGET_RMS` by definition (`Recording.gain`), and a
decoder misses that by 1 to 10 dB, by the voice. Two gains make up for it: `followed` takes the
envelope of the same codes in the voice that spoke them, which knows where the recording paused;
`normalised` measures what has been decoded so far, gated as ITU-R BS.1770-5, annex 1, has it.

Both work chunk by chunk on a grid of their own, so the samples are the same bits however the
blocks come.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from vqcodec.audio.level import TARGET_RMS, frame_powers
from vqcodec.inference import chunking

TARGET_POWER = TARGET_RMS**2
FRAME_SECONDS = 0.01  # at most: of an envelope
BACK_SECONDS, AHEAD_SECONDS = 1.0, 0.2  # that the gain of a voice is measured over
MOST_RAISED = 4.0  # 12 dB: packaged voices are up to 10 dB too soft
# What lies this far below the level of speech is a pause, and from the first to the second it is
# less and less taken for one.
PAUSE_POWER = TARGET_POWER * np.array([10**-2.5, 10**-2.0])
LEAST_SUM = 0.5 * TARGET_POWER  # two silences are alike

# Chosen on validation recordings. A decoder loses 1 dB, and the level counts from -15 dB.
START_GAIN, ACTIVE_POWER = 10 ** (0.9 / 20), 0.03 * TARGET_POWER
TRUST = 50  # active frames of 20 ms that START_GAIN is worth
LARGEST_DRIFT = 10 ** (6 / 20)  # from START_GAIN: a soft beginning is to stay soft
LARGEST_CEILING = 1e6  # no decoding comes near
LEAST_CREST = 2.5  # over TARGET_RMS: a recording whose peaks had less room was clipped itself


def followed(
    blocks: Iterable[np.ndarray],
    reference: Iterable[np.ndarray],
    *,
    sample_rate: int,
    hop_length: int,
) -> Iterator[np.ndarray]:
    """Give a decoding the level and the pauses of a reference.

    Both are (T,) float32 blocks of the same codes at normalised level, T a multiple of the hop
    length, the reference in the voice that spoke them. Blocks come `AHEAD_SECONDS` after the last
    that they need.
    """
    length = _frame_length(sample_rate, hop_length)
    per_code = hop_length // length
    context = (
        -(-round(BACK_SECONDS * sample_rate) // hop_length),
        -(-round(AHEAD_SECONDS * sample_rate) // hop_length),
    )
    # The neighbours of a chunk's frames, from which ramps come, must see as much as its own.
    back, ahead = (max(n * per_code - 2, 1) for n in context)
    weights = np.concatenate([np.hanning(2 * back + 1)[:back], np.hanning(2 * ahead + 1)[ahead:]])
    for chunk in chunking.chunks(
        _paired(blocks, reference), length=chunking.LIVE_LENGTH, context=context, step=hop_length
    ):
        decoded, wanted = _powers(chunk.data, length)
        sums = (_smooth(powers, weights, ahead) + LEAST_SUM for powers in (wanted, decoded))
        slow = np.sqrt(np.divide(*sums)).clip(max=MOST_RAISED)
        gain = slow * _pause_gain(wanted, decoded * slow**2)
        samples = slice(chunk.start * hop_length, chunk.end * hop_length)
        at = (np.arange(chunk.data.shape[1])[samples] + 0.5) / length - 0.5
        ramps = np.interp(at, np.arange(len(gain)), gain)
        yield chunk.data[0, samples] * ramps.astype(np.float32)


def normalised(
    blocks: Iterable[np.ndarray], *, sample_rate: int, hop_length: int, gain: float
) -> Iterator[np.ndarray]:
    """Lead the active level of a decoding to `TARGET_RMS` at once, and keep it from clipping.

    Blocks are (T,) float32 near normalised level, T a multiple of the hop length; they are going to
    be played with `gain`, as `Codes.gain`.
    """
    length = _frame_length(sample_rate, hop_length)
    ceiling = float(np.clip(1 / gain, LEAST_CREST * TARGET_RMS, LARGEST_CEILING))
    n_active, energy = TRUST, TRUST * TARGET_POWER / START_GAIN**2
    before = START_GAIN
    for chunk in chunking.chunks(
        blocks, length=chunking.LIVE_LENGTH, context=(0, 0), step=hop_length
    ):
        powers = frame_powers(chunk.data, sample_rate)
        active = powers[powers > ACTIVE_POWER]
        n_active, energy = n_active + len(active), energy + active.sum()
        level = np.sqrt(n_active * TARGET_POWER / energy)
        after = float(level.clip(START_GAIN / LARGEST_DRIFT, START_GAIN * LARGEST_DRIFT))
        peaks = np.abs(chunk.data).reshape(-1, length).max(axis=1)
        room = np.pad(ceiling / np.maximum(peaks, 1e-9), 1, mode="edge")
        edges = np.linspace(before, after, len(peaks) + 1)
        edges = np.minimum(edges, np.minimum(room[:-1], room[1:]))
        ramps = np.interp(np.arange(len(chunk.data)) / length, np.arange(len(edges)), edges)
        before = after
        yield chunk.data * ramps.astype(np.float32)


def _pause_gain(wanted: np.ndarray, decoded: np.ndarray) -> np.ndarray:
    """(n,) gains up to 1 for the powers of frames: none louder than the reference's pauses."""
    neighbours = np.array([0.25, 0.5, 0.25])
    wanted, decoded = _smooth(wanted, neighbours), _smooth(decoded, neighbours)
    share = np.interp(np.log(np.maximum(wanted, 1e-12)), np.log(PAUSE_POWER), [1.0, 0.0])
    excess = np.maximum(decoded, 1e-12) / np.maximum(wanted, 1e-12)
    gains: np.ndarray = np.maximum(excess, 1) ** (-share / 2)
    return gains


def _smooth(powers: np.ndarray, weights: np.ndarray, ahead: int = 1) -> np.ndarray:
    """(n,) sums over frames, the last `ahead` of the weights for those after each."""
    padded = np.pad(powers, (len(weights) - 1 - ahead, ahead))
    return np.correlate(padded, weights, "valid")


def _paired(first: Iterable[np.ndarray], second: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Two streams of equally many samples as one of (2, T)."""
    others, held = iter(second), np.zeros(0, np.float32)
    for block in first:
        while len(held) < len(block):
            held = np.concatenate([held, next(others)])
        yield np.stack([block, held[: len(block)]])
        held = held[len(block) :]


def _powers(waveforms: np.ndarray, length: int) -> np.ndarray:
    """(C, T) -> (C, T / length)."""
    frames = waveforms.reshape(len(waveforms), -1, length)
    powers: np.ndarray = np.square(frames, dtype=np.float64).mean(axis=-1)
    return powers


def _frame_length(sample_rate: int, hop_length: int) -> int:
    """Samples: the longest equal part of a code's hop that is short enough."""
    longest = round(FRAME_SECONDS * sample_rate)
    lengths = range(longest, longest // 4, -1)
    return next((length for length in lengths if hop_length % length == 0), hop_length)
