"""The levels that the WaveNet predicts, and the waveform that they stand for: knows no torch.

Reference: the mu-law of ITU-T G.711 with mu = 255, as the curve and not in its segments.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from vqcodec.compilation import compiled
from vqcodec.models.filterbank import filters

N_LEVELS = 256
SILENCE = 128  # the level of sample 0.0
# Level-normalised speech has an RMS of .06 and peaks below 1; pre-emphasis lowers it by as much
# again, and mu-law spends its levels on the middle.
OUTPUT_GAIN = 2.0
# Of a parabola added to logits over [-1, 1]: alone, a deviation of 9 levels. What is as sure of
# itself as it likes, is wrong at too high a price.
SHARPEST = 100.0

_COMPRESSED = 2 * np.arange(N_LEVELS) / (N_LEVELS - 1) - 1
SAMPLES = (
    np.sign(_COMPRESSED) * np.expm1(np.abs(_COMPRESSED) * np.log(N_LEVELS)) / (N_LEVELS - 1)
).astype(np.float32)
"""What every level stands for, in [-1, 1]."""


class LevelDecoder:
    """Levels to the waveform that they stand for, block by block: the same bits however cut.

    Inverse of `WaveNet.to_levels`, up to the rounding of mu-law, for B waveforms side by side and M
    bands of models/filterbank.py. It begins after silence.
    """

    def __init__(self, n_rows: int, n_bands: int, pre_emphasis: float) -> None:
        # The taps of a phase in a row: what of each earlier step falls on the sample.
        taps = filters(n_bands)[1] / np.float32(OUTPUT_GAIN)
        n_steps = -(-taps.shape[1] // n_bands)
        padded = np.pad(taps, ((0, 0), (0, n_steps * n_bands - taps.shape[1])))
        self.taps = np.ascontiguousarray(
            padded.reshape(n_bands, n_steps, n_bands).transpose(2, 1, 0)
        )
        self.pre_emphasis = np.float32(pre_emphasis)
        self.last = np.zeros(n_rows, np.float32)
        self.before = np.full((n_rows, n_steps - 1, n_bands), SILENCE)

    def __call__(self, levels: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """Levels (B, n, M) of steps that follow -> their waveform (B, n * M)."""
        steps = np.concatenate([self.before, levels], axis=1)
        self.before = steps[:, levels.shape[1] :]
        waveform: npt.NDArray[np.float32] = _synthesize(
            SAMPLES[steps], self.taps, self.last, self.pre_emphasis
        )
        return waveform


@compiled
def _synthesize(bands: Any, taps: Any, last: Any, coefficient: np.float32) -> Any:
    """(B, S + n, M) -> (B, n * M): `taps` (M, S + 1, M) summed, then y[t] = x[t] + a y[t-1]."""
    n_bands, n_taps, _ = taps.shape
    n_steps = bands.shape[1] - n_taps + 1
    waveform = np.empty((len(bands), n_steps * n_bands), np.float32)
    for row in range(len(bands)):
        before = last[row]
        for step in range(n_steps):
            for phase in range(n_bands):
                total = np.float32(0)
                for tap in range(n_taps):
                    for band in range(n_bands):
                        sample = bands[row, step + n_taps - 1 - tap, band]
                        total += taps[phase, tap, band] * sample
                before = total + coefficient * before
                waveform[row, step * n_bands + phase] = before
        last[row] = before
    return waveform
