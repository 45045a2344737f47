from __future__ import annotations

import json
import logging
import math
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from command_line import needs
from safetensors import safe_open
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn
from training_data import MODEL, RECIPES, SPEECH, data_section, model_with, small_recipe

import vqcodec
from vqcodec.data.prepared import Clip, PreparedData
from vqcodec.errors import CheckpointError, ConfigError, DataError, VqcodecError
from vqcodec.models.codebook_usage import CollapseMonitor
from vqcodec.models.config import ModelConfig
from vqcodec.models.quantizer import VectorQuantizer
from vqcodec.models.vqvae import VQVAE
from vqcodec.models.waveform_loss import MultiResolutionSpectralLoss
from vqcodec.training import ngram_fit, trainer
from vqcodec.training.loop import STATE_FILE, UNVALIDATED, Report
from vqcodec.training.optimization import learning_rate
from vqcodec.training.recipe import Recipe
from vqcodec.training.recipe_files import load_recipe
from vqcodec.training.session import Processes
from vqcodec.training.state import load_state, save_state
from vqcodec.training.trainer import Trainer, train
from vqcodec.weights import checkpoint

PAPER = {
    "encoder": {"paper": True, "strides": [2] * 6, "channels": 8},
    "speaker": {"kind": "table"},
    "fast": None,
    "quantizer": {"codebook_dim": 16, "use_cosine_sim": False, "decay": 0.99},
}


@pytest.fixture(autouse=True)
def _few_validation_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer, "VALIDATION_BATCHES", 2)


@pytest.fixture(scope="module")
def codec(data: PreparedData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of the first stage."""
    return run(small_recipe(data, tmp_path_factory.mktemp("codec")))[0]


def run(recipe: Recipe, *, resume: bool = False) -> tuple[Path, list[Report]]:
    reports: list[Report] = []
    path = train(recipe, device="cpu", resume=resume, on_report=reports.append)
    return path, reports


def state_of(recipe: Recipe) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    path = Path(recipe.output) / STATE_FILE
    with safe_open(path, framework="pt") as file:
        return load_file(path), file.metadata()


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
    # Speakers of three recordings give none for validation.
    validated = [report for report in reports if report.validation is not None]
    assert validated
    for report in reports:
        assert report.warning == (UNVALIDATED if report in validated else None)

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


def test_a_wavenet_shows_no_sound_of_the_other_decoder(
    data: PreparedData, codec: Path, tmp_path: Path
) -> None:
    run(small_recipe(data, tmp_path, stage="wavenet", initial_model=str(codec)))
    tags = EventAccumulator(str(tmp_path / "logs")).Reload().Tags()
    assert "validation/wavenet" in tags["scalars"]
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
    monkeypatch.setattr("vqcodec.training.mean_voices.MIN_CLIPS", 3)
    path, _ = run(small_recipe(data, tmp_path / "b"))
    voices = checkpoint.load(path).voices
    assert sorted(voices) == list(SPEECH)
    assert {voice.shape for voice in voices.values()} == {(64,)}


# --- stages ----------------------------------------------------------------------------------


def test_wavenet_stage_leaves_the_codec_as_it_is(
    data: PreparedData, codec: Path, tmp_path: Path
) -> None:
    recipe = small_recipe(
        data,
        tmp_path,
        stage="wavenet",
        initial_model=str(codec),
        steps=12,
        optimizer={"warmup_steps": 0},
    )
    path, reports = run(recipe)
    before, after = vqcodec.load(codec, device="cpu"), vqcodec.load(path, device="cpu")
    assert after.fingerprint == before.fingerprint
    assert after.decoders == ("fast", "wavenet")
    kept, found = before.model.state_dict(), after.model.state_dict()
    assert kept.keys() == {key for key in found if not key.startswith("wavenet.")}
    assert all(torch.equal(kept[key], found[key]) for key in kept)
    assert {report.losses["mel"] for report in reports} == {0.0}
    losses = [report.losses["wavenet"] for report in reports]
    assert losses[0] == pytest.approx(np.log(256), abs=0.3)  # of guessing
    assert losses[-1] < losses[0] - 0.1


def test_a_wavenet_learns_in_bands_from_the_fast_decoder_and_is_lost_with_it(
    data: PreparedData, codec: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bands = {"hidden_channels": 8, "n_bands": 4, "hears_fast": True, "prediction_order": 2}
    recipe = small_recipe(
        data,
        tmp_path / "wavenet",
        stage="wavenet",
        initial_model=str(codec),
        model=model_with(wavenet=bands),
        perturbation={"past_noise": 1.0, "past_softer": 0.5},
        steps=12,
        optimizer={"warmup_steps": 0},
    )
    path, reports = run(recipe)
    losses = [report.losses["wavenet"] for report in reports]
    assert losses[-1] < losses[0] - 0.1
    before, after = checkpoint.load(codec), checkpoint.load(path)
    assert after.fingerprint == before.fingerprint
    kept, found = before.model.fast.state_dict(), after.model.fast.state_dict()
    assert all(torch.equal(kept[key], found[key]) for key in kept)
    caplog.set_level("INFO", "vqcodec")
    recipe = small_recipe(data, tmp_path / "fast", stage="fast", initial_model=str(path))
    assert checkpoint.load(run(recipe)[0]).model.wavenet is None
    assert "listens to the fast decoder" in caplog.text
    plain = {"n_bands": 1, "hears_fast": False, "prediction_order": 0}
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


def test_fast_stage_trains_the_fast_decoder_alone(
    data: PreparedData, codec: Path, tmp_path: Path
) -> None:
    start = checkpoint.load(codec)
    with torch.no_grad():  # the moving average would make 0.0 of it, which is another fingerprint
        start.model.norm.mean[0] = -0.0
        start.model.encoder.output.bias[0] = -0.0
    codes = vqcodec.load(codec).encode(data.read(data.clips[0]), data.sample_rate).codes
    size = start.config.quantizer.codebook_size
    tables = ngram_fit.fit([codes], size, n_context=2, width=8, units=32, steps=2)
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
    job = trainer.Trainer(recipe, Processes(0, 1, torch.device("cpu")), lambda _: None)
    assert job.speakers == ["deep", "high", "rms", "slt"]
    # Only high, whose row is 1: espeak, whom training does not know, has none.
    assert set(job.validation.batch(0).speaker.tolist()) == {1}
    # A speaker encoder hears everybody.
    job = trainer.Trainer(
        small_recipe(data, tmp_path), Processes(0, 1, torch.device("cpu")), lambda _: None
    )
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


def test_initial_model_must_fit(data: PreparedData, codec: Path, tmp_path: Path) -> None:
    wider = model_with(quantizer={"codebook_size": 32})
    recipe = small_recipe(data, tmp_path, initial_model=str(codec), model=wider)
    with pytest.raises(CheckpointError, match=r"does not fit the recipe's model at quantizer\."):
        run(recipe)


@pytest.mark.parametrize("stage", ["codec", "wavenet"])
def test_what_a_recipe_leaves_open_is_as_in_its_initial_model(
    data: PreparedData, codec: Path, tmp_path: Path, stage: str
) -> None:
    model = {"wavenet": MODEL["wavenet"], "quantizer": {"decay": 0.9}}
    recipe = small_recipe(data, tmp_path, stage=stage, initial_model=str(codec), model=model)
    path, _ = run(recipe)
    known, found = checkpoint.load(codec).config, checkpoint.load(path).config
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


@pytest.mark.parametrize(
    "quantizer",
    [
        {"estimator": "ste"},
        {"estimator": "nsvq"},
        {"estimator": "rotation"},
        {"codebook_update": "loss"},
        {"use_cosine_sim": False},
        {"kind": "residual_vq", "num_quantizers": 2},
        {"kind": "grouped_residual_vq", "num_quantizers": 2, "groups": 2},
        {"kind": "fsq", "levels": [4, 4]},
    ],
    ids=lambda quantizer: "-".join(str(value) for value in quantizer.values()),
)
def test_every_quantizer_trains(
    data: PreparedData, tmp_path: Path, quantizer: dict[str, Any]
) -> None:
    recipe = small_recipe(data, tmp_path, model=model_with(quantizer=quantizer))
    path, reports = run(recipe)
    assert [report.step for report in reports] == [1, 2, 3]
    assert all(np.isfinite(report.losses["total"]) for report in reports)
    loaded = vqcodec.load(path, device="cpu")
    codes = loaded.encode(data.read(data.clips[0])[:6400], data.sample_rate)
    assert codes.codes.shape == (recipe.model.quantizer.n_codebooks, 50)
    assert np.isfinite(loaded.decode(codes)).all()


def test_the_averaged_encoder_is_kept_with_the_averaged_codebook(
    data: PreparedData, tmp_path: Path
) -> None:
    changes = {"steps": 5, "optimizer": {"average_decay": 0.5, "warmup_steps": 0}}
    codebooks: list[torch.Tensor] = []
    job = trainer.Trainer(
        small_recipe(data, tmp_path, **changes),
        Processes(0, 1, torch.device("cpu")),
        lambda _: codebooks.append(job.objective.model.quantizer.codebook.clone()),
    )
    job.run(resume=False)
    expected = codebooks[1]  # the first codebook is that of the second step
    for codebook in codebooks[2:]:
        expected = (expected + codebook) / 2
    kept = checkpoint.load(tmp_path / "model.safetensors").model.quantizer
    assert torch.allclose(kept.codebook, expected, atol=1e-6)
    assert not torch.allclose(kept.codebook, codebooks[-1], atol=1e-4)


def test_whole_numbers_are_not_averaged(data: PreparedData, tmp_path: Path) -> None:
    # 0.9 x 3 + 0.1 x 3 is a little less than 3 in floating point, and 2 as an integer.
    changes = {"steps": 5, "optimizer": {"average_decay": 0.9}}
    quantizer = {"kind": "fsq", "levels": [3, 3], "codebook_size": 9}
    recipe = small_recipe(data, tmp_path, model=model_with(quantizer=quantizer), **changes)
    job = trainer.Trainer(recipe, Processes(0, 1, torch.device("cpu")), lambda _: None)
    job.run(resume=False)
    newest = dict(job.objective.named_buffers())
    whole = [name for name, each in newest.items() if not each.is_floating_point()]
    assert any("basis" in name for name in whole)
    averaged = dict(job.average.module.named_buffers())
    assert all(torch.equal(averaged[name], newest[name]) for name in whole)


def test_bfloat16_and_perturbations_train(data: PreparedData, tmp_path: Path) -> None:
    changes = {"precision": "bfloat16", "perturbation": {"probability": 1.0}, "stage": "joint"}
    _, reports = run(small_recipe(data, tmp_path, **changes))
    assert all(np.isfinite(report.losses["total"]) for report in reports)


@needs("g++")
def test_compiled_parts_learn_the_same(data: PreparedData, tmp_path: Path) -> None:
    sizes = {
        "data": data_section(data, segment_length=128),
        "model": model_with(encoder={"n_filters": 128}),
    }

    def losses(**settings: Any) -> list[float]:
        totals: list[float] = []
        settings |= {"precision": "bfloat16", **sizes}
        recipe = small_recipe(data, tmp_path / str(settings["compile"]), **settings)
        train(recipe, device="cpu", on_report=lambda report: totals.append(report.losses["total"]))
        return totals

    assert losses(compile=True) == pytest.approx(losses(compile=False), rel=0.02)


def test_each_part_is_compiled_as_one_graph(
    data: PreparedData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graphs: list[torch.fx.GraphModule] = []

    def backend(graph: torch.fx.GraphModule, _: Any) -> Callable[..., Any]:
        graphs.append(graph)
        return graph.forward

    compiled = nn.Module.compile
    monkeypatch.setattr(nn.Module, "compile", lambda part: compiled(part, backend=backend))
    model = model_with(encoder={"dilations": [1, 3, 9, 27]})
    run(small_recipe(data, tmp_path, compile=True, model=model))
    # The encoder's layers and the decoder's block, in validation perhaps anew.
    assert 2 <= len(graphs) <= 2 * 2


@pytest.mark.parametrize("is_fast", [False, True])
@pytest.mark.parametrize("precision", ["auto", "float32", "bfloat16"])
def test_products_are_bfloat16_where_that_is_fast_or_asked_for(
    data: PreparedData,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    precision: str,
    is_fast: bool,
) -> None:
    monkeypatch.setattr("vqcodec.training.loop.multiplies_bfloat16", lambda device: is_fast)
    recipe = small_recipe(data, tmp_path, precision=precision)
    job = trainer.Trainer(recipe, Processes(0, 1, torch.device("cpu")), lambda _: None)
    expected = precision == "bfloat16" or (precision == "auto" and is_fast)
    with job._autocast():
        product = torch.ones(2, 2) @ torch.ones(2, 2)
    assert product.dtype == (torch.bfloat16 if expected else torch.float32)


def test_learning_rate_rises_then_falls_to_the_final_one() -> None:
    recipe = Recipe.model_validate(
        {"steps": 1000, "optimizer": {"learning_rate": 1e-3, "warmup_steps": 100}}
    )
    rates = [learning_rate(recipe, step) for step in range(1000)]
    assert rates[0] == pytest.approx(1e-5)
    assert rates[99] == rates[100] == 1e-3
    assert (np.diff(rates[:100]) > 0).all()
    assert (np.diff(rates[100:]) < 0).all()
    assert rates[-1] == pytest.approx(2e-5, rel=1e-2)


# --- stopping and continuing -----------------------------------------------------------------

KILLED = """
import os, signal, sys, yaml
from vqcodec.training import trainer
from vqcodec.training.recipe_files import load_recipe
trainer.VALIDATION_BATCHES = 2
path, resume, last = sys.argv[1], sys.argv[2] == "resume", int(sys.argv[3])
def on_report(report):
    if report.step == last:
        os.kill(os.getpid(), signal.SIGKILL)
trainer.train(load_recipe(path), device="cpu", resume=resume, on_report=on_report)
"""


def in_a_process(recipe: Recipe, mode: str, *, killed_at: int = -1) -> int:
    path = Path(recipe.output).with_suffix(".yaml")
    path.write_text(yaml.safe_dump(recipe.model_dump(mode="json")), encoding="utf-8")
    command = [sys.executable, "-c", KILLED, str(path), mode, str(killed_at)]
    result = subprocess.run(command, stderr=subprocess.PIPE, text=True)
    assert result.returncode in (0, -signal.SIGKILL), result.stderr
    return result.returncode


def test_resume_after_sigkill_is_bit_for_bit(data: PreparedData, tmp_path: Path) -> None:
    def recipe(name: str) -> Recipe:
        return small_recipe(
            data,
            tmp_path / name,
            stage="joint",
            steps=16,
            unquantized_steps=6,
            checkpoint_every=4,
            validate_every=5,
            perturbation={"probability": 0.5},
            model=model_with(quantizer={"estimator": "nsvq", "threshold_ema_dead_code": 0.5}),
        )

    whole, broken = recipe("whole"), recipe("broken")
    run(whole)
    # Before the codebook starts, and after: each time two steps past the last checkpoint.
    assert in_a_process(broken, "start", killed_at=6) == -signal.SIGKILL
    assert in_a_process(broken, "resume", killed_at=10) == -signal.SIGKILL
    tensors, metadata = state_of(broken)
    assert '"step": 8' in metadata["progress"]
    assert tensors["objective.model.quantizer.initialized"]
    assert in_a_process(broken, "resume") == 0
    (expected, of_whole), (found, of_broken) = state_of(whole), state_of(broken)
    assert of_broken == of_whole
    assert found.keys() == expected.keys()
    assert [key for key in found if not torch.equal(found[key], expected[key])] == []
    assert any(key.startswith("optimizer.") for key in found)
    models = [checkpoint.load(Path(r.output) / Trainer.MODEL_FILE) for r in (whole, broken)]
    assert models[0].fingerprint == models[1].fingerprint
    # What the broken run logged past its checkpoint is not shown twice.
    events = EventAccumulator(str(Path(broken.output) / "logs")).Reload()
    assert [event.step for event in events.Scalars("train/total")] == list(range(1, 17))


# So heavy that the first round is felt.
ADVERSARIAL = {"weight": 100.0, "start_step": 5, "channels": 2}


def test_an_adversarial_run_resumes_bit_for_bit(data: PreparedData, tmp_path: Path) -> None:
    adversarial = {**ADVERSARIAL, "start_step": 2}
    unbroken = small_recipe(data, tmp_path / "unbroken", steps=6, adversarial=adversarial)
    run(unbroken)
    broken = unbroken.model_copy(update={"output": str(tmp_path / "broken"), "max_minutes": 1e-9})
    run(broken)
    for _ in range(3):  # a step each: before the discriminators begin, and after
        run(broken, resume=True)
    run(broken.model_copy(update={"max_minutes": 60.0}), resume=True)
    expected, found = state_of(unbroken)[0], state_of(broken)[0]
    assert found.keys() == expected.keys()
    assert [key for key in found if not torch.equal(found[key], expected[key])] == []
    assert any(key.startswith("adversary.") for key in found)
    assert not any(key.startswith("average.") and "discriminator" in key for key in found)


def test_the_adversary_does_nothing_before_its_start(data: PreparedData, tmp_path: Path) -> None:
    plain = run(small_recipe(data, tmp_path / "plain", steps=8))[1]
    changes = {"steps": 8, "validate_every": 4, "adversarial": ADVERSARIAL}
    adversarial = run(small_recipe(data, tmp_path / "adversarial", **changes))[1]
    assert [report.losses for report in adversarial[:5]] == [r.losses for r in plain[:5]]
    assert all({"adversarial", "discriminator"} <= r.losses.keys() for r in adversarial[5:])
    assert adversarial[5].losses["discriminator"] == pytest.approx(2.0, abs=0.2)
    assert adversarial[6].losses["mel"] != plain[6].losses["mel"]
    # The newest model is kept, were it a worse one by spectral distance.
    provenance = checkpoint.load(tmp_path / "adversarial" / Trainer.MODEL_FILE).provenance
    assert provenance["steps"] == 8


@pytest.mark.parametrize(
    ("changes", "kept"),
    [
        ({}, 1.0),
        ({"adversarial": {**ADVERSARIAL, "start_step": 6}}, 4.0),
        ({"stage": "fast", "perturbation": {"conversion": 0.5}}, 4.0),
    ],
)
def test_the_newest_model_is_kept_where_validation_is_blind(
    data: PreparedData,
    codec: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, Any],
    kept: float,
) -> None:
    rising = iter([1.0, 2.0, 3.0, 4.0])

    def worse(self: Trainer, scalars: dict[str, torch.Tensor]) -> dict[str, float]:
        value = 0.5 if torch.is_grad_enabled() else next(rising)
        return dict.fromkeys(scalars, value)

    monkeypatch.setattr(trainer, "VALIDATION_BATCHES", 1)
    monkeypatch.setattr(Trainer, "_values", worse)
    section = {"steps": 8, "validate_every": 2, "initial_model": str(codec), **changes}
    path, reports = run(small_recipe(data, tmp_path, **section))
    validations = [report.validation for report in reports if report.validation is not None]
    assert validations == [1.0, 2.0, 3.0, 4.0]
    assert checkpoint.load(path).provenance["validation_loss"] == kept


def test_max_minutes_stops_and_the_run_goes_on(data: PreparedData, tmp_path: Path) -> None:
    recipe = small_recipe(data, tmp_path / "limited", steps=4, max_minutes=1e-9)
    path, reports = run(recipe)
    assert [report.step for report in reports] == [1]
    assert not path.exists()  # its codebook had not started
    path, reports = run(recipe, resume=True)
    assert [report.step for report in reports] == [2]
    assert vqcodec.load(path, device="cpu").provenance["steps"] == 2
    _, reports = run(recipe.model_copy(update={"max_minutes": 60.0}), resume=True)
    assert [report.step for report in reports] == [3, 4]
    unbroken = small_recipe(data, tmp_path / "unbroken", steps=4)
    run(unbroken)
    found, expected = state_of(recipe)[0], state_of(unbroken)[0]
    assert [key for key in expected if not torch.equal(found[key], expected[key])] == []


def test_a_finished_run_has_nothing_left_to_do(data: PreparedData, tmp_path: Path) -> None:
    recipe = small_recipe(data, tmp_path)
    path, _ = run(recipe)
    before = path.read_bytes()
    assert run(recipe, resume=True) == (path, [])
    assert path.read_bytes() == before


def test_a_run_is_not_overwritten(data: PreparedData, tmp_path: Path) -> None:
    recipe = small_recipe(data, tmp_path)
    run(recipe)
    before = (tmp_path / STATE_FILE).read_bytes()
    with pytest.raises(ConfigError, match=f"{tmp_path}: already holds a run; .*--resume"):
        run(recipe)
    assert (tmp_path / STATE_FILE).read_bytes() == before


def test_no_run_to_resume(data: PreparedData, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"{tmp_path}: holds no run to continue"):
        run(small_recipe(data, tmp_path), resume=True)


def test_a_run_is_not_continued_with_another_model(data: PreparedData, tmp_path: Path) -> None:
    run(small_recipe(data, tmp_path))
    other = model_with(quantizer={"codebook_size": 32})
    with pytest.raises(CheckpointError, match=r"last\.safetensors: belongs to another recipe"):
        run(small_recipe(data, tmp_path, model=other), resume=True)


def test_a_run_is_not_continued_in_another_stage(data: PreparedData, tmp_path: Path) -> None:
    path, _ = run(small_recipe(data, tmp_path))
    later = small_recipe(data, tmp_path, stage="fast", initial_model=str(path))
    with pytest.raises(CheckpointError, match=r"belongs to another recipe"):
        run(later, resume=True)


def test_a_state_of_other_parameters_is_refused(tmp_path: Path) -> None:
    path, layers = tmp_path / STATE_FILE, [nn.Linear(3, 3), nn.Linear(3, 300)]
    optimizers = [torch.optim.AdamW(layer.parameters(), fused=True) for layer in layers]
    for layer, optimizer in zip(layers, optimizers, strict=True):
        layer(torch.ones(3)).sum().backward()
        optimizer.step()
    save_state(path, {}, optimizers[0], {})
    # Or the next step would read beyond the moments of the smaller one.
    with pytest.raises(CheckpointError, match="the optimiser's tensors 0 have other shapes"):
        load_state(path, {}, optimizers[1])


def test_a_resumed_run_tells_what_has_changed(
    data: PreparedData, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run(small_recipe(data, tmp_path))
    best = json.loads(state_of(small_recipe(data, tmp_path))[1]["progress"])["best"]
    # Of ten times the loss no validation would be better than before.
    heavy = small_recipe(
        data,
        tmp_path,
        steps=5,
        log_every=2,
        loss={"mel": 10.0},
        optimizer={"learning_rate": 1e-4},
    )
    caplog.set_level(logging.WARNING, "vqcodec.training")
    path, _ = run(heavy, resume=True)
    assert [record.getMessage() for record in caplog.records] == [
        "resumed with other settings: loss.mel 10.0, was 1.0; "
        "optimizer.learning_rate 0.0001, was 0.001; steps 5, was 3"
    ]
    provenance = checkpoint.load(path).provenance
    assert provenance["steps"] == 5
    assert provenance["validation_loss"] > best


def test_more_steps_are_told_with_their_learning_rate(
    data: PreparedData, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    optimizer = {"warmup_steps": 0, "learning_rate": 1e-3, "final_learning_rate": 1e-4}
    run(small_recipe(data, tmp_path, steps=2, optimizer=optimizer))
    caplog.set_level(logging.WARNING, "vqcodec.training")
    run(small_recipe(data, tmp_path, steps=2, optimizer=optimizer), resume=True)
    run(small_recipe(data, tmp_path, steps=4, optimizer=optimizer), resume=True)
    assert [record.getMessage() for record in caplog.records] == [
        "all 2 steps are done: steps=N, with a larger N, goes on",
        # Half of the cosine is left.
        "resumed with other settings: steps 4, was 2 (the learning rate goes on from 5.5e-04, "
        "where it would have been 1.0e-04)",
    ]


@pytest.mark.parametrize(
    ("precision", "is_built_for_it", "is_warned"),
    [("bfloat16", False, True), ("bfloat16", True, False), ("auto", False, False)],
)
def test_an_emulated_precision_is_told_before_the_first_step(
    data: PreparedData,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    precision: str,
    is_built_for_it: bool,
    is_warned: bool,
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": is_built_for_it})
    caplog.set_level(logging.WARNING, "vqcodec.training")
    monkeypatch.setattr(Trainer, "_batches", lambda self: ())
    run(small_recipe(data, tmp_path, precision=precision))
    told = ["precision bfloat16 is emulated on this cpu" in each for each in caplog.messages]
    assert told == ([True] if is_warned else [])


def test_frozen_codes_are_not_said_to_collapse(
    data: PreparedData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, _ = run(small_recipe(data, tmp_path / "codec"))
    monkeypatch.setattr(trainer, "SETTLING_STEPS", 0)
    monkeypatch.setattr(CollapseMonitor, "LOWEST_PERPLEXITY", 1.0)
    recipe = small_recipe(data, tmp_path / "fast", stage="fast", initial_model=str(path))
    assert not any("collapsing" in (report.warning or "") for report in run(recipe)[1])


STOPPED = """
import os, signal, sys, yaml
from vqcodec.training import trainer
from vqcodec.training.recipe_files import load_recipe
trainer.VALIDATION_BATCHES = 2
def on_report(report):
    if report.step == 5:
        os.kill(os.getpid(), int(sys.argv[2]))
trainer.train(load_recipe(sys.argv[1]), device="cpu", on_report=on_report)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_a_run_resumably(
    data: PreparedData, tmp_path: Path, number: signal.Signals
) -> None:
    section = data_section(data, workers=1)
    stopped = small_recipe(data, tmp_path / "stopped", steps=9, data=section)
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(stopped.model_dump(mode="json")), encoding="utf-8")
    result = subprocess.run(
        [sys.executable, "-c", STOPPED, str(path), str(int(number))],
        capture_output=True,
        text=True,
    )
    assert "stopped at step 6: --resume goes on from there" in result.stderr
    assert result.stderr.rstrip().endswith("KeyboardInterrupt")
    run(stopped, resume=True)
    unbroken = small_recipe(data, tmp_path / "unbroken", steps=9)
    run(unbroken)
    found, expected = state_of(stopped)[0], state_of(unbroken)[0]
    assert [key for key in expected if not torch.equal(found[key], expected[key])] == []


def test_a_damaged_state_is_refused(data: PreparedData, tmp_path: Path) -> None:
    run(small_recipe(data, tmp_path))
    state = tmp_path / STATE_FILE
    state.write_bytes(state.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match=r"last\.safetensors: not a readable model file"):
        run(small_recipe(data, tmp_path), resume=True)


def test_no_bit_of_a_state_may_flip(data: PreparedData, tmp_path: Path) -> None:
    """One of each kind of tensor and of the progress; safetensors itself checks its header."""
    run(small_recipe(data, tmp_path))
    state = tmp_path / STATE_FILE
    whole = state.read_bytes()
    header_length = int.from_bytes(whole[:8], "little")
    header = json.loads(whole[8 : 8 + header_length])
    kinds = ("objective.model.encoder.", "objective.model.quantizer.codebook", "average.module.")
    places = [whole.index(b'step\\": ') + len(b'step\\": ')]
    for kind in (*kinds, "optimizer.0.exp_avg", "optimizer.0.exp_avg_sq", "optimizer.0.step"):
        key = next(key for key in header if key.startswith(kind))
        places.append(8 + header_length + header[key]["data_offsets"][0])
    for place in places:
        damaged = bytearray(whole)
        damaged[place] ^= 1
        state.write_bytes(damaged)
        with pytest.raises(CheckpointError, match=r"last\.safetensors: damaged \(its SHA-256"):
            run(small_recipe(data, tmp_path), resume=True)


def test_a_model_file_is_no_state(data: PreparedData, tmp_path: Path) -> None:
    path, _ = run(small_recipe(data, tmp_path))
    (tmp_path / STATE_FILE).write_bytes(path.read_bytes())
    with pytest.raises(CheckpointError, match="not a vqcodec-training file"):
        run(small_recipe(data, tmp_path), resume=True)


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
    place = Processes(0, 1, torch.device("cpu"))
    job = trainer.Trainer(recipe, place, lambda report: None)
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


# --- the codebook monitor --------------------------------------------------------------------


def test_usage_of_known_codes() -> None:
    monitor = CollapseMonitor(8, n_codebooks=2)
    monitor.update(torch.tensor([[[0, 1, 2, 3], [5, 5, 5, 5]], [[0, 1, 2, 3], [5, 5, 5, 5]]]))
    usage = monitor.usage()
    assert usage.perplexity == pytest.approx((4 + 1) / 2)
    assert usage.used == pytest.approx(5 / 16)
    assert (usage.dead, usage.n_codes) == (11, 8)
    assert monitor.usage().n_codes == 0


def test_monitor_warns_of_a_collapse_only() -> None:
    monitor = CollapseMonitor(512, n_codebooks=1)
    healthy = torch.arange(2048).remainder(512).view(4, 1, 512)
    monitor.update(healthy)
    assert monitor.warning(monitor.usage()) is None
    monitor.update(healthy.remainder(3))
    warning = monitor.warning(monitor.usage())
    assert warning is not None
    assert "perplexity 3.0 of 512, 509 codes unused" in warning
    assert "use model.quantizer.codebook_dim" in warning
    assert "\n" not in warning
    monitor.update(healthy[:1, :, :100].remainder(3))  # too few codes to tell
    assert monitor.warning(monitor.usage()) is None


@pytest.mark.parametrize("collapsed", [True, False])
def test_a_training_that_collapses_says_so(
    data: PreparedData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, collapsed: bool
) -> None:
    monkeypatch.setattr(trainer, "SETTLING_STEPS", 2)
    if collapsed:
        nearest = VectorQuantizer.nearest
        monkeypatch.setattr(
            VectorQuantizer, "nearest", lambda self, x: torch.zeros_like(nearest(self, x))
        )
    _, reports = run(small_recipe(data, tmp_path, steps=5))
    warned = ["collapsing" in (report.warning or "") for report in reports]
    assert warned == [False, False, *3 * [collapsed]]
