"""Decoded recordings without the delay of their codec. Needs the extra `eval`."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from vqcodec.evaluation.quality import SAMPLE_RATE
from vqcodec.extras import library

MAX_LAG_MS = 100
_HOP_LENGTH, _N_FFT = SAMPLE_RATE // 1000, 512  # 1 ms, 32 ms


class Aligned(NamedTuple):
    """A decoded waveform without the delay of its codec.

    Attributes:
        waveform: (T,), T as in the reference.
        lag: samples by which it came late, a multiple of 1 ms; negative if early.
    """

    waveform: np.ndarray
    lag: int


def align(reference: np.ndarray, decoded: np.ndarray) -> Aligned:
    """Remove a delay of at most 100 ms from what was decoded (any,), cut to its reference (T,).

    The lag is the peak of the cross-correlation of log-mel spectrograms, 1 ms to a frame. (That of
    the waveforms has its peak anywhere within pitch periods of the truth for codecs that keep no
    phase, such as Codec 2 or a sampled WaveNet.)
    """
    length = max(len(reference), len(decoded), _N_FFT)
    original, late = (
        _mel_contours(np.pad(waveform, (0, length - len(waveform))))
        for waveform in (reference, decoded)
    )
    n_frames = original.shape[1]

    def correlation(lag: int) -> float:
        overlap = n_frames - abs(lag)
        first = original[:, max(0, -lag) :][:, :overlap]
        second = late[:, max(0, lag) :][:, :overlap]
        return float(np.vdot(first, second))

    # The shortest lag comes first and wins a tie: silence has none.
    lags = sorted(range(-min(MAX_LAG_MS, n_frames - 1), min(MAX_LAG_MS, n_frames - 1) + 1), key=abs)
    lag = max(lags, key=correlation) * _HOP_LENGTH
    shifted = decoded[lag:] if lag >= 0 else np.pad(decoded, (-lag, 0))
    shifted = shifted[: len(reference)]
    return Aligned(np.pad(shifted, (0, len(reference) - len(shifted))), lag)


def _mel_contours(waveform: np.ndarray) -> np.ndarray:
    """Log-mel bands that every codec keeps, each about its mean: (40, frames), 1 ms to a frame."""
    mel = library("librosa").feature.melspectrogram(
        y=waveform.astype(np.float32),
        sr=SAMPLE_RATE,
        n_fft=_N_FFT,
        hop_length=_HOP_LENGTH,
        n_mels=40,
        fmin=200,
        fmax=3500,
        power=1,
    )
    log_mel = np.log(np.maximum(mel, max(1e-3 * mel.max(), 1e-10)))
    contours: np.ndarray = log_mel - log_mel.mean(axis=1, keepdims=True)
    return contours
