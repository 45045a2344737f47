"""The sampler in PyTorch against a network without memory: uncaptured, and captured on a GPU."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vqcodec.inference.wavenet.graph import GraphSampler
from vqcodec.models.config import WaveNetConfig
from vqcodec.models.interfaces import Condition
from vqcodec.models.mu_law import SILENCE, LevelDecoder
from vqcodec.models.wavenet import WaveNet

CONFIG = WaveNetConfig(
    n_stacks=2,
    layers_per_stack=4,
    residual_channels=8,
    skip_channels=12,
    condition_channels=20,
    hidden_channels=16,
)
HOP_LENGTH = 32
DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


def sampled_without_memory(
    wavenet: WaveNet, told: Condition, seeds: list[int | list[int]], temperature: float
) -> torch.Tensor:
    """(B, T): every band of every step by a pass over all steps before it."""
    generators = [np.random.default_rng(seed) for seed in seeds]
    n_codes, n_bands = told.latents.shape[-1], wavenet.n_bands
    levels = torch.full((len(seeds), n_codes * HOP_LENGTH // n_bands, n_bands), SILENCE)
    draws = np.concatenate(
        [np.stack([rng.random(HOP_LENGTH) for rng in generators]) for _ in range(n_codes)], axis=1
    ).reshape(levels.shape)
    for step, band in np.ndindex(*levels.shape[1:]):
        logits = wavenet(levels, told)[:, step, band].double()
        levels[:, step, band] = logits.argmax(-1)
        if temperature:
            own = temperature * wavenet.config.temperatures[band]
            cumulative = (logits / own).softmax(-1).cumsum(-1)
            found = torch.searchsorted(
                cumulative, torch.from_numpy(draws[:, step, band, None].copy())
            )
            levels[:, step, band] = found[:, 0]
    synthesize = LevelDecoder(len(seeds), n_bands, wavenet.config.pre_emphasis)
    return torch.from_numpy(synthesize(levels.numpy()))


@pytest.mark.parametrize("temperature", [0.0, 0.8, 1.0])
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("n_bands", "order"), [(1, 0), (4, 3)])
def test_samples_are_those_of_the_network_without_memory(
    n_bands: int, order: int, device: str, temperature: float
) -> None:
    torch.manual_seed(0)
    changes = {"n_bands": n_bands, "prediction_order": order, "coarse_steps": order}
    wavenet = WaveNet(CONFIG.model_copy(update=changes), 16, 64, HOP_LENGTH)
    wavenet.eval().requires_grad_(False)
    if wavenet.prediction is not None and wavenet.coarse is not None:
        wavenet.prediction.filter.weight.normal_(std=0.1)
        wavenet.coarse.weight.normal_(std=0.5)
    coarse = 0.1 * torch.randn(3, 5 * HOP_LENGTH)
    told = Condition(torch.randn(3, 16, 5), torch.randn(3, 64), coarse=coarse)
    seeds: list[int | list[int]] = [1, [2, 5], 3]
    expected = sampled_without_memory(wavenet, told, seeds, temperature)
    condition = wavenet.per_code(told).to(device)
    sampler = GraphSampler(wavenet.to(device), seeds=seeds, temperature=temperature)
    # In two parts: the state must carry over.
    parts = [block for part in condition.split(2, dim=1) for block in sampler.blocks(part)]
    waveform = torch.cat(parts, dim=1).cpu()
    assert waveform.shape == (3, 5 * HOP_LENGTH)
    if temperature:
        assert waveform.std() > 0.005
    torch.testing.assert_close(waveform, expected, atol=1e-5, rtol=0)
