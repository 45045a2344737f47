"""Tuned voices, and the benchmark that shows what they are worth."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import Run
from recordings import spoken, write
from vqcodec_cli.main import main

import vqcodec
from vqcodec import audio
from vqcodec.errors import SpeakerError
from vqcodec.inference import voice_tuning
from vqcodec.models.config import ModelConfig
from vqcodec.models.speaker import from_int8
from vqcodec.models.vqvae import VQVAE
from vqcodec.weights.voices import VoicesFile


@pytest.fixture
def codec(tiny_model: Path) -> vqcodec.Codec:
    return vqcodec.load(tiny_model, device="cpu")


@pytest.fixture(autouse=True)
def _few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(voice_tuning, "STEPS", 10)


@pytest.fixture
def long(tmp_path: Path) -> Path:
    """Speech of five seconds."""
    return write(tmp_path / "long.wav", spoken("rms"))


def tuned(codec: vqcodec.Codec, path: Path, start: np.ndarray) -> voice_tuning.Tuned:
    recordings = [audio.open_recording(path)]
    return voice_tuning.tune(codec.model, recordings, start, device=codec.device)


def test_tuning_brings_what_it_has_not_heard_nearer_and_changes_the_vector_alone(
    codec: vqcodec.Codec, long: Path
) -> None:
    start = codec.speaker(long).vector
    weights = {name: tensor.clone() for name, tensor in codec.model.state_dict().items()}
    shares: list[float] = []
    recordings = [audio.open_recording(long)]
    found = voice_tuning.tune(
        codec.model, recordings, start, device=codec.device, on_progress=shares.append
    )
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
    assert voice_tuning.tune(codec.model, recordings, start, device=codec.device).vector.shape == (
        64,
    )


def test_a_model_without_the_fast_decoder_cannot_tune(codec: vqcodec.Codec, long: Path) -> None:
    config = {"encoder": {"channels": 16, "code_channels": 32, "n_filters": 16}, "fast": None}
    model = VQVAE(ModelConfig.model_validate(config)).eval()
    start = np.zeros(64, np.int8)
    with pytest.raises(SpeakerError, match="no fast decoder to tune a voice by"):
        voice_tuning.tune(model, [audio.open_recording(long)], start, device=codec.device)


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


def test_the_enrolment_benchmark_measures_every_length_there_is(
    run_script: Run, tiny_model: Path, tmp_path: Path
) -> None:
    for voice in ("slt", "rms"):
        for index, part in enumerate(np.array_split(spoken(voice), 3)):
            write(tmp_path / "corpus" / voice / f"{index}.wav", part)
    lines = [f"{voice}/{i}.wav,{voice},test_unseen" for voice in ("slt", "rms") for i in range(3)]
    manifest = tmp_path / "corpus" / "manifest.csv"
    manifest.write_text("\n".join(["path,speaker,split", *lines]) + "\n")
    output = tmp_path / "report"
    options = ["--model", tiny_model, "--seconds", "2,60", "-o", output]
    done = run_script("benchmarks/enrolment.py", manifest, *options)
    assert done.status == 0, done.stderr
    rows = list(csv.DictReader((output / "enrolment.csv").read_text().splitlines()))
    kinds = [("0", "not converted"), ("2", "encoder"), ("2", "tuned")]
    assert sorted((row["speaker"], row["seconds"], row["voice"]) for row in rows) == [
        (speaker, *kind) for speaker in ("rms", "slt") for kind in kinds
    ]
    # The two synthesizers' voices are not alike before conversion.
    assert all(0 < float(row["conversion"]) < 0.8 for row in rows if row["seconds"] == "0")
    page = (output / "enrolment.md").read_text()
    assert page in done.stdout
    assert "| 2 | 2 |" in page
    assert "| 60 |" not in page
    assert (output / "enrolment.png").read_bytes().startswith(b"\x89PNG")
