from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from tiny_models import TINY, save_tiny_model
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from vqcodec.models.config import ModelConfig
from vqcodec.models.cost import latency_ms, part_costs
from vqcodec.models.interfaces import Condition
from vqcodec.models.receptive_field import condition_context
from vqcodec.models.vqvae import VQVAE
from vqcodec.weights.registry import find, packaged, read_header

SECONDS = 4.0
SMALL = {"channels": 16, "n_layers": 2}
CONFIGS: dict[str, dict[str, Any]] = {
    "default": TINY,
    "three rates": {**TINY, "encoder": {"strides": [32, 4, 5]}, "fast": {**SMALL, "upsample": 5}},
    "one rate": {**TINY, "encoder": {"strides": [128], "dilations": [1]}},
    "causal": {**TINY, "encoder": {"causal": True}, "fast": {**SMALL, "causal": True}},
    "paper": {**TINY, "encoder": {"paper": True, "strides": [2] * 6}, "fast": SMALL},
    "table": {**TINY, "speaker": {"kind": "table"}, "wavenet": None},
    "residual": {**TINY, "quantizer": {"kind": "residual_vq", "num_quantizers": 3}},
    "fsq": {**TINY, "quantizer": {"kind": "fsq"}},
    "bands": {
        **TINY,
        "wavenet": {**TINY["wavenet"], "n_bands": 4, "hears_fast": True, "coarse_steps": 3},
    },
}


def counted(network: Callable[..., Any], *inputs: Any) -> float:
    """Multiply-accumulates in a second of what is really multiplied."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(*inputs)
    return counter.get_total_flops() / 2 / SECONDS


@pytest.fixture(params=CONFIGS)
def model(request: pytest.FixtureRequest) -> VQVAE:
    model = VQVAE(ModelConfig.model_validate(CONFIGS[request.param]), n_speakers=3).eval()
    if hasattr(model.quantizer, "initialized"):
        model.quantizer.initialized.fill_(True)
    return model


def test_what_is_counted_by_shapes_is_what_is_multiplied(model: VQVAE) -> None:
    config = model.config
    costs = part_costs(config, {name: list(x.shape) for name, x in model.state_dict().items()})
    n_codes = round(SECONDS * config.sample_rate / config.hop_length)
    waveform = 0.06 * torch.randn(1, n_codes * config.hop_length)
    latents = torch.randn(1, config.quantizer.dim, n_codes)
    told = Condition(latents, torch.zeros(1, 64))
    expected = {"encoder": counted(model.encoder, waveform)}
    if config.quantizer.kind in ("vq", "fsq"):  # the others compare in ways that are not counted
        expected["quantizer"] = counted(model.quantizer, latents)
    if config.speaker.kind == "encoder":
        expected["speaker"] = counted(model.speaker, waveform)
    expected["fast"] = counted(model.fast, told)
    if model.wavenet is not None:
        informed = model.wavenet.informed(told, model.fast)
        expected["wavenet"] = counted(model.wavenet, model.wavenet.to_levels(waveform), informed)
        expected["wavenet"] -= counted(model.wavenet.to_levels, waveform)
    for part, macs in expected.items():
        # Of the voice alone the layers are used once, and the mel spectrum has a frame more.
        assert costs[part].macs_per_second == pytest.approx(macs, rel=0.02), part


def test_parameters_are_those_that_are_learnt(model: VQVAE) -> None:
    config = model.config
    costs = part_costs(config, {name: list(x.shape) for name, x in model.state_dict().items()})
    for part, cost in costs.items():
        network: nn.Module = getattr(model, part)
        learnt = sum(value.numel() for value in network.parameters())
        learnt += sum(
            value.numel()
            for name, value in network.named_buffers()
            if re.search(r"(^codebook|\.embed)$", name)
        )
        assert cost.parameters == learnt, part


def test_look_ahead_is_that_of_the_networks(model: VQVAE) -> None:
    config = model.config
    costs = part_costs(config, {name: list(x.shape) for name, x in model.state_dict().items()})
    latency = latency_ms(config, costs)
    assert costs["fast"].look_ahead_ms == 1000 * model.fast._reach[0] / config.sample_rate
    if model.wavenet is not None:
        samples = condition_context(config, 0)[1] * config.hop_length
        assert costs["wavenet"].look_ahead_ms == 1000 * samples / config.sample_rate
    assert set(latency) == set(config.decoders)
    if config.encoder.causal:
        assert costs["encoder"].look_ahead_ms == 0
        assert latency["fast"] == 1000 * (128 + 192) / 16000


def test_a_model_file_costs_what_its_network_does(tmp_path: Any) -> None:
    path = tmp_path / "tiny.safetensors"
    save_tiny_model(path, seed=0)
    header = read_header(path)
    config = ModelConfig.model_validate_json(header.config)
    model = VQVAE(config)
    stored = part_costs(config, header.shapes)
    assert stored == part_costs(config, {k: list(x.shape) for k, x in model.state_dict().items()})


def test_the_packaged_models_cost_what_is_known() -> None:
    for name in packaged():
        header = read_header(find(name))
        costs = part_costs(ModelConfig.model_validate_json(header.config), header.shapes)
        assert set(costs) <= {"encoder", "quantizer", "speaker", "fast", "wavenet"}
        if "wavenet" in costs:
            # By hand: 8 layers of 24,576 products, heads of 82k and inputs of 2.5k at 4 kHz.
            assert costs["wavenet"].macs_per_second == pytest.approx(1.147e9, rel=0.01)


def test_it_is_told_without_torch() -> None:
    code = "import sys, vqcodec.models.cost; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
