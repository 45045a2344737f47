"""Music and noise are told from speech, for the codes keep little of them."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import soundfile

import vqcodec
from vqcodec.errors import RecordingWarning
from vqcodec.weights.registry import packaged

RATE = 16_000
SAMPLES = Path(__file__).parents[2] / "samples"


@pytest.fixture(scope="module", params=sorted(packaged()))
def codec(request: pytest.FixtureRequest) -> vqcodec.Codec:
    return vqcodec.load(request.param, device="cpu")


def chords(seconds: float) -> np.ndarray:
    """A triad every half second."""
    time = np.arange(int(seconds * RATE)) / RATE
    since = time % 0.5
    root = 220 * 2 ** (np.array([0, 5, -2, 7, 3, -4])[(time // 0.5).astype(int) % 6] / 12)
    notes = [root * 2 ** (step / 12) * part for step in (0, 4, 7, 12) for part in range(1, 6)]
    tones = [np.sin(2 * np.pi * note * since) / (1 + n % 5) for n, note in enumerate(notes)]
    return (0.05 * np.exp(-3 * since) * np.sum(tones, 0)).astype(np.float32)


def test_music_is_warned_of(codec, tmp_path):
    soundfile.write(tmp_path / "song.wav", chords(6), RATE)
    with pytest.warns(RecordingWarning, match=r"song\.wav: does not sound like speech"):
        codec.encode(tmp_path / "song.wav")


@pytest.mark.parametrize("name", ["rms", "slt", "espeak"])
def test_speech_is_not(codec, name):
    samples, rate = soundfile.read(SAMPLES / f"{name}.wav", dtype="float32")
    with warnings.catch_warnings(action="error", category=RecordingWarning):
        codec.encode(np.concatenate([samples, samples])[: 6 * rate], rate)


def test_of_a_moment_nothing_is_said(codec):
    with warnings.catch_warnings(action="error", category=RecordingWarning):
        codec.encode(chords(1), RATE)
