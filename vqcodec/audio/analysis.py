"""What a reference recording tells of who speaks in it: for how long, and how high.

Needs NumPy alone, so that voices can be described where torch is not wanted. Recordings are of any
rate, and come with their gain; those that cannot be read raise AudioError.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np

from vqcodec.audio.level import ABSOLUTE_GATE, TARGET_RMS, frame_powers
from vqcodec.audio.recording import Recording

# A speaker encoder hears so many pieces of so many seconds of a recording, and no more.
REFERENCE_SECONDS, MAX_REFERENCES = 4.0, 16

_ACTIVE = 10**-1.59  # 15.9 dB below the active level: the margin of ITU-T P.56
_PITCH_RATE = 4000  # Hz: what is periodic in speech lies below half of it
_LOWEST, _HIGHEST = 60.0, 500.0  # Hz
_WINDOW_S, _HOP_S = 0.032, 0.010
_PERIODIC = 0.2  # normalised difference, of 1 where nothing repeats itself


def seconds_of_sound(recording: Recording, gain: float) -> np.ndarray:
    """Seconds of sound (n,) in each piece that a speaker encoder hears of a recording.

    Sound are 20 ms frames above -80 dBFS and less than 15.9 dB below the active level.
    """
    rate, threshold = recording.sample_rate, _threshold(gain)
    return np.array(
        [
            (frame_powers(piece, rate) > threshold).mean() * len(piece) / rate
            for piece in _pieces(recording, rate, gain)
        ]
    )


def pitches(recording: Recording, gain: float) -> np.ndarray:
    """Fundamental frequencies (n,), 60 to 500 Hz, of what a speaker encoder hears.

    They are those of the frames, every 10 ms, that are voiced by YIN (de Cheveigné and Kawahara
    2002, steps 1 to 5).
    """
    pieces = _pieces(recording, _PITCH_RATE, gain)
    return np.concatenate([_pitches(piece, _threshold(gain)) for piece in pieces])


def _threshold(gain: float) -> float:
    """Mean square above which a frame is sound."""
    return max(ABSOLUTE_GATE, (gain * TARGET_RMS) ** 2 * _ACTIVE)


def _pieces(recording: Recording, sample_rate: int, gain: float) -> Iterator[np.ndarray]:
    length = round(REFERENCE_SECONDS * sample_rate)
    return itertools.islice(recording.speech(sample_rate, length, gain), MAX_REFERENCES)


def _pitches(samples: np.ndarray, threshold: float) -> np.ndarray:
    """Of the voiced frames of samples (T,) at `_PITCH_RATE`."""
    window, hop = round(_WINDOW_S * _PITCH_RATE), round(_HOP_S * _PITCH_RATE)
    shortest, longest = int(_PITCH_RATE / _HIGHEST), int(_PITCH_RATE / _LOWEST) + 1
    length = window + longest
    if len(samples) < length:
        return np.zeros(0)
    frames = np.lib.stride_tricks.sliding_window_view(samples.astype(np.float64), length)[::hop]
    n_fft = 1 << (length + window).bit_length()
    heads, wholes = np.fft.rfft(frames[:, :window], n_fft), np.fft.rfft(frames, n_fft)
    correlation = np.fft.irfft(wholes * heads.conj(), n_fft)[:, : longest + 1]
    energy = np.cumsum(np.pad(np.square(frames), ((0, 0), (1, 0))), axis=1)
    energies = energy[:, window : length + 1] - energy[:, : longest + 1]
    # Of the frame and itself so many samples later, summed over the window.
    difference = np.maximum(energies[:, :1] + energies - 2 * correlation, 0)
    lags = np.arange(1, longest + 1)
    normalised = difference[:, 1:] * lags / (np.cumsum(difference[:, 1:], axis=1) + 1e-12)
    before, at, after = (normalised[:, shortest - 1 + k : longest - 1 + k] for k in (-1, 0, 1))
    is_dip = (at < _PERIODIC) & (at <= before) & (at < after)
    is_voiced = is_dip.any(axis=1) & (energies[:, 0] / window > threshold)
    lag = is_dip.argmax(axis=1)[is_voiced] + shortest
    before, at, after = (difference[is_voiced, lag + k] for k in (-1, 0, 1))
    # The vertex of the parabola through three differences.
    vertex = (before - after) / (2 * (before - 2 * at + after) + 1e-12)
    return _PITCH_RATE / (lag + vertex.clip(-1, 1))
