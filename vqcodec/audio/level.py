"""How loud somebody speaks in a recording."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from vqcodec.audio.offset import frame_length, regroup

TARGET_RMS = 0.06
"""Active speech level of a normalised recording, full scale being 1."""

ABSOLUTE_GATE = 1e-8  # mean square: -80 dB full scale
_RELATIVE_GATE = 0.1  # 10 dB below the mean, ITU-R BS.1770-5, annex 1
# A level that drift changes by less is left as it is, with the codes of the recording.
_AUDIBLE_DRIFT = 0.01


def gain_of(blocks: Iterable[np.ndarray], sample_rate: int) -> float:
    """Measure the active speech level, as the factor that normalisation divides by.

    The level is the root mean square of the 20 ms frames that lie above -80 dBFS and above 10 dB
    under the mean of those: the two gates of ITU-R BS.1770-5, annex 1, without its frequency
    weighting. An offset and drift below some 10 Hz are left out where they would change it by 1 %
    or more.

    Args:
        blocks: Float32 blocks of shape (T,), T free, with one sample or more in all.
        sample_rate: Of the blocks, in Hz.

    Returns:
        Level / ``TARGET_RMS``, a positive value that float32 holds exactly; 1.0 if no frame lies
            above -80 dBFS.
    """
    seconds = regroup(blocks, 50 * frame_length(sample_rate))
    frames = [(frame_powers(one, sample_rate), _frame_means(one, sample_rate)) for one in seconds]
    powers, means = map(np.concatenate, zip(*frames, strict=True))
    level, steady = _active_level(powers), _active_level(powers_without_drift(powers, means))
    if not steady:
        return 1.0
    if abs(level - steady) > _AUDIBLE_DRIFT * steady:
        level = steady
    return float(np.float32(level / TARGET_RMS))


def frame_powers(samples: np.ndarray, sample_rate: int) -> np.ndarray:
    """Mean square of every 20 ms of samples (T,), T > 0; the last frame may be shorter."""
    return _frame_means(np.square(samples, dtype=np.float64), sample_rate)


def _frame_means(samples: np.ndarray, sample_rate: int) -> np.ndarray:
    starts = np.arange(0, len(samples), frame_length(sample_rate))
    sums = np.add.reduceat(samples, starts, dtype=np.float64)
    return sums / np.diff(starts, append=len(samples))


def powers_without_drift(powers: np.ndarray, means: np.ndarray) -> np.ndarray:
    """Frame powers (N,) without what is slower than some 10 Hz in the means of the frames, (N,)."""
    window = np.hanning(11)[1:-1]
    count = np.convolve(np.ones(len(means)), window)[4:-4]
    drift = np.convolve(means, window)[4:-4] / count
    return powers - np.square(means) + np.square(means - drift)


def _active_level(powers: np.ndarray) -> float:
    """Root of the mean of the frame powers above both gates; 0 if there are none."""
    powers = powers[powers > ABSOLUTE_GATE]
    if not powers.size:
        return 0.0
    return float(np.sqrt(powers[powers > _RELATIVE_GATE * powers.mean()].mean()))
