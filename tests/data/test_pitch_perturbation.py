from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from vqcodec.data.data_config import PerturbationConfig
from vqcodec.data.perturbation import n_frames, perturb
from vqcodec.data.pitch_perturbation import equalizers, pitch_shifts
from vqcodec.models.pitch import CENT

N_CODES, N_FRAMES = 128, 65


def generators(n: int = 200) -> list[np.random.Generator]:
    return [np.random.default_rng(seed) for seed in range(n)]


def shifts(contour: np.ndarray, **settings: object) -> np.ndarray:
    config = PerturbationConfig.model_validate(settings)
    contours = np.tile(contour.astype(np.float32), (200, 1))
    return pitch_shifts(contours, np.full(200, 2.0), config, generators(), N_FRAMES)


MELODY = math.log(120) + 300 * CENT * np.sin(np.linspace(0, 12, N_CODES))


def test_with_nothing_asked_for_the_shift_is_the_one_that_was_drawn() -> None:
    assert shifts(MELODY) == pytest.approx(np.full((200, N_FRAMES), 2.0))


def test_a_mean_is_given_whatever_the_voice() -> None:
    for contour in (MELODY, MELODY + 0.5):
        hertz = 120 * 2 ** ((shifts(contour, mean_hz=(120.0, 180.0)).mean(1)) / 12)
        hertz *= np.exp(contour.mean() - math.log(120))
        assert 118 < hertz.min() < 125
        assert 172 < hertz.max() < 182


def test_a_scale_of_0_makes_a_melody_flat() -> None:
    voiced = np.where(np.arange(N_CODES) % 40 < 25, MELODY, 0.0)
    told = shifts(voiced, contour_scale=(0.0, 0.0))
    at = np.arange(N_FRAMES) * (N_CODES / N_FRAMES)
    melody = np.interp(at, np.arange(N_CODES), MELODY) / (100 * CENT)
    heard = (told[0] + melody)[at % 40 < 24]
    assert np.ptp(heard) < 0.2


def test_a_drift_has_the_size_that_is_asked_for_and_stays_in_range() -> None:
    drift = shifts(MELODY, drift_semitones=1.5) - 2
    assert np.sqrt(np.square(drift).mean()) == pytest.approx(1.5, rel=0.15)
    assert np.abs(shifts(MELODY, drift_semitones=20.0)).max() <= 14
    assert np.isfinite(shifts(np.zeros(N_CODES), mean_hz=(100.0, 200.0))).all()


def test_a_colour_has_the_size_that_is_asked_for() -> None:
    assert equalizers(PerturbationConfig(), generators()) is None
    weights = equalizers(PerturbationConfig(equalizer_db=3.0), generators())
    cosines = np.cos(np.pi * np.outer(np.arange(1, 7), np.linspace(0, 1, 500)))
    decibels = 20 / math.log(10) * weights @ cosines
    assert np.sqrt(np.square(decibels).mean()) == pytest.approx(3.0, rel=0.15)


def test_a_shift_that_changes_with_time_moves_pitch_as_told() -> None:
    rate, n = 16000, 16384
    time = torch.arange(n) / rate
    tone = 0.05 * sum((2 * math.pi * 150 * k * time).sin() / k for k in range(1, 8))
    half = n_frames(n) // 2
    semitones = torch.cat([torch.zeros(1, half), torch.full((1, n_frames(n) - half), 7.0)], 1)
    changed = perturb(tone[None], rate, semitones=semitones, formant_ratio=torch.ones(1))[0]
    for part, expected in ((changed[2048:7168], 150.0), (changed[-7168:-2048], 224.7)):
        spectrum = torch.fft.rfft(part * torch.hann_window(len(part)), n=1 << 16).abs()
        low = spectrum[: round(300 * (1 << 16) / rate)]
        low[: round(80 * (1 << 16) / rate)] = 0
        assert float(low.argmax()) * rate / (1 << 16) == pytest.approx(expected, rel=0.02)
