"""Disguises move the pitch and the formants, each by what was asked, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest
import pyworld
import torch
from scipy import signal

from vqcodec.audio import load
from vqcodec.data import perturbation

RATE = 16000


def perturb(waveform: np.ndarray, *, semitones: float, formant_ratio: float) -> np.ndarray:
    """One waveform, which must not depend on its company."""
    batch = torch.from_numpy(np.stack([waveform, waveform[::-1]]))
    first = perturbation.perturb(
        batch,
        RATE,
        semitones=torch.tensor([semitones, 1.0]),
        formant_ratio=torch.tensor([formant_ratio, 0.9]),
    )
    assert first.shape == batch.shape
    return first[0].numpy()


def vowel(excitation: np.ndarray, formants: tuple[float, ...]) -> np.ndarray:
    """Resonances, 150 Hz wide, over an excitation."""
    for formant in formants:
        radius, angle = np.exp(-np.pi * 150 / RATE), 2 * np.pi * formant / RATE
        excitation = signal.lfilter([1], [1, -2 * radius * np.cos(angle), radius**2], excitation)
    return (0.06 * excitation / excitation.std()).astype(np.float32)


def voiced(pitch: float, n_samples: int = RATE) -> np.ndarray:
    """Every harmonic of a pitch below 7 kHz, through the formants of an open vowel."""
    time = np.arange(n_samples) / RATE
    harmonics = np.arange(1, int(7000 / pitch))[:, None]
    return vowel(np.cos(2 * np.pi * pitch * harmonics * time).sum(0), (700.0, 1800.0))


def whispered(formant: float) -> np.ndarray:
    return vowel(np.random.default_rng(0).standard_normal(2 * RATE), (formant,))


def pitch_of(waveform: np.ndarray, near: float) -> float:
    """By autocorrelation, to the nearest sample, within a third of an octave of `near`."""
    middle = waveform[2000:-2000] - waveform.mean()
    correlation = signal.correlate(middle, middle, method="fft")[len(middle) - 1 :]
    lags = np.arange(int(RATE / near / 1.26), int(RATE / near * 1.26))
    return RATE / lags[np.argmax(correlation[lags])]


def peak_of(waveform: np.ndarray) -> float:
    """Centre of the band that a single resonance makes, in Hz."""
    frequency, power = signal.welch(waveform, RATE, nperseg=1024)
    band = slice(*np.searchsorted(frequency, (300, 3000)))
    strong = power[band] * (power[band] > 0.3 * power[band].max())
    return float((frequency[band] * strong).sum() / strong.sum())


@pytest.mark.parametrize("n_samples", [1, 700, 1024, 5001])
def test_length_and_level_are_kept(n_samples):
    waveform = voiced(130, 8000)[100 : 100 + n_samples]
    perturbed = perturb(waveform, semitones=3, formant_ratio=0.9)
    assert perturbed.shape == (n_samples,)
    assert perturbed.dtype == np.float32
    assert np.isfinite(perturbed).all()
    assert np.sqrt(np.mean(perturbed**2)) == pytest.approx(np.sqrt(np.mean(waveform**2)), rel=1e-3)


def test_silence_stays_silent():
    assert not perturb(np.zeros(3000, np.float32), semitones=2, formant_ratio=1.1).any()


def test_no_perturbation_is_hardly_one():
    waveform = voiced(130)
    perturbed = perturb(waveform, semitones=0, formant_ratio=1)
    np.testing.assert_allclose(perturbed, waveform, atol=1e-3)


@pytest.mark.parametrize("semitones", [-5, -2, 3, 7])
def test_the_pitch_moves_by_the_semitones(semitones):
    perturbed = perturb(voiced(150), semitones=semitones, formant_ratio=1)
    wanted = 150 * 2 ** (semitones / 12)
    assert pitch_of(perturbed, wanted) == pytest.approx(wanted, rel=0.015)


def test_formants_alone_leave_the_pitch():
    perturbed = perturb(voiced(150), semitones=0, formant_ratio=1.2)
    assert pitch_of(perturbed, 150) == pytest.approx(150, rel=0.015)


@pytest.mark.parametrize("ratio", [0.8, 1.0, 1.25])
@pytest.mark.parametrize("semitones", [-4, 0, 4])
def test_the_formant_moves_by_the_ratio_and_not_with_the_pitch(semitones, ratio):
    perturbed = perturb(whispered(1200), semitones=semitones, formant_ratio=ratio)
    assert peak_of(perturbed) == pytest.approx(1200 * ratio, rel=0.06)


@pytest.mark.parametrize("semitones", [-4, 4])
def test_speech_keeps_its_timing_and_intonation(speech, semitones):
    waveform = load(speech, RATE)
    perturbed = perturb(waveform, semitones=semitones, formant_ratio=1)
    before, after = (
        pyworld.harvest(x.astype(np.float64), RATE, f0_floor=60, f0_ceil=500)[0]
        for x in (waveform, perturbed)
    )
    voiced_in_both = (before > 0) & (after > 0)
    assert voiced_in_both.sum() > 0.8 * (before > 0).sum()
    shift = 12 * np.log2(after[voiced_in_both] / before[voiced_in_both])
    assert np.median(np.abs(shift - semitones)) < 0.3
    # Loud where it was loud: no frame of 20 ms wanders.
    loudness = [
        np.log(np.square(x[: len(x) // 320 * 320]).reshape(-1, 320).mean(1) + 1e-6)
        for x in (waveform, perturbed)
    ]
    assert np.corrcoef(*loudness)[0, 1] > 0.9
