"""Tuned voices, and the benchmark that shows what they are worth."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from recordings import spoken, write
from vqcodec_cli.main import main

import vqcodec
from vqcodec import audio
from vqcodec.errors import SpeakerError
from vqcodec.inference import voice_tuning
from vqcodec.inference.engines.pytorch import TorchEngine
from vqcodec.models.config import ModelConfig
from vqcodec.models.speaker_vector import from_int8
from vqcodec.models.vqvae import VQVAE
from vqcodec.weights.voices import VoicesFile


@pytest.fixture(autouse=True)
def _few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(voice_tuning, "STEPS", 10)


@pytest.fixture
def long(tmp_path: Path) -> Path:
    """Speech of five seconds."""
    return write(tmp_path / "long.wav", spoken("rms"))


def tuned(codec: vqcodec.Codec, path: Path, start: np.ndarray) -> voice_tuning.Tuned:
    recordings = [audio.open_recording(path)]
    return voice_tuning.tune(codec.engine, recordings, start)


def test_tuning_brings_what_it_has_not_heard_nearer_and_changes_the_vector_alone(
    codec: vqcodec.Codec, long: Path
) -> None:
    start = codec.speaker(long).vector
    weights = {name: tensor.clone() for name, tensor in codec.model.state_dict().items()}
    shares: list[float] = []
    recordings = [audio.open_recording(long)]
    found = voice_tuning.tune(codec.engine, recordings, start, on_progress=shares.append)
    assert found.after < found.before
    assert found.vector.dtype == np.int8
    assert not np.array_equal(found.vector, start)
    assert np.sqrt(np.mean(from_int8(found.vector) ** 2)) == pytest.approx(1, abs=0.01)
    assert all(torch.equal(weights[k], v) for k, v in codec.model.state_dict().items())
    assert shares == sorted(shares)
    assert shares[-1] == 1


def test_tuning_again_gives_the_same_voice(codec: vqcodec.Codec, long: Path) -> None:
    start = codec.speaker(long).vector
    voices = [tuned(codec, long, start).vector for _ in range(2)]
    assert np.array_equal(voices[0], voices[1])


def test_a_voice_that_tuning_made_worse_is_not_kept(
    codec: vqcodec.Codec, long: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = codec.speaker(long).vector
    # Of the two vectors that are judged, the refined one alone has a gradient.
    monkeypatch.setattr(
        voice_tuning._Loss, "mean", lambda self, vector, rows: 1.0 + vector.requires_grad
    )
    assert tuned(codec, long, start) == (pytest.approx(start), 1.0, 1.0)


def test_two_seconds_are_needed(codec: vqcodec.Codec, long: Path, tmp_path: Path) -> None:
    short = write(tmp_path / "short.wav", spoken("rms", 0.0, 1.9))
    start = codec.speaker(long).vector
    with pytest.raises(SpeakerError, match=r"short\.wav: tuning needs two seconds of speech"):
        tuned(codec, short, start)
    # The two seconds may lie in two recordings.
    recordings = [audio.open_recording(short)] * 2
    assert voice_tuning.tune(codec.engine, recordings, start).vector.shape == (64,)


def test_a_model_without_the_fast_decoder_cannot_tune(codec: vqcodec.Codec, long: Path) -> None:
    config = {"encoder": {"channels": 16, "code_channels": 32, "n_filters": 16}, "fast": None}
    model = VQVAE(ModelConfig.model_validate(config)).eval()
    start = np.zeros(64, np.int8)
    with pytest.raises(SpeakerError, match="no fast decoder to tune a voice by"):
        voice_tuning.tune(TorchEngine(model), [audio.open_recording(long)], start)


def test_enrolling_with_tuning(
    codec: vqcodec.Codec, long: Path, tiny_model: Path, tmp_path: Path
) -> None:
    plain = codec.enroll("plain", [long]).vector
    voice = codec.enroll("eve", [long], tune=True)
    assert codec.voices["eve"] is voice
    assert np.array_equal(voice.vector, tuned(codec, long, plain).vector)
    voices = tmp_path / "voices.json"
    command = ["enroll", "eve", long, "--tune", "--model", tiny_model, "--voices", voices]
    assert main([str(word) for word in command]) == 0
    kept = VoicesFile(voices).voices(codec.fingerprint)["eve"]
    assert np.array_equal(kept.vector, voice.vector)
