"""Changes of which it is known what they change move the measures of that, and no others."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import pyworld
from recordings import SAID, SAID_S, said

import vqcodec
from vqcodec.evaluation import quality
from vqcodec.evaluation.quality import METRICS, SAMPLE_RATE
from vqcodec.evaluation.recognition import Recognizer, word_errors

# By how much a measure may differ where what it is of did not change.
NEAR = {
    "speaker similarity": 0.05,
    "F0 correlation": 0.06,
    "F0 error (cents)": 5.0,
    "voicing error": 0.04,
    "STOI": 0.03,
    "ESTOI": 0.06,
    "PESQ-WB": 0.6,
    "mel distance": 0.1,
    "MCD (dB)": 0.6,
    "DNSMOS": 0.3,
    "WER": 0.12,
}


def resynthesized(waveform: np.ndarray, *, pitch: float = 1, formants: float = 1) -> np.ndarray:
    """WORLD's, with F0 and the frequencies of the envelope multiplied."""
    samples = waveform.astype(np.float64)
    f0, times = quality.track_pitch(waveform)
    envelope = pyworld.cheaptrick(samples, f0, times, SAMPLE_RATE)
    noise = pyworld.d4c(samples, f0, times, SAMPLE_RATE)
    bins = np.arange(envelope.shape[1])
    for spectra in (envelope, noise):
        spectra[:] = [np.interp(bins / formants, bins, frame) for frame in spectra]
    made = pyworld.synthesize(f0 * pitch, envelope, noise, SAMPLE_RATE)
    return made[: len(waveform)].astype(np.float32)


def measured(decoded: np.ndarray, reference: np.ndarray) -> dict[str, Any]:
    """All measures, and of nine words the share that is misheard."""
    misheard = word_errors(SAID, decoded, Recognizer())
    return {**quality.measure(reference, decoded).values, "WER": misheard.errors / misheard.words}


@pytest.fixture(scope="module")
def waveform() -> np.ndarray:
    return said()


@pytest.fixture(scope="module")
def itself(waveform: np.ndarray) -> dict[str, Any]:
    return measured(waveform, waveform)


@pytest.fixture(scope="module")
def unchanged(waveform: np.ndarray) -> dict[str, Any]:
    """What WORLD costs by itself."""
    return measured(resynthesized(waveform), waveform)


def moved(values: dict[str, Any], others: dict[str, Any]) -> set[str]:
    return {name for name, room in NEAR.items() if abs(values[name] - others[name]) > room}


def test_every_measure_has_a_tolerance() -> None:
    assert set(NEAR) == {"WER", *(metric.name for metric in METRICS)}


def test_a_recording_is_perfectly_like_itself_at_any_level(
    waveform: np.ndarray, itself: dict[str, Any]
) -> None:
    ones = ("speaker similarity", "F0 correlation", "STOI", "ESTOI")
    best = {**dict.fromkeys(NEAR, 0), **dict.fromkeys(ones, 1), "PESQ-WB": 4.644}
    assert itself == pytest.approx({**best, "DNSMOS": itself["DNSMOS"]}, abs=1e-3)
    assert measured(0.1 * waveform, waveform) == pytest.approx(itself, abs=0.02)


def test_noise_at_10_db_moves_all_but_the_melody(
    waveform: np.ndarray, itself: dict[str, Any]
) -> None:
    hiss = np.random.default_rng(0).standard_normal(len(waveform)) * waveform.std() / 10**0.5
    noisy = measured((waveform + hiss).astype(np.float32), waveform)
    melody = {"F0 correlation", "F0 error (cents)"}
    assert moved(noisy, itself) == set(NEAR) - melody


def test_half_a_semitone_up_moves_the_error_of_f0_alone(
    waveform: np.ndarray, unchanged: dict[str, Any]
) -> None:
    higher = measured(resynthesized(waveform, pitch=2 ** (0.5 / 12)), waveform)
    assert moved(higher, unchanged) == {"F0 error (cents)"}
    assert higher["F0 error (cents)"] == pytest.approx(50, abs=5)


def test_another_voice_moves_similarity_and_spectra_but_neither_melody_nor_words(
    waveform: np.ndarray, unchanged: dict[str, Any]
) -> None:
    other = measured(resynthesized(waveform, pitch=1.35, formants=1.15), waveform)
    spectra = {"STOI", "ESTOI", "PESQ-WB", "mel distance", "MCD (dB)"}
    assert moved(other, unchanged) == {"speaker similarity", "F0 error (cents)", *spectra}
    assert other["F0 error (cents)"] == pytest.approx(1200 * np.log2(1.35), abs=20)


def test_one_generation_moves_all_but_dnsmos_and_melody_and_voice_not_far(
    waveform: np.ndarray, itself: dict[str, Any]
) -> None:
    codec = vqcodec.load("speech-1k", device="cpu")
    speech = waveform[: round(SAID_S * SAMPLE_RATE)]
    decoded = codec.decode(codec.encode(speech, SAMPLE_RATE))
    coded = measured(np.pad(decoded, (0, len(waveform) - len(speech))), waveform)
    assert moved(coded, itself) == set(NEAR) - {"DNSMOS"}
    assert coded["F0 correlation"] > 0.8
    assert coded["F0 error (cents)"] < 50
    assert coded["speaker similarity"] > 0.7  # two people have 0.58
    assert coded["STOI"] > 0.85
