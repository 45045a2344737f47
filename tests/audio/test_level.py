"""The level of speech that recordings are normalised by."""

from __future__ import annotations

import numpy as np
import pytest
from sounds import decibels, gain, noise, tone

from vqcodec.audio.level import TARGET_RMS


def speech_like(seconds: int = 3) -> np.ndarray:
    n_samples = 16000 * seconds
    return noise(n_samples) * (0.6 + 0.4 * np.sin(np.arange(n_samples) / 2000)).astype("f4")


@pytest.mark.parametrize("factor", [2.0, 0.5, 0.01, 7.0])
def test_gain_follows_the_scale_of_the_input(factor):
    assert gain(np.float32(factor) * speech_like()) == pytest.approx(
        factor * gain(speech_like()), rel=1e-5
    )


def test_gain_is_the_level_over_the_target_and_exact_in_float32():
    value = gain(tone(16001, 16000, level=0.12 * np.sqrt(2)))
    assert value == pytest.approx(2, rel=1e-2)
    assert value == float(np.float32(value))


def test_gain_normalises_a_recording_at_minus_60_dbfs():
    quiet = tone(48000, 48000, level=1e-3)
    value = gain(quiet, 48000)
    assert np.sqrt(np.mean((quiet / value) ** 2)) == pytest.approx(TARGET_RMS, rel=1e-2)


@pytest.mark.parametrize("samples", [np.zeros(50_000), np.zeros(1), 3e-5 * np.ones(9000)])
def test_gain_of_silence_is_one(samples):
    assert gain(samples) == 1.0


@pytest.mark.parametrize("floor", [0.0, 1e-3])
def test_gain_ignores_silence_around_the_speech(floor):
    pause = floor * noise(16000 * 12, seed=1)
    padded = np.concatenate([pause, speech_like(), pause])
    assert abs(decibels(gain(padded) / gain(speech_like()))) < 0.5


def test_gain_counts_a_short_last_frame_by_its_own_length():
    assert gain(np.full(321, 0.06)) == pytest.approx(1, rel=1e-6)
    assert gain(np.full(1, 0.06)) == pytest.approx(1, rel=1e-6)
