"""The compiled sampler against the PyTorch module and the plain sampler."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pytest
import torch
from scipy import stats

from vqcodec.inference.wavenet.cpu import CpuSampler
from vqcodec.inference.wavenet.graph import GraphSampler
from vqcodec.inference.wavenet.kernel import (
    choose,
    predict,
    remember,
    set_condition,
    step,
    tell,
)
from vqcodec.models.config import WaveNetConfig
from vqcodec.models.interfaces import Condition
from vqcodec.models.mu_law import SILENCE
from vqcodec.models.wavenet import WaveNet
from vqcodec.weights import checkpoint

DIM, SPEAKER_DIM, HOP_LENGTH = 16, 64, 32
PRESETS = {
    "small, odd widths": WaveNetConfig(
        n_stacks=2, layers_per_stack=3, residual_channels=8, skip_channels=12, condition_channels=20
    ),
    "default": WaveNetConfig(),
    "bands, odd widths": WaveNetConfig(
        n_stacks=2,
        layers_per_stack=3,
        residual_channels=8,
        skip_channels=12,
        condition_channels=20,
        hidden_channels=24,
        n_bands=4,
        prediction_order=3,
        coarse_steps=4,
    ),
    "bands": WaveNetConfig(
        layers_per_stack=8,
        hidden_channels=64,
        n_bands=4,
        prediction_order=8,
        coarse_steps=7,
    ),
    "large": WaveNetConfig(n_stacks=3, residual_channels=128, skip_channels=256),
}


def make_wavenet(preset: str, seed: int = 0) -> WaveNet:
    if preset == "packaged":
        trained = checkpoint.load().model.wavenet
        assert trained is not None
        return trained.requires_grad_(False)
    torch.manual_seed(seed)
    config = PRESETS[preset]
    wavenet = WaveNet(config, DIM, SPEAKER_DIM, HOP_LENGTH)
    wavenet.eval().requires_grad_(False)
    for name, parameter in wavenet.named_parameters():
        # What a model file holds, and spread enough that the logits differ from each other.
        if name.startswith(("prediction.", "coarse.")):
            parameter.normal_(std=0.05)
        scale = 1 if name.startswith("sharpness.") else 2
        parameter.copy_((parameter * scale).half().float())
    return wavenet


def make_condition(wavenet: WaveNet, n_lanes: int, n_codes: int) -> tuple[Condition, torch.Tensor]:
    """A condition, and what the layers are told of it."""
    generator = torch.Generator().manual_seed(1)
    dim = wavenet.conditioner[0].in_channels
    latents = torch.randn(n_lanes, dim, n_codes, generator=generator)
    speaker = torch.randn(n_lanes, SPEAKER_DIM, generator=generator)
    features = None
    if wavenet.features is not None:
        shape = n_lanes, n_codes, wavenet.features.in_features
        features = torch.randn(shape, generator=generator)
    coarse = 0.1 * torch.randn(n_lanes, n_codes * wavenet.hop_length, generator=generator)
    condition = Condition(latents, speaker, features=features, coarse=coarse)
    return condition, wavenet.per_code(condition)


def sampler(wavenet: WaveNet, seeds: Iterable[int], **options: float) -> CpuSampler:
    state = {name: tensor.numpy() for name, tensor in wavenet.state_dict().items()}
    return CpuSampler(state, wavenet.config, wavenet.hop_length, seeds=list(seeds), **options)


def sampled(
    wavenet: WaveNet, condition: torch.Tensor, seeds: Iterable[int], **options: float
) -> np.ndarray:
    """(B, T) waveforms, all at once."""
    blocks = sampler(wavenet, seeds, **options).blocks(condition.numpy())
    return np.concatenate(list(blocks), axis=1)


def forced_logits(kernel: CpuSampler, levels: np.ndarray, condition: torch.Tensor) -> np.ndarray:
    """(B, S, M, 256) logits of the kernel when it is told the levels (B, S, M)."""
    (group,) = kernel.groups
    weights, state = group.weights, group.state
    n_lanes, n_steps, n_bands = levels.shape
    room = state.levels.shape[1] - n_lanes
    padded = np.pad(kernel.inputs(condition.permute(1, 2, 0).numpy()), [(0, 0), (0, 0), (0, room)])
    logits = np.empty((*levels.shape, 256), np.float32)
    for index in range(n_steps):
        code, within = divmod(index * n_bands, kernel.hop_length)
        if not within:
            set_condition(weights, state, padded[code])
        step(weights, state, within // n_bands)
        for band in range(n_bands):
            predict(weights, state, band)
            logits[:, index, band] = state.logits[:, :n_lanes].T
            state.levels[band, :n_lanes] = levels[:, index, band]
            tell(weights, state, band)
        remember(state)
    return logits


@pytest.mark.parametrize("n_lanes", [1, 9])
@pytest.mark.parametrize("preset", [*PRESETS, "packaged"])
def test_logits_are_those_of_the_module(preset: str, n_lanes: int) -> None:
    wavenet = make_wavenet(preset)
    condition, told = make_condition(wavenet, n_lanes, n_codes=5)
    n_steps = 5 * wavenet.hop_length // wavenet.n_bands
    levels = torch.randint(0, 256, (n_lanes, n_steps, wavenet.n_bands))
    expected = wavenet(levels, condition)
    assert expected.std() > 0.05
    got = forced_logits(sampler(wavenet, range(n_lanes)), levels.numpy(), told)
    # Levels at random are louder than speech, and a trained network's logits of them are large.
    np.testing.assert_allclose(
        got, expected.numpy(), rtol=0, atol=1e-5 * np.abs(got).max().clip(10)
    )


@pytest.mark.parametrize("preset", ["default", "bands"])
def test_samples_do_not_depend_on_company_or_threads(preset: str, threads: None) -> None:
    wavenet = make_wavenet(preset)
    _, condition = make_condition(wavenet, 19, n_codes=4)
    alone = [sampled(wavenet, condition[seed : seed + 1], [seed]) for seed in (0, 3, 17)]
    for n_threads in (1, 2, 4):
        torch.set_num_threads(n_threads)
        together = sampled(wavenet, condition, range(19))
        for seed, single in zip((0, 3, 17), alone, strict=True):
            assert np.array_equal(together[seed], single[0])


@pytest.mark.parametrize("preset", ["small, odd widths", "bands, odd widths"])
def test_going_on_equals_sampling_at_once(preset: str) -> None:
    wavenet = make_wavenet(preset)
    _, condition = make_condition(wavenet, 2, n_codes=60)
    whole = sampled(wavenet, condition, [4, 5])
    kernel = sampler(wavenet, [4, 5])
    parts = [
        block for n in (range(7), range(7, 60)) for block in kernel.blocks(condition[:, n].numpy())
    ]
    assert np.array_equal(np.concatenate(parts, 1), whole)
    other = sampled(wavenet, condition, [4, 6])
    assert np.array_equal(other[0], whole[0])
    assert not np.array_equal(other[1], whole[1])


@pytest.mark.parametrize("preset", ["small, odd widths", "bands, odd widths"])
def test_it_begins_like_the_sampler_in_pytorch(preset: str) -> None:
    # Until rounding lets one draw fall on the other side, both walk the same path.
    wavenet = make_wavenet(preset)
    _, condition = make_condition(wavenet, 3, n_codes=2)
    for temperature, n_samples in ((1.0, 20), (0.0, None)):
        fast = sampled(wavenet, condition, [1, 2, 3], temperature=temperature)
        plain = GraphSampler(wavenet, seeds=[1, 2, 3], temperature=temperature)
        expected = torch.cat(list(plain.blocks(condition)), 1).numpy()
        np.testing.assert_allclose(fast[:, :n_samples], expected[:, :n_samples], atol=1e-5)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_levels_follow_the_distribution(temperature: float) -> None:
    wavenet = make_wavenet("bands, odd widths")
    state = sampler(wavenet, range(16)).groups[0].state
    rng = np.random.default_rng(0)
    state.logits[:] = rng.normal(0, 1, (256, 1))
    counts = np.zeros(256)
    for _ in range(4000):
        choose(state, 2, temperature, rng.random(16))
        counts += np.bincount(state.levels[2], minlength=256)
    share = np.exp(state.logits[:, 0].astype(np.float64) / temperature)
    expected = share / share.sum() * counts.sum()
    assert stats.chisquare(counts, expected).pvalue > 1e-3
    # A test that passes anything proves nothing: a slightly wrong temperature must fail it.
    wrong = np.exp(state.logits[:, 0].astype(np.float64) / (temperature * 1.1))
    assert stats.chisquare(counts, wrong / wrong.sum() * counts.sum()).pvalue < 1e-6


@pytest.mark.parametrize("n_lanes", [1, 16])
def test_at_temperature_zero_the_first_peak_is_taken_whatever_is_drawn(n_lanes: int) -> None:
    state = sampler(make_wavenet("bands, odd widths"), range(n_lanes)).groups[0].state
    rng = np.random.default_rng(0)
    for _ in range(100):
        state.logits[:] = 1 + 1e-7 * rng.integers(0, 9, state.logits.shape)
        choose(state, 2, 0.0, rng.random(n_lanes))
        assert np.array_equal(state.levels[2], state.logits.argmax(0))


def test_silence_is_the_level_of_zero() -> None:
    wavenet = make_wavenet("small, odd widths")
    assert int(wavenet.to_levels(torch.zeros(1, 1))) == SILENCE
