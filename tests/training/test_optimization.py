"""How weights follow the gradient: averages, precision, compiled parts, the learning rate."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from command_line import needs
from torch import nn
from training_data import data_section, model_with, run, small_recipe, trainer_of

import vqcodec
from vqcodec.data.data_config import PerturbationConfig
from vqcodec.data.prepared import PreparedData
from vqcodec.training.objective import Objective
from vqcodec.training.optimization import learning_rate
from vqcodec.training.recipe import Recipe
from vqcodec.training.stages import train
from vqcodec.weights import checkpoint

pytestmark = pytest.mark.usefixtures("_few_validation_batches")


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
    job = trainer_of(
        small_recipe(data, tmp_path, **changes),
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
    job = trainer_of(recipe)
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
    job = trainer_of(recipe)
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


@pytest.mark.parametrize(("past_noise", "most"), [(0.0, 0), (0.05, 0), (6.0, 40)])
def test_a_wavenet_is_told_no_more_noise_than_asked_for(past_noise: float, most: int) -> None:
    torch.manual_seed(0)
    recipe = SimpleNamespace(perturbation=PerturbationConfig(past_noise=past_noise))
    to_levels = SimpleNamespace(to_levels=lambda waveform: (waveform * 256).long()[..., None])
    waveform = torch.full((64, 200), 0.5)
    told = Objective._told(recipe, to_levels, waveform)
    off = (told - 128).abs().max()
    assert off <= most
    assert bool(off) == bool(most)
