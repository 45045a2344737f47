"""Harmonics of the pitch: their frequency, and that in training they follow the recording."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from vqcodec.models.harmonics import (
    followed_phase,
    harmonic_waves,
    pitch_frequency,
    summed_phase,
)
from vqcodec.models.pitch import UNVOICED, PitchStream


def test_the_frequency_is_that_of_the_contour():
    hertz = np.array([[60.0, 131.0, 1.0, 440.0], [1.0, 1.0, 200.0, 90.0]], np.float32)
    contour = np.where(hertz > 1, np.log(hertz), UNVOICED).astype(np.float32)
    told = torch.from_numpy(PitchStream.features(contour))
    expected = torch.from_numpy(np.where(hertz > 1, hertz / 4000, 0))
    torch.testing.assert_close(pitch_frequency(told, 4), expected, rtol=1e-4, atol=0)
    # A condition without the stream takes it for zeros: nothing is voiced.
    assert not pitch_frequency(torch.zeros_like(told), 4).any()


@pytest.mark.parametrize("step_length", [1, 4])
@pytest.mark.parametrize("hertz", [70.0, 129.0, 310.0])
def test_it_follows_a_fundamental_that_the_contour_misses_a_little(hertz, step_length):
    time = torch.arange(8192) / 16000
    waveform = sum(0.8**k * torch.cos(2 * math.pi * k * (hertz * time - 0.3)) for k in range(1, 9))
    frequency = torch.full((1, 8192 // step_length), 1.01 * hertz * step_length / 16000)
    followed = followed_phase(summed_phase(frequency), waveform[None])[0]
    wrong = (followed - (hertz * time[::step_length] - 0.3) + 0.5).remainder(1) - 0.5
    inner = slice(400 // step_length, -400 // step_length)
    assert wrong[inner].abs().max() < 0.03


def test_waves_are_sines_where_it_is_voiced():
    frequency = torch.tensor([[0.0, 0.0, 0.02, 0.02, 0.02, 0.0]])
    phase = summed_phase(frequency)
    waves = harmonic_waves(phase, frequency, 3)
    assert waves.shape == (1, 6, 6)
    angle = 2 * math.pi * 0.02 * np.arange(1, 4)
    for number in (1, 2, 3):
        np.testing.assert_allclose(waves[0, 2:5, number - 1], np.cos(number * angle), atol=1e-5)
        np.testing.assert_allclose(waves[0, 2:5, number + 2], np.sin(number * angle), atol=1e-5)
    assert not waves[0, [0, 1, 5]].any()


def test_the_phase_of_a_long_recording_stays_exact():
    frequency = torch.full((1, 4_000_000), 0.0312501)
    steps = torch.arange(1, 4_000_001, dtype=torch.float64)
    expected = (steps * frequency[0, 0].double()).remainder(1)
    wrong = (summed_phase(frequency)[0] - expected + 0.5).remainder(1) - 0.5
    assert wrong.abs().max() < 1e-4
