"""The WaveNet: causality, its exact reach, and sampling that is what it was trained for."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import signal, stats

from vqcodec.inference.wavenet.graph import GraphSampler
from vqcodec.models.config import ModelConfig, WaveNetConfig
from vqcodec.models.interfaces import Condition
from vqcodec.models.mu_law import N_LEVELS, SILENCE, LevelDecoder
from vqcodec.models.receptive_field import condition_context
from vqcodec.models.vqvae import VQVAE
from vqcodec.models.wavenet import WaveNet

DIM, SPEAKER_DIM, HOP_LENGTH = 4, 6, 8
BANDS = [1, 4]


def make(**changes) -> WaveNet:
    settings = {
        "n_stacks": 2,
        "layers_per_stack": 3,
        "residual_channels": 8,
        "skip_channels": 12,
        "condition_channels": 10,
        "hidden_channels": 16,
    } | changes
    torch.manual_seed(0)
    wavenet = WaveNet(WaveNetConfig(**settings), DIM, SPEAKER_DIM, HOP_LENGTH).eval()
    for name, parameter in wavenet.requires_grad_(False).named_parameters():
        # Fresh weights give logits that hardly differ, and expect nothing.
        if name.startswith(("prediction.", "coarse.")):
            parameter.normal_(std=0.2)
        elif not name.startswith("sharpness."):
            parameter.mul_(2)
    return wavenet


def inputs(wavenet: WaveNet, n_lanes: int, n_codes: int) -> tuple[torch.Tensor, Condition]:
    """Levels (B, N * hop / M, M), and a condition."""
    generator = torch.Generator().manual_seed(1)
    shape = n_lanes, n_codes * HOP_LENGTH // wavenet.n_bands, wavenet.n_bands
    return (
        torch.randint(N_LEVELS, shape, generator=generator),
        Condition(
            torch.randn(n_lanes, DIM, n_codes, generator=generator),
            torch.randn(n_lanes, SPEAKER_DIM, generator=generator),
            coarse=0.1 * torch.randn(n_lanes, n_codes * HOP_LENGTH, generator=generator),
        ),
    )


def sampled(wavenet: WaveNet, condition: torch.Tensor, seeds: list[int], **options) -> torch.Tensor:
    sampler = GraphSampler(wavenet, seeds=seeds, **options)
    return torch.cat(list(sampler.blocks(condition)), dim=1)


@pytest.mark.parametrize("n_bands", BANDS)
def test_it_is_causal_and_sees_exactly_its_receptive_field(n_bands):
    wavenet = make(n_bands=n_bands)
    levels, condition = inputs(wavenet, 1, 8 * n_bands)
    assert wavenet.receptive_field == 1 + 2 * (1 + 2 + 4)
    before = wavenet(levels, condition)
    assert before.shape == (1, 64, n_bands, N_LEVELS)
    for position in (0, 5, 30):
        for band in range(n_bands):
            other = levels.clone()
            other[0, position, band] = (other[0, position, band] + 100) % N_LEVELS
            changed = (wavenet(other, condition) != before).any(dim=-1)[0]
            steps = changed.any(dim=-1).nonzero()[:, 0]
            # The higher bands of its own step are told, no other.
            assert changed[position].nonzero()[:, 0].tolist() == list(range(band + 1, n_bands))
            assert steps.min() == position + (band == n_bands - 1)
            assert steps.max() == position + wavenet.receptive_field


def test_what_it_is_told_of_the_past_is_not_what_it_predicts():
    wavenet = make(n_bands=4)
    levels, condition = inputs(wavenet, 1, 8)
    other = (levels + 1) % N_LEVELS
    told = wavenet(levels, condition, other)
    torch.testing.assert_close(told, wavenet(other, condition), rtol=0, atol=0)


def test_codes_speaker_and_coarse_waveform_reach_every_sample():
    wavenet = make(coarse_steps=2)
    levels, condition = inputs(wavenet, 1, 4)
    before = wavenet(levels, condition)
    for other in (
        condition._replace(latents=condition.latents + 1),
        condition._replace(speaker=-condition.speaker),
        condition._replace(coarse=-condition.coarse),
    ):
        assert (wavenet(levels, other) != before).any(dim=-1).all()


def test_a_code_is_heard_two_codes_around_its_hop_at_most():
    """The decoder cuts its windows with that much context."""
    wavenet = make()
    _, condition = inputs(wavenet, 1, 12)
    other = condition.latents.clone()
    other[..., 6] += 1
    changed = wavenet.per_code(condition) != wavenet.per_code(condition._replace(latents=other))
    assert changed.any(-1)[0].nonzero()[:, 0].tolist() == [4, 5, 6, 7, 8]


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("upsample", [1, 4])
@pytest.mark.parametrize("coarse_steps", [0, 6])
def test_what_it_hears_of_the_fast_decoder_depends_on_the_context_it_names(
    causal, upsample, coarse_steps
):
    config = ModelConfig(
        fast={
            "channels": 8,
            # Through many layers too little comes for the float32 of a waveform to show.
            "n_layers": 2 if coarse_steps else 5,
            "kernel_size": 5,
            "causal": causal,
            "upsample": upsample,
        },
        wavenet={
            "hears_fast": True,
            "coarse_steps": coarse_steps,
            "n_bands": 4,
            "layers_per_stack": 2,
            "hidden_channels": 8,
        },
        pitch={},
    )
    torch.manual_seed(0)
    model = VQVAE(config).eval().requires_grad_(False).double()
    assert model.wavenet is not None
    for name, parameter in model.named_parameters():
        if ".streams." in name or name.endswith("scale"):
            parameter.normal_()
    before, after = condition_context(config, 1)
    n_codes, at = before + after + 9, after + 4
    latents = torch.randn(1, config.quantizer.dim, n_codes).double()
    pitch = torch.randn(1, model.streams["pitch"].channels, n_codes).double()

    def told(latents: torch.Tensor, pitch: torch.Tensor) -> torch.Tensor:
        condition = Condition(latents, latents.new_zeros(1, 64), {"pitch": pitch})
        return model.wavenet.per_code(model.wavenet.informed(condition, model.fast))

    changed = torch.zeros(n_codes, dtype=torch.bool)
    for moved in (latents, pitch):
        other = moved.clone()
        other[..., at] += 10
        both = (other, pitch) if moved is latents else (latents, other)
        changed |= (told(*both) != told(latents, pitch)).any(-1)[0]
    reached = changed.nonzero()[:, 0]
    assert (at - int(reached.min()), int(reached.max()) - at) == (after, before)


@pytest.mark.parametrize("n_bands", BANDS)
@pytest.mark.parametrize("order", [0, 3])
@pytest.mark.parametrize("coarse_steps", [0, 2])
def test_sampling_steps_give_the_teacher_forced_logits(order, n_bands, coarse_steps):
    wavenet = make(n_bands=n_bands, prediction_order=order, coarse_steps=coarse_steps)
    levels, told = inputs(wavenet, 3, 6)
    expected = wavenet(levels, told)
    assert expected.std() > 0.05
    sampler = GraphSampler(wavenet, seeds=[0, 1, 2])
    condition = wavenet.per_code(told)
    for index, step in enumerate(levels.unbind(1)):
        steps_per_code = HOP_LENGTH // n_bands
        sampler.hear(condition[:, index // steps_per_code])
        coarse = sampler.heard(index % steps_per_code)
        guess = sampler.expected(coarse)
        begun = sampler.inputs(guess, coarse)
        for band in range(n_bands):
            logits = wavenet.band_logits(begun[:, band], band, guess)
            torch.testing.assert_close(logits, expected[:, index, band], atol=1e-4, rtol=0)
            if band < n_bands - 1:
                begun = begun + wavenet.told_lower(step[:, band], band)[:, None]
        sampler.tell(step)


@pytest.mark.parametrize("n_bands", BANDS)
def test_a_seed_gives_the_same_samples_in_any_company_and_in_any_pieces(n_bands):
    wavenet = make(n_bands=n_bands)
    condition = wavenet.per_code(inputs(wavenet, 4, 5)[1])
    together = sampled(wavenet, condition, [7, 8, 9, 9])
    alone = sampled(wavenet, condition[1:2], [8])
    torch.testing.assert_close(together[1], alone[0], atol=1e-6, rtol=0)
    sampler = GraphSampler(wavenet, seeds=[8])
    parts = [block for part in condition[1:2].split(2, dim=1) for block in sampler.blocks(part)]
    assert torch.equal(torch.cat(parts, dim=1), alone)
    assert not torch.equal(sampled(wavenet, condition[1:2], [9]), alone)


def fixed_distribution(n_bands: int = 1) -> tuple[WaveNet, torch.Tensor]:
    """A model whose every step has the same distributions, and their logits (M * 256,)."""
    wavenet = make(pre_emphasis=0.0, n_bands=n_bands)
    for parameter in wavenet.parameters():
        parameter.zero_()
    wavenet.logits.bias.copy_(
        torch.randn(n_bands * N_LEVELS, generator=torch.Generator().manual_seed(5))
    )
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


def test_every_band_has_its_temperature():
    wavenet, logits = fixed_distribution(n_bands=4)
    sampler = GraphSampler(wavenet, seeds=range(50), temperature=0.9)
    sampler.temperatures = [0.9 * own for own in (0.6, 0.8, 1.0, 1.0)]
    condition = torch.zeros(50, 100, wavenet.config.condition_channels)
    levels = [sampler.sampled.flatten(0, 1).clone() for _ in sampler.blocks(condition)]
    bands = zip(torch.cat(levels).T, logits.split(N_LEVELS), (0.6, 0.8, 1.0, 1.0), strict=True)
    for drawn, own, temperature in bands:
        shares = (own.double() / (0.9 * temperature)).softmax(0)
        likely = shares.topk(20).indices  # those that are often enough drawn
        counts = torch.bincount(drawn, minlength=N_LEVELS)
        found, expected = ([*x[likely], x.sum() - x[likely].sum()] for x in (counts, shares))
        assert stats.chisquare(found, np.array(expected) * len(drawn)).pvalue > 1e-3


def test_temperature_zero_takes_the_peak():
    wavenet, logits = fixed_distribution()
    condition = torch.zeros(2, 1, wavenet.config.condition_channels)
    levels = wavenet.to_levels(sampled(wavenet, condition, [0, 1], temperature=0))
    assert (levels == logits.argmax()).all()


def synthesized(levels: torch.Tensor, wavenet: WaveNet) -> torch.Tensor:
    synthesize = LevelDecoder(len(levels), wavenet.n_bands, wavenet.config.pre_emphasis)
    return torch.from_numpy(synthesize(levels.numpy()))


def test_levels_are_mu_law_and_survive_the_waveform():
    wavenet = make(pre_emphasis=0.0)
    levels = torch.arange(N_LEVELS)[None, :, None]
    waveform = synthesized(levels, wavenet)
    assert torch.equal(wavenet.to_levels(waveform), levels)
    assert (waveform.diff() > 0).all()
    assert wavenet.to_levels(torch.zeros(1, 3)).flatten().tolist() == [SILENCE] * 3


@pytest.mark.parametrize("n_bands", BANDS)
def test_levels_keep_a_voice_and_blocks_join(n_bands):
    wavenet = make(n_bands=n_bands)
    time = torch.arange(4000) / 16000
    harmonics = torch.arange(1, 20)[:, None]
    voice = (torch.sin(2 * torch.pi * 120 * harmonics * time) / harmonics).sum(0)[None]
    voice *= 0.06 / voice.square().mean().sqrt()
    levels = wavenet.to_levels(voice)
    whole = synthesized(levels, wavenet)
    assert whole.shape == voice.shape
    # What a filter bank makes of the first samples, it would know of the ones before.
    kept = slice(64, None)
    error = (whole - voice)[:, kept].square().mean().sqrt() / voice.square().mean().sqrt()
    assert error < 0.05
    synthesize = LevelDecoder(1, n_bands, wavenet.config.pre_emphasis)
    parts = [torch.from_numpy(synthesize(part.numpy())) for part in levels.split(37, dim=1)]
    assert torch.equal(torch.cat(parts, dim=1), whole)


def test_de_emphasis_is_the_recursion():
    rng = np.random.default_rng(0)
    levels = rng.integers(0, N_LEVELS, (2, 3001, 1))
    flat = LevelDecoder(2, 1, 0.0)(levels).astype(np.float64)
    heard = LevelDecoder(2, 1, 0.86)(levels)
    expected = signal.lfilter([1.0], [1.0, -0.86], flat)
    np.testing.assert_allclose(heard, expected, atol=1e-5)
