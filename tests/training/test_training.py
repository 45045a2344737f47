from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from code_files import random_model
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from training_data import (
    MODEL,
    RECIPES,
    SPEECH,
    data_section,
    model_with,
    run,
    small_recipe,
    state_of,
    trainer_of,
)

import vqcodec
from vqcodec.data.prepared import Clip, PreparedData
from vqcodec.errors import CheckpointError, ConfigError, DataError, VqcodecError
from vqcodec.models.config import ModelConfig
from vqcodec.models.quantizer import VectorQuantizer
from vqcodec.models.vqvae import VQVAE
from vqcodec.models.waveform_loss import MultiResolutionSpectralLoss
from vqcodec.training.entropy_coder import fit_tables
from vqcodec.training.loop import STATE_FILE
from vqcodec.training.recipe import Recipe
from vqcodec.training.recipe_files import load_recipe
from vqcodec.training.trainer import Trainer
from vqcodec.weights import checkpoint

pytestmark = pytest.mark.usefixtures("_few_validation_batches")


PAPER = {
    "encoder": {"paper": True, "strides": [2] * 6, "channels": 8},
    "speaker": {"kind": "table"},
    "fast": None,
    "quantizer": {"codebook_dim": 16, "use_cosine_sim": False, "decay": 0.99},
}


# --- what a user sees ------------------------------------------------------------------------


def test_tiny_recipe_learns_and_its_model_is_a_codec(data: PreparedData, tmp_path: Path) -> None:
    overrides = [f"data.root={data.root}", f"output={tmp_path}", "steps=100"]
    recipe = load_recipe(RECIPES / "tiny.yaml", [*overrides, "model.wavenet={layers_per_stack: 2}"])
    path, reports = run(recipe)
    totals = [report.losses["total"] for report in reports]
    assert [report.step for report in reports] == list(range(10, 101, 10))
    assert totals[-1] < 0.7 * totals[0]
    assert reports[-1].validation is not None
    assert reports[-1].validation < totals[0]
    assert {report.warning for report in reports} == {None}

    codec = vqcodec.load(path, device="cpu")
    assert codec.decoders == ("fast",)  # stage codec leaves the WaveNet untrained
    assert codec.config.quantizer == recipe.model.quantizer
    assert codec.provenance["steps"] == 100
    assert Recipe.model_validate(codec.provenance["recipe"]) == recipe
    speech = data.read(data.clips[0])
    codes = codec.encode(speech, data.sample_rate)
    assert len(np.unique(codes.codes)) > 4
    decoded = codec.decode(codes)
    assert decoded.shape == speech.shape
    # A model that learned nothing is no nearer to the speech than silence is.
    loss = MultiResolutionSpectralLoss(data.sample_rate)
    true = torch.from_numpy(speech)[None]
    error = loss(torch.from_numpy(decoded)[None], true).log_stft
    assert error < 0.8 * loss(torch.zeros_like(true), true).log_stft


def test_what_is_trained_on_is_told_in_a_unit_that_suits_it(
    data: PreparedData, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "vqcodec.training")
    run(small_recipe(data, tmp_path))
    seconds = len(data.audio) / data.sample_rate
    assert f"training on cpu in float32: {seconds:.1f} s of 5 speakers, batches" in caplog.text


def test_tensorboard_has_scalars_audio_and_images(data: PreparedData, tmp_path: Path) -> None:
    run(small_recipe(data, tmp_path, validate_every=2))
    events = EventAccumulator(str(tmp_path / "logs")).Reload()
    tags = events.Tags()
    assert {
        "train/total", "train/mel", "validation/total", "codebook/perplexity", "codebook/used",
    } <= set(tags["scalars"])  # fmt: skip
    assert set(tags["images"]) == {"log_mel/true", "log_mel/decoded"}
    assert {tag.removesuffix("/audio") for tag in tags["audio"]} == {"true", "decoded"}
    assert [event.step for event in events.Scalars("train/total")] == [1, 2, 3]
    assert [event.step for event in events.Scalars("validation/total")] == [2, 3]


def test_a_wavenet_shows_its_own_losses_and_no_sound_of_the_other_decoder(
    data: PreparedData, first_stage: Path, tmp_path: Path
) -> None:
    run(small_recipe(data, tmp_path, stage="wavenet", initial_model=str(first_stage)))
    tags = EventAccumulator(str(tmp_path / "logs")).Reload().Tags()
    losses = [tag for tag in tags["scalars"] if not tag.startswith("codebook/")]
    expected = {"total", "wavenet", "commitment"}  # the last of the frozen codes: total has it
    assert {tag.partition("/")[2] for tag in losses} == expected
    assert len(losses) == 2 * len(expected)  # of train and validation
    assert (tags["images"], tags["audio"]) == ([], [])


def test_reports_are_means_since_the_last(data: PreparedData, tmp_path: Path) -> None:
    single = run(small_recipe(data, tmp_path / "a", steps=7))[1]
    grouped = run(small_recipe(data, tmp_path / "b", steps=7, log_every=3, validate_every=4))[1]
    assert [report.step for report in grouped] == [3, 4, 6, 7]
    totals = [report.losses["total"] for report in single]
    expected = [np.mean(totals[:3]), totals[3], np.mean(totals[4:6]), totals[6]]
    np.testing.assert_allclose([report.losses["total"] for report in grouped], expected)
    assert [report.validation is None for report in grouped] == [True, False, True, False]


def test_the_total_is_the_weighted_sum_of_the_losses(data: PreparedData, tmp_path: Path) -> None:
    weights = {
        "mel": 1.1, "log_stft": 0.3, "convergence": 0.2, "stoi": 2.0, "periodicity": 0.6,
        "latent_mel": 0.7, "wavenet": 0.4,
    }  # fmt: skip
    recipe = small_recipe(
        data,
        tmp_path,
        stage="joint",
        loss=weights,
        data={**data_section(data), "segment_length": 100},
    )
    for report in run(recipe)[1]:
        losses = report.losses
        assert min(losses[name] for name in weights) > 0.01
        expected = sum(weight * losses[name] for name, weight in weights.items())
        assert losses["total"] == pytest.approx(expected + losses["commitment"], rel=1e-4)


def test_the_named_voices_are_those_heard_enough(
    data: PreparedData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(small_recipe(data, tmp_path / "a"))[0]
    assert not checkpoint.load(tmp_path / "a" / Trainer.MODEL_FILE).voices  # 3 clips, 5 s each
    monkeypatch.setattr("vqcodec.training.model_files.MIN_CLIPS", 3)
    path, _ = run(small_recipe(data, tmp_path / "b"))
    voices = checkpoint.load(path).voices
    assert sorted(voices) == list(SPEECH)
    assert {voice.shape for voice in voices.values()} == {(64,)}


# --- stages ----------------------------------------------------------------------------------


def test_wavenet_stage_leaves_the_codec_as_it_is(
    data: PreparedData, first_stage: Path, tmp_path: Path
) -> None:
    recipe = small_recipe(
        data,
        tmp_path,
        stage="wavenet",
        initial_model=str(first_stage),
        steps=12,
        optimizer={"warmup_steps": 0},
    )
    path, reports = run(recipe)
    before, after = vqcodec.load(first_stage, device="cpu"), vqcodec.load(path, device="cpu")
    assert after.fingerprint == before.fingerprint
    assert after.decoders == ("fast", "wavenet")
    kept, found = before.model.state_dict(), after.model.state_dict()
    assert kept.keys() == {key for key in found if not key.startswith("wavenet.")}
    assert all(torch.equal(kept[key], found[key]) for key in kept)
    losses = [report.losses["wavenet"] for report in reports]
    assert losses[0] == pytest.approx(np.log(256), abs=0.3)  # of guessing
    assert losses[-1] < losses[0] - 0.1


def test_a_wavenet_learns_in_bands_from_the_fast_decoder_and_is_lost_with_it(
    data: PreparedData, first_stage: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bands = {
        "hidden_channels": 8,
        "n_bands": 4,
        "hears_fast": True,
        "prediction_order": 2,
        "coarse_steps": 3,
    }
    recipe = small_recipe(
        data,
        tmp_path / "wavenet",
        stage="wavenet",
        initial_model=str(first_stage),
        model=model_with(wavenet=bands),
        perturbation={"past_noise": 1.0, "past_softer": 0.5},
        steps=12,
        optimizer={"warmup_steps": 0},
    )
    path, reports = run(recipe)
    losses = [report.losses["wavenet"] for report in reports]
    assert losses[-1] < losses[0] - 0.1
    before, after = checkpoint.load(first_stage), checkpoint.load(path)
    assert after.fingerprint == before.fingerprint
    kept, found = before.model.fast.state_dict(), after.model.fast.state_dict()
    assert all(torch.equal(kept[key], found[key]) for key in kept)
    caplog.set_level("INFO", "vqcodec")
    recipe = small_recipe(data, tmp_path / "fast", stage="fast", initial_model=str(path))
    assert checkpoint.load(run(recipe)[0]).model.wavenet is None
    assert "listens to the fast decoder" in caplog.text
    plain = {"n_bands": 1, "hears_fast": False, "prediction_order": 0, "coarse_steps": 0}
    recipe = small_recipe(
        data,
        tmp_path / "plain",
        stage="wavenet",
        initial_model=str(path),
        model=model_with(wavenet=plain),
        steps=2,
    )
    assert checkpoint.load(run(recipe)[0]).config.wavenet.n_bands == 1
    assert "has another shape: a new one begins" in caplog.text


def test_a_pitch_that_the_entropy_coder_does_not_know_is_told_of(
    data: PreparedData, first_stage: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    start, path = checkpoint.load(first_stage), tmp_path / "start.safetensors"
    tables = random_model(0, codebook_size=MODEL["quantizer"]["codebook_size"])
    checkpoint.save(path, start.model, start.voices, {}, tables)
    caplog.set_level("INFO", "vqcodec")
    for model, is_told in ((MODEL, False), ({**MODEL, "pitch": {}}, True)):
        trainer_of(
            small_recipe(data, tmp_path / "run", stage="fast", initial_model=str(path), model=model)
        )
        assert ("knows no pitch: code files" in caplog.text) == is_told


def test_fast_stage_trains_the_fast_decoder_alone(
    data: PreparedData, first_stage: Path, tmp_path: Path
) -> None:
    start = checkpoint.load(first_stage)
    with torch.no_grad():  # the moving average would make 0.0 of it, which is another fingerprint
        start.model.norm.mean[0] = -0.0
        start.model.encoder.output.bias[0] = -0.0
    codes = vqcodec.load(first_stage).encode(data.read(data.clips[0]), data.sample_rate).codes
    size = start.config.quantizer.codebook_size
    tables = fit_tables([codes], size, n_context=2, width=8, units=32, steps=2)
    checkpoint.save(tmp_path / "start.safetensors", start.model, start.voices, {}, tables)
    recipe = small_recipe(
        data,
        tmp_path,
        stage="fast",
        initial_model=f"{tmp_path}/start.safetensors",
        steps=20,
        optimizer={"warmup_steps": 0},
    )
    path, reports = run(recipe)
    after = checkpoint.load(path)
    assert after.fingerprint == checkpoint.load(tmp_path / "start.safetensors").fingerprint
    assert after.model.wavenet is None
    assert after.tables is not None
    assert after.tables.digest == tables.digest
    kept, found = start.model.state_dict(), after.model.state_dict()
    changed = {key.split(".")[0] for key in kept if not torch.equal(kept[key], found[key])}
    assert changed == {"fast"}
    losses = [report.losses["mel"] for report in reports]
    assert np.mean(losses[10:]) < np.mean(losses[:10])


def test_the_paper_trains_jointly_with_a_table_of_speakers(
    data: PreparedData, tmp_path: Path
) -> None:
    section = data_section(data, segment_length=32)
    path, reports = run(
        small_recipe(data, tmp_path, stage="joint", data=section, model=model_with(**PAPER))
    )
    assert reports[-1].losses["wavenet"] > 0
    loaded = vqcodec.load(path, device="cpu")
    assert loaded.decoders == ("wavenet",)
    assert sorted(loaded.voices) == list(SPEECH)
    codes = loaded.encode(data.read(data.clips[0])[:6400], data.sample_rate, speaker="slt")
    assert codes.codes.shape == (1, 100)


def test_validation_uses_the_table_s_rows_of_training_speakers(
    data: PreparedData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def split(_: PreparedData, name: str) -> list[Clip]:
        """For validation espeak and a clip of high, for training the rest."""
        valid = {clip for clip in data.clips if clip.speaker == "espeak" or clip.name == "high/0"}
        return [clip for clip in data.clips if (clip in valid) == (name == "valid")]

    monkeypatch.setattr(PreparedData, "split", split)
    recipe = small_recipe(data, tmp_path, model=model_with(speaker={"kind": "table"}))
    job = trainer_of(recipe)
    assert job.speakers == ["deep", "high", "rms", "slt"]
    # Only high, whose row is 1: espeak, whom training does not know, has none.
    assert set(job.validation.batch(0).speaker.tolist()) == {1}
    # A speaker encoder hears everybody.
    job = trainer_of(small_recipe(data, tmp_path))
    assert {clip.speaker for clip in job.validation.clips} == {"espeak", "high"}
    assert job.validation.batch(0).waveform.shape == (2, 16 * 128)


def test_a_table_is_not_given_to_others(
    data: PreparedData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = model_with(speaker={"kind": "table"})
    path, _ = run(small_recipe(data, tmp_path / "a", model=table))
    others = [replace(clip, speaker=clip.speaker.upper()) for clip in data.clips]
    monkeypatch.setattr(PreparedData, "split", lambda self, name: others)
    recipe = small_recipe(data, tmp_path / "b", model=table, initial_model=str(path))
    with pytest.raises(CheckpointError, match="has a table of other speakers than the data"):
        run(recipe)


def test_initial_model_must_fit(data: PreparedData, first_stage: Path, tmp_path: Path) -> None:
    wider = model_with(quantizer={"codebook_size": 32})
    recipe = small_recipe(data, tmp_path, initial_model=str(first_stage), model=wider)
    with pytest.raises(CheckpointError, match=r"does not fit the recipe's model at quantizer\."):
        run(recipe)


@pytest.mark.parametrize("stage", ["codec", "wavenet"])
def test_what_a_recipe_leaves_open_is_as_in_its_initial_model(
    data: PreparedData, first_stage: Path, tmp_path: Path, stage: str
) -> None:
    model = {"wavenet": MODEL["wavenet"], "quantizer": {"decay": 0.9}}
    recipe = small_recipe(data, tmp_path, stage=stage, initial_model=str(first_stage), model=model)
    path, _ = run(recipe)
    known, found = checkpoint.load(first_stage).config, checkpoint.load(path).config
    assert found.quantizer.decay == 0.9
    assert found.quantizer.codebook_size == known.quantizer.codebook_size == 16
    assert (found.encoder, found.speaker, found.fast) == (known.encoder, known.speaker, known.fast)
    assert (found.wavenet is None) == (stage == "codec")


def test_a_recipe_is_checked_with_the_model_that_completes_it(
    data: PreparedData, tmp_path: Path
) -> None:
    short = model_with(encoder={**MODEL["encoder"], "strides": [32, 2]})
    start = tmp_path / "start.safetensors"
    checkpoint.save(start, VQVAE(ModelConfig.model_validate(short)), {}, {})
    # Long enough at 128 samples a code.
    section = data_section(data, segment_length=24)
    recipe = small_recipe(data, tmp_path, initial_model=str(start), model={}, data=section)
    with pytest.raises(ConfigError, match=r"start\.safetensors: .* makes segments of 1536 samples"):
        run(recipe)


# --- faults ----------------------------------------------------------------------------------


def test_sample_rates_must_agree(data: PreparedData, tmp_path: Path) -> None:
    recipe = small_recipe(data, tmp_path, model=model_with() | {"sample_rate": 24000})
    with pytest.raises(DataError, match="prepared at 16000 Hz, the recipe wants 24000 Hz"):
        run(recipe)


def test_no_prepared_folder(data: PreparedData, tmp_path: Path) -> None:
    section = data_section(data, root=str(tmp_path / "none"))
    with pytest.raises(DataError, match="none: no such folder; run vqcodec prepare"):
        run(small_recipe(data, tmp_path, data=section))


def test_a_loss_that_is_not_finite_ends_the_run(
    data: PreparedData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = small_recipe(data, tmp_path, steps=6, checkpoint_every=2)
    forward = VectorQuantizer.forward

    def broken(self: VectorQuantizer, latents: torch.Tensor) -> Any:
        result = forward(self, latents)
        return result._replace(loss=result.loss * float("nan")) if self.initialized else result

    monkeypatch.setattr(VectorQuantizer, "forward", broken)
    with pytest.raises(VqcodecError, match=r"is not finite at step 2; begin again, with a lower"):
        run(recipe)
    assert not (tmp_path / STATE_FILE).exists()  # no checkpoint of broken weights


def test_a_gradient_that_is_not_finite_reaches_no_checkpoint(
    data: PreparedData, tmp_path: Path
) -> None:
    recipe = small_recipe(data, tmp_path, steps=6, checkpoint_every=2)
    job = trainer_of(recipe)
    weight = next(job.objective.model.encoder.parameters())
    # The loss of the fourth step is a number, its gradient is not.
    weight.register_hook(lambda gradient: gradient * (math.nan if job.step == 3 else 1))
    with pytest.raises(VqcodecError, match=r"gradient is not finite at step 4; .*--resume"):
        job.run(resume=False)
    tensors, metadata = state_of(recipe)
    assert '"step": 2' in metadata["progress"]
    assert all(tensor.isfinite().all() for tensor in tensors.values())
    assert run(recipe, resume=True)[1][-1].step == 6


def test_a_full_memory_is_told_with_its_remedy(
    data: PreparedData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(Trainer, "_train_step", full)
    with pytest.raises(VqcodecError, match=r"the memory of cpu is full: lower data\.batch_size"):
        run(small_recipe(data, tmp_path))
