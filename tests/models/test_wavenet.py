"""The WaveNet: causality, its exact reach, and sampling that is what it was trained for."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from vqcodec.inference.wavenet.reference import ReferenceSampler
from vqcodec.models.config import WaveNetConfig
from vqcodec.models.interfaces import Condition
from vqcodec.models.mu_law import N_LEVELS, SILENCE
from vqcodec.models.wavenet import WaveNet

DIM, SPEAKER_DIM, HOP_LENGTH = 4, 6, 8


def make(**changes) -> WaveNet:
    settings = {
        "n_stacks": 2,
        "layers_per_stack": 3,
        "residual_channels": 8,
        "skip_channels": 12,
        "condition_channels": 10,
    } | changes
    torch.manual_seed(0)
    wavenet = WaveNet(WaveNetConfig(**settings), DIM, SPEAKER_DIM, HOP_LENGTH).eval()
    for parameter in wavenet.requires_grad_(False).parameters():
        # Fresh weights give logits that hardly differ.
        parameter.mul_(2)
    return wavenet


def inputs(n_lanes: int, n_codes: int, seed: int = 1) -> tuple[torch.Tensor, ...]:
    """Levels (B, N * hop), latents (B, D, N), speaker (B, S)."""
    generator = torch.Generator().manual_seed(seed)
    return (
        torch.randint(N_LEVELS, (n_lanes, n_codes * HOP_LENGTH), generator=generator),
        torch.randn(n_lanes, DIM, n_codes, generator=generator),
        torch.randn(n_lanes, SPEAKER_DIM, generator=generator),
    )


def sampled(wavenet: WaveNet, condition: torch.Tensor, seeds: list[int], **options) -> torch.Tensor:
    sampler = ReferenceSampler(wavenet, seeds=seeds, **options)
    return torch.cat(list(sampler.blocks(condition)), dim=1)


def test_it_is_causal_and_sees_exactly_its_receptive_field():
    wavenet = make()
    levels, latents, speaker = inputs(1, 8)
    assert wavenet.receptive_field == 1 + 2 * (1 + 2 + 4)
    before = wavenet(levels, Condition(latents, speaker))
    assert before.shape == (1, N_LEVELS, 64)
    for position in (0, 5, 30):
        other = levels.clone()
        other[0, position] = (other[0, position] + 100) % N_LEVELS
        changed = (
            (wavenet(other, Condition(latents, speaker)) != before).any(dim=1)[0].nonzero()[:, 0]
        )
        assert changed.min() == position + 1
        assert changed.max() == position + wavenet.receptive_field


def test_codes_and_speaker_reach_every_sample():
    wavenet = make()
    levels, latents, speaker = inputs(1, 4)
    before = wavenet(levels, Condition(latents, speaker))
    assert (wavenet(levels, Condition(latents + 1, speaker)) != before).any(dim=1).all()
    assert (wavenet(levels, Condition(latents, -speaker)) != before).any(dim=1).all()


def test_a_code_is_heard_two_codes_around_its_hop_at_most():
    """The decoder cuts its windows with that much context."""
    wavenet = make()
    _, latents, speaker = inputs(1, 12)
    other = latents.clone()
    other[..., 6] += 1
    changed = wavenet.per_code(Condition(latents, speaker)) != wavenet.per_code(
        Condition(other, speaker)
    )
    assert changed.any(-1)[0].nonzero()[:, 0].tolist() == [4, 5, 6, 7, 8]


def test_sampling_steps_give_the_teacher_forced_logits():
    wavenet = make()
    levels, latents, speaker = inputs(3, 6)
    expected = wavenet(levels, Condition(latents, speaker))
    assert expected.std() > 0.05
    sampler = ReferenceSampler(wavenet, seeds=[0, 1, 2])
    condition = wavenet.per_code(Condition(latents, speaker))
    held = [layer.condition(condition).transpose(0, 1) for layer in wavenet.layers]
    for index in range(levels.shape[1]):
        logits = sampler.logits([rows[index // HOP_LENGTH] for rows in held])
        torch.testing.assert_close(logits, expected[..., index], atol=1e-4, rtol=0)
        sampler.levels = levels[:, index]


def test_a_seed_gives_the_same_samples_in_any_company_and_in_any_pieces():
    wavenet = make()
    _, latents, speaker = inputs(4, 5)
    condition = wavenet.per_code(Condition(latents, speaker))
    together = sampled(wavenet, condition, [7, 8, 9, 9])
    alone = sampled(wavenet, condition[1:2], [8])
    torch.testing.assert_close(together[1], alone[0], atol=1e-6, rtol=0)
    sampler = ReferenceSampler(wavenet, seeds=[8])
    parts = [block for part in condition[1:2].split(2, dim=1) for block in sampler.blocks(part)]
    assert torch.equal(torch.cat(parts, dim=1), alone)
    assert not torch.equal(sampled(wavenet, condition[1:2], [9]), alone)


def fixed_distribution() -> tuple[WaveNet, torch.Tensor]:
    """A model whose every sample has the same distribution, and its logits (256,)."""
    wavenet = make(pre_emphasis=0.0)
    for parameter in wavenet.parameters():
        parameter.zero_()
    wavenet.logits.bias.copy_(torch.randn(N_LEVELS, generator=torch.Generator().manual_seed(5)))
    return wavenet, wavenet.logits.bias


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_samples_follow_the_distribution(temperature):
    wavenet, logits = fixed_distribution()
    condition = torch.zeros(400, 8, wavenet.config.condition_channels)
    waveform = sampled(wavenet, condition, list(range(400)), temperature=temperature)
    levels = wavenet.to_levels(waveform)
    counts = torch.bincount(levels.flatten(), minlength=N_LEVELS).double()
    expected = (logits.double() / temperature).softmax(0) * counts.sum()
    kept = expected > expected.quantile(0.2)  # rare levels are counted together
    assert (
        stats.chisquare(
            [*counts[kept], counts[~kept].sum()], [*expected[kept], expected[~kept].sum()]
        ).pvalue
        > 1e-3
    )


def test_temperature_zero_takes_the_peak():
    wavenet, logits = fixed_distribution()
    condition = torch.zeros(2, 1, wavenet.config.condition_channels)
    levels = wavenet.to_levels(sampled(wavenet, condition, [0, 1], temperature=0))
    assert (levels == logits.argmax()).all()


def test_levels_are_mu_law_and_survive_the_waveform():
    wavenet = make(pre_emphasis=0.0)
    levels = torch.arange(N_LEVELS)[None]
    waveform = wavenet.to_waveform(levels, torch.zeros(1))
    assert torch.equal(wavenet.to_levels(waveform), levels)
    assert (waveform.diff() > 0).all()
    assert wavenet.to_levels(torch.zeros(1, 3)).tolist() == [[SILENCE] * 3]


def test_levels_keep_a_voice_and_blocks_join():
    wavenet = make()
    time = torch.arange(4000) / 16000
    harmonics = torch.arange(1, 20)[:, None]
    voice = (torch.sin(2 * torch.pi * 120 * harmonics * time) / harmonics).sum(0)[None]
    voice *= 0.06 / voice.square().mean().sqrt()
    levels = wavenet.to_levels(voice)
    whole = wavenet.to_waveform(levels, torch.zeros(1))
    error = (whole - voice).square().mean().sqrt() / voice.square().mean().sqrt()
    assert error < 0.05
    last, parts = torch.zeros(1), []
    for part in levels.split(128, dim=1):
        parts.append(wavenet.to_waveform(part, last))
        last = parts[-1][:, -1]
    assert torch.equal(torch.cat(parts, dim=1), whole)


def test_de_emphasis_is_the_recursion():
    wavenet = make()
    rng = np.random.default_rng(0)
    levels, last = torch.from_numpy(rng.integers(0, N_LEVELS, (2, 3001))), torch.tensor([0.5, -0.2])
    flat = make(pre_emphasis=0.0).to_waveform(levels, torch.zeros(2)).double()
    before = last.double()
    for given, heard in zip(flat.T, wavenet.to_waveform(levels, last).T, strict=True):
        before = given + wavenet.config.pre_emphasis * before
        torch.testing.assert_close(heard.double(), before, atol=1e-6, rtol=0)
