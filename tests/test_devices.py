"""What a GPU would say of tensors that were left on the CPU, asked without a GPU.

Fake tensors have a device and a shape but no values, and refuse to be mixed as real ones would.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny_models import TINY
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from vqcodec.data import perturbation
from vqcodec.data.batches import Batch
from vqcodec.models.pitch import PitchStream
from vqcodec.models.vqvae import VQVAE
from vqcodec.training.adversary import Adversary
from vqcodec.training.encoder_objective import EncoderObjective
from vqcodec.training.objective import Objective
from vqcodec.training.recipe import Recipe

SAMPLES = 64 * 128


def moved(module: nn.Module, mode: FakeTensorMode) -> nn.Module:
    """The same module, its tensors on a GPU that does not exist."""

    def fake(tensor: Tensor) -> Tensor:
        double = mode.from_tensor(tensor.detach())
        with mode:
            return double.to("cuda")

    for part in module.modules():
        for name, parameter in part.named_parameters(recurse=False):
            part.register_parameter(name, nn.Parameter(fake(parameter)))
        for name, buffer in part.named_buffers(recurse=False):
            part.register_buffer(name, fake(buffer))
    return module


def on_gpu() -> Batch:
    waveform = torch.empty(2, SAMPLES, device="cuda")
    return Batch(
        waveform,
        waveform,
        torch.empty(2, 32000, device="cuda"),
        torch.empty(2, 32000, device="cuda"),
        torch.zeros(2, dtype=torch.int64, device="cuda"),
        torch.zeros(2, 64, dtype=torch.int64, device="cuda"),
        torch.zeros(2, 1, 64, dtype=torch.int64, device="cuda"),
        torch.zeros(2, dtype=torch.bool, device="cuda"),
        torch.empty(2, 0, device="cuda"),
        {"pitch": torch.empty(2, PitchStream.channels, 64, device="cuda")},
        {"pitch": torch.empty(2, 64, device="cuda")},
    )


@pytest.mark.parametrize("update", ["ema", "loss"])
@pytest.mark.parametrize("speaker", ["encoder", "table"])
def test_every_loss_is_computed_where_the_batch_is(speaker: str, update: str) -> None:
    model: dict[str, Any] = {
        **TINY,
        "speaker": {"kind": speaker},
        "quantizer": {"codebook_update": update},
        "pitch": {},
    }
    recipe = Recipe.model_validate(
        {"stage": "joint", "model": model, "loss": {"stoi": 1.0, "periodicity": 1.0, "phones": 1.0}}
    )
    mode = FakeTensorMode()
    objective = moved(
        Objective(VQVAE(recipe.model, n_speakers=2), recipe, n_phones=40).eval(), mode
    )
    adversary = moved(Adversary(recipe.adversarial), mode)
    quantizer = objective.model.quantizer
    del quantizer.initialized
    quantizer.initialized = True  # a fake tensor is neither true nor false
    with mode:
        batch = on_gpu()
        losses = objective(batch)
        game = adversary(losses.decoded, batch.waveform)
    assert {losses.total.device.type, game.total.device.type} == {"cuda"}
    assert {"wavenet", "latent_mel", "stoi", "periodicity", "phones"} <= losses.parts.keys()
    assert {part.device.type for part in losses.parts.values()} == {"cuda"}


def test_losses_of_encoders_alone_are_computed_where_the_batch_is() -> None:
    settings = {"stage": "encoder", "initial_model": "any", "loss": {"stoi": 1.0}}
    recipe = Recipe.model_validate({**settings, "model": {**TINY, "pitch": {}}})
    mode = FakeTensorMode()
    objective = moved(EncoderObjective(VQVAE(recipe.model), recipe, tables=None), mode)
    with mode:
        losses = objective(on_gpu())
    assert {"stoi", "commitment", "latents", "voice"} <= losses.parts.keys()
    assert {part.device.type for part in losses.scalars().values()} == {"cuda"}


def test_segments_are_perturbed_where_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    # torch.istft looks at the values of its window; its double does not.
    monkeypatch.setattr(torch, "istft", lambda spectrum, *_, length, **__: spectrum.abs()[:, 0, :1])
    with FakeTensorMode():
        waveform = torch.empty(2, SAMPLES, device="cuda")
        amounts = torch.ones(2, device="cuda")
        perturbed = perturbation.perturb(waveform, 16000, semitones=amounts, formant_ratio=amounts)
        assert perturbed.device.type == "cuda"
