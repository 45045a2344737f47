"""The levels that the WaveNet predicts, and the waveform that they stand for: knows no torch.

Reference: the mu-law of ITU-T G.711 with mu = 255, as the curve and not in its segments.
"""

from __future__ import annotations

import numpy as np

from vqcodec.compilation import compiled

N_LEVELS = 256
SILENCE = 128  # the level of sample 0.0
# Level-normalised speech has an RMS of .06 and peaks below 1; pre-emphasis lowers it by as much
# again, and mu-law spends its levels on the middle.
OUTPUT_GAIN = 2.0

_COMPRESSED = 2 * np.arange(N_LEVELS) / (N_LEVELS - 1) - 1
SAMPLES = (
    np.sign(_COMPRESSED) * np.expm1(np.abs(_COMPRESSED) * np.log(N_LEVELS)) / (N_LEVELS - 1)
).astype(np.float32)
"""What every level stands for, in [-1, 1]."""


def to_waveform(levels: np.ndarray, last: np.ndarray, pre_emphasis: float) -> np.ndarray:
    """Inverse of `WaveNet.to_levels`, up to the rounding of mu-law.

    Args:
        levels: (B, T) integers in [0, 256), the continuation of an earlier waveform.
        last: (B,) float32 the last sample of that waveform; zeros at the start.
        pre_emphasis: coefficient of the filter that the samples have passed.

    Returns:
        (B, T) float32.
    """
    waveform: np.ndarray = _de_emphasize(
        SAMPLES[levels] / np.float32(OUTPUT_GAIN), last, np.float32(pre_emphasis)
    )
    return waveform


@compiled
def _de_emphasize(emphasized: np.ndarray, last: np.ndarray, coefficient: np.float32) -> np.ndarray:
    """Samples (B, T) of y[t] = x[t] + a y[t-1], one by one: the same bits however they are cut."""
    waveform = np.empty_like(emphasized)
    for row in range(len(emphasized)):
        before = last[row]
        for time in range(emphasized.shape[1]):
            before = emphasized[row, time] + coefficient * before
            waveform[row, time] = before
    return waveform
