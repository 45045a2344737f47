"""Trainings of models that are told the pitch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from training_data import data_section, model_with, run, small_recipe, trainer_of

import vqcodec
from vqcodec.data.prepared import PreparedData
from vqcodec.errors import ConfigError
from vqcodec.training.conversion_loss import PitchLoss
from vqcodec.training.loop import STATE_FILE
from vqcodec.training.objective import inconsistency
from vqcodec.training.recipe_files import load_recipe
from vqcodec.weights import checkpoint

MELODY: dict[str, Any] = {
    "model": {**model_with(), "pitch": {}},
    "perturbation": {
        "probability": 0.8,
        "mean_hz": [90.0, 250.0],
        "contour_scale": [0.0, 1.0],
        "drift_semitones": 1.0,
        "equalizer_db": 2.0,
    },
    "loss": {"consistency": 0.3},
    "optimizer": {"warmup_steps": 0},
}


pytestmark = pytest.mark.usefixtures("_few_validation_batches")


def test_one_command_trains_a_model_that_is_told_the_pitch(
    data: PreparedData, tmp_path: Path
) -> None:
    path, reports = run(small_recipe(data, tmp_path, steps=6, **MELODY))
    assert all(np.isfinite(report.losses["total"]) for report in reports)
    assert max(report.losses["consistency"] for report in reports) > 0
    loaded = checkpoint.load(path)
    assert loaded.config.pitch is not None
    weights = loaded.model.state_dict()
    assert weights["fast.streams.0.convolutions.pitch.weight"].any()
    assert "fast.streams.4.convolutions.pitch.weight" not in weights  # it has but one block


def test_voices_keep_their_mean_pitch(
    data: PreparedData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vqcodec.training.model_files.MIN_CLIPS", 3)
    path, _ = run(small_recipe(data, tmp_path / "codec", **MELODY))
    voices = vqcodec.load(path, device="cpu").voices
    assert 140 < voices["slt"].info.pitch_hz < 200
    assert 80 < voices["rms"].info.pitch_hz < 130
    assert voices["deep"].info.pitch_hz < voices["slt"].info.pitch_hz - 20
    # Those of frozen codes stay what they are.
    recipe = small_recipe(data, tmp_path / "fast", **MELODY, stage="fast", initial_model=str(path))
    after = vqcodec.load(run(recipe)[0], device="cpu").voices
    assert {name: voice.info for name, voice in after.items()} == {
        name: voice.info for name, voice in voices.items()
    }


def test_a_run_resumes_bit_for_bit(data: PreparedData, tmp_path: Path) -> None:
    unbroken = small_recipe(data, tmp_path / "unbroken", steps=6, **MELODY)
    run(unbroken)
    broken = unbroken.model_copy(update={"output": str(tmp_path / "broken"), "max_minutes": 1e-9})
    assert len(run(broken)[1]) < 6
    run(broken.model_copy(update={"max_minutes": 60.0}), resume=True)
    expected, found = (load_file(Path(recipe.output) / STATE_FILE) for recipe in (unbroken, broken))
    assert found.keys() == expected.keys()
    assert [key for key in found if not torch.equal(found[key], expected[key])] == []


def test_frozen_codes_keep_their_meaning(data: PreparedData, tmp_path: Path) -> None:
    before, _ = run(small_recipe(data, tmp_path / "codec", loss={"stoi": 0.0}))
    recipe = small_recipe(
        data, tmp_path / "fast", stage="fast", initial_model=str(before), **MELODY | {"steps": 8}
    )
    start, after = checkpoint.load(before), checkpoint.load(run(recipe)[0])
    assert start.config.pitch is None
    assert after.config.pitch is not None
    assert after.fingerprint == start.fingerprint
    assert after.model.state_dict()["fast.streams.0.convolutions.pitch.weight"].any()


def test_conversions_learn_to_follow_the_melody_that_they_are_told(
    data: PreparedData, tmp_path: Path
) -> None:
    before, _ = run(small_recipe(data, tmp_path / "codec", loss={"stoi": 0.0}))
    recipe = small_recipe(
        data,
        tmp_path / "fast",
        stage="fast",
        initial_model=str(before),
        model={"pitch": {}},
        loss={"conversion_pitch": 1.0, "conversion_timbre": 1.0},
    )
    job = trainer_of(recipe)
    batch, decoder = job.sampler.batch(0), job.objective.model.fast
    assert decoder is not None
    optimizer = torch.optim.Adam(decoder.parameters(), 1e-3)
    losses = []
    for _ in range(30):
        found = job.objective(batch).parts
        optimizer.zero_grad()
        (found["conversion_pitch"] + found["conversion_timbre"]).backward()
        optimizer.step()
        losses.append(found["conversion_pitch"].item())
    assert losses[-1] < 0.8 * losses[0]
    # The initial decoder is not one of those that learn.
    assert 0 < found["conversion_timbre"] < 1
    with torch.no_grad():
        assert "conversion_pitch" not in job.objective(batch).parts


def voice(pitch: float, formants: tuple[float, ...]) -> torch.Tensor:
    """(1, 16000) at 16 kHz."""
    frequency = torch.arange(pitch, 4000, pitch)
    gain = sum(torch.exp(-(((frequency - formant) / 150) ** 2)) for formant in formants) + 0.02
    phase = 2 * torch.pi * frequency[:, None] * torch.arange(16_000) / 16_000
    waveform = (gain[:, None] * phase.cos()).sum(0, keepdim=True)
    return 0.06 * waveform / waveform.std()


def test_a_voice_is_to_repeat_itself_as_it_was_told_whatever_its_formants() -> None:
    loss, source = PitchLoss(16_000, 128), voice(120.0, (500.0, 1500.0))
    own, told = (torch.full((1, 125), pitch).log() for pitch in (120.0, 200.0))
    noise = 0.06 * torch.randn(1, 16_000, generator=torch.Generator().manual_seed(0))
    for formants in ((500.0, 1500.0), (600.0, 1800.0), (833.0, 2500.0)):
        assert loss(voice(200.0, formants), told, source, own) < 0.02
        assert loss(voice(120.0, formants), told, source, own) > 0.3
        assert loss(voice(400.0, formants), told, source, own) > 0.1
        assert loss(voice(100.0, formants), told, source, own) > 0.02
    assert loss(noise, told, source, own) > 0.5
    silence = torch.zeros(1, 16_000, requires_grad=True)
    loss(silence, told, source, own).backward()
    assert silence.grad is not None
    assert silence.grad.isfinite().all()


def test_conversions_are_listened_to_where_they_can_be(data: PreparedData, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="need frozen codes, a fast decoder"):
        small_recipe(data, tmp_path, **MELODY | {"loss": {"conversion_pitch": 1.0}})


def test_validation_is_always_told(data: PreparedData, tmp_path: Path) -> None:
    changes = MELODY | {"perturbation": {"stream_dropout": 1.0}}
    job = trainer_of(small_recipe(data, tmp_path, **changes))
    assert not job.sampler.batch(0).streams["pitch"].any()
    assert job.validation.batch(0).streams["pitch"].any(dim=1).float().mean() > 0.7


def test_other_melodies_need_a_stream_that_tells_the_true_one(
    data: PreparedData, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"drift_semitones need model\.pitch: add pitch: \{\}"):
        load_recipe("tiny.yaml", ["perturbation={probability: 1.0, contour_scale: [0.0, 1.0]}"])


def test_plain_vectors_alone_are_drawn() -> None:
    generator = torch.Generator().manual_seed(0)
    plain, perturbed = torch.randn(2, 500, 8, generator=generator).requires_grad_().unbind(0)
    assert inconsistency(plain, plain).item() == pytest.approx(0)
    distance = inconsistency(plain, perturbed)
    assert distance.item() == pytest.approx(1, abs=0.1)
    assert not torch.autograd.grad(distance, perturbed, allow_unused=True, retain_graph=True)[0]
    assert torch.autograd.grad(distance, plain)[0].any()


def test_segments_of_any_length_are_told(data: PreparedData, tmp_path: Path) -> None:
    section = data_section(data, segment_length=300)  # longer than some recordings
    _, reports = run(small_recipe(data, tmp_path, **MELODY | {"data": section}))
    assert np.isfinite(reports[-1].losses["total"])
