"""The filter bank: what it divides it puts together again, without delay."""

from __future__ import annotations

import numpy as np
import pytest

from vqcodec.models.filterbank import filters

N_BANDS = 4


def divided(waveform: np.ndarray) -> np.ndarray:
    """(T,) -> (M, T / M) as `filters` defines it."""
    analysis, _ = filters(N_BANDS)
    ahead = np.pad(waveform, (0, analysis.shape[1] - 1))
    windows = np.lib.stride_tricks.sliding_window_view(ahead, analysis.shape[1])[::N_BANDS]
    return analysis.astype(np.float64) @ windows.T


def together(bands: np.ndarray) -> np.ndarray:
    """The way back."""
    _, synthesis = filters(N_BANDS)
    waveform = np.zeros(bands.shape[1] * N_BANDS + synthesis.shape[1])
    for step, samples in enumerate(bands.T):
        start = step * N_BANDS
        waveform[start : start + synthesis.shape[1]] += samples @ synthesis
    return waveform[: bands.shape[1] * N_BANDS]


def test_nothing_is_lost_and_nothing_is_late() -> None:
    waveform = np.random.default_rng(0).standard_normal(4000)
    back = together(divided(waveform))
    kept = slice(64, None)  # before which steps are missing that lie before the first
    error = np.square(back - waveform)[kept].mean() / np.square(waveform)[kept].mean()
    assert 10 * np.log10(error) < -55


@pytest.mark.parametrize("band", range(N_BANDS))
def test_a_tone_is_in_its_own_band(band: int) -> None:
    frequency = (band + 0.5) / N_BANDS / 2  # of a sample rate of 1
    bands = divided(np.sin(2 * np.pi * frequency * np.arange(4000)))
    power = np.square(bands)[:, 20:-20].mean(axis=1)
    assert 10 * np.log10(np.delete(power, band).max() / power[band]) < -60


def test_one_band_is_the_waveform() -> None:
    assert [side.tolist() for side in filters(1)] == [[[1.0]], [[1.0]]]
