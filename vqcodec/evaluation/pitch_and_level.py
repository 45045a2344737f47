"""How high a voice speaks, and how loud it is where the original speaks and where it pauses.

This is what a conversion is asked beside who speaks. Waveforms and errors are as in quality.py.
"""

from __future__ import annotations

import numpy as np

from vqcodec.evaluation.quality import (
    MIN_VOICED_FRAMES,
    ROUNDING_NOISE,
    SAMPLE_RATE,
    UndefinedMetricError,
    check_pair,
    track_pitch,
)

_FRAME_LENGTH, _HOP_LENGTH = SAMPLE_RATE // 40, SAMPLE_RATE // 100  # 25 ms, 10 ms
_MIN_FRAMES = 10
# Below the loudest frames: what is nearer is speech, what is further a pause, the rest neither.
_SPEECH_DB, _PAUSE_DB = 25.0, 30.0
_LOUDEST = 0.95  # quantile: one click shall not decide


def mean_pitch(waveform: np.ndarray) -> float:
    """Mean of log F0 over voiced frames, in semitones above 1 Hz: 12 are twice as high.

    The highest and the lowest tenth are left out, for among them are the octave errors. F0 is found
    every 5 ms by DIO and StoneMask (Morise, Yokomori, Ozawa 2016, WORLD), as in pyworld; without
    ten voiced frames there is no value.
    """
    check_pair(waveform, waveform)
    f0 = track_pitch(waveform).f0
    voiced = np.sort(f0[f0 > 0])
    if len(voiced) < MIN_VOICED_FRAMES:
        raise UndefinedMetricError(f"fewer than {MIN_VOICED_FRAMES} frames are voiced")
    n_left_out = len(voiced) // 10
    return float(12 * np.log2(voiced[n_left_out : len(voiced) - n_left_out]).mean())


def level_in_speech(reference: np.ndarray, decoded: np.ndarray) -> float:
    """Mean difference of level in dB over the frames in which the original speaks, best near 0.

    They are the frames of 25 ms less than 25 dB softer than its loud ones (the 95th of 100), ten or
    more.
    """
    before, after = _levels(reference, decoded)
    return _mean_change(before, after, before > _loud(before) - _SPEECH_DB, "of speech")


def level_in_pauses(reference: np.ndarray, decoded: np.ndarray) -> float:
    """As `level_in_speech` where the original pauses: positive if noise or a hum fills them.

    Pauses are frames more than 30 dB softer than its loud ones; a noisy original has none.
    """
    before, after = _levels(reference, decoded)
    return _mean_change(before, after, before < _loud(before) - _PAUSE_DB, "of pauses")


def _loud(levels: np.ndarray) -> float:
    return float(np.quantile(levels, _LOUDEST))


def _mean_change(before: np.ndarray, after: np.ndarray, chosen: np.ndarray, what: str) -> float:
    if chosen.sum() < _MIN_FRAMES:
        raise UndefinedMetricError(f"fewer than {_MIN_FRAMES} frames {what} in the original")
    return float((after - before)[chosen].mean())


def _levels(reference: np.ndarray, decoded: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(frames,) each in dB, not below the rounding of 16-bit samples."""
    check_pair(reference, decoded)
    return _level(reference), _level(decoded)


def _level(waveform: np.ndarray) -> np.ndarray:
    windows = np.lib.stride_tricks.sliding_window_view(waveform, _FRAME_LENGTH)[::_HOP_LENGTH]
    power = np.square(windows, dtype=np.float64).mean(axis=1)
    level: np.ndarray = 10 * np.log10(np.maximum(power, ROUNDING_NOISE))
    return level
