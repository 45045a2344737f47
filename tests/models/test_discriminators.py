"""Discriminators: what they look at, what they learn, and who learns from which loss."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from vqcodec.audio import load
from vqcodec.models.discriminators import N_FFTS, Discriminators, SpectrogramDiscriminator
from vqcodec.models.loss_config import LONGEST_WINDOW
from vqcodec.training.adversary import Adversary
from vqcodec.training.recipe import AdversarialConfig


@pytest.fixture(scope="module")
def segments(speech) -> Tensor:
    """(8, 2048) of speech at the level that models hear."""
    waveform = torch.from_numpy(load(speech, 16000))
    starts = torch.linspace(4000, len(waveform) - 8000, 8).long()
    cut = torch.stack([waveform[start : start + LONGEST_WINDOW] for start in starts])
    return 0.06 * cut / cut.std()


def noise_like(segments: Tensor) -> Tensor:
    return 0.06 * torch.randn(segments.shape)


@pytest.mark.parametrize("n_fft", N_FFTS)
def test_a_score_for_every_frame(n_fft: int) -> None:
    discriminator = SpectrogramDiscriminator(n_fft, 4)
    for n_samples in (LONGEST_WINDOW, 4097):
        scores, features = discriminator(torch.randn(2, n_samples))
        n_frames = 1 + n_samples // (n_fft // 4)
        assert scores.shape[:3] == (2, 1, n_frames)
        assert {feature.shape[2] for feature in features} == {n_frames}
        assert features[0].shape[3] == n_fft // 2 + 1


@pytest.mark.parametrize("level", [0.0, 1e-3, 30.0])
def test_finite_with_finite_gradient_at_any_level(level: float) -> None:
    waveform = (level * torch.randn(1, 4096)).requires_grad_()
    judgements = Discriminators(4)(waveform)
    sum(judgement.scores.sum() for judgement in judgements).backward()
    assert waveform.grad is not None
    assert waveform.grad.isfinite().all()


def test_they_learn_to_tell_noise_from_speech(segments: Tensor) -> None:
    torch.manual_seed(0)
    adversary = Adversary(AdversarialConfig(weight=1.0, channels=4))
    optimizer = torch.optim.AdamW(adversary.parameters(), lr=1e-2)
    train, held_out = segments[0::2], segments[1::2]
    losses = []
    for _ in range(20):
        loss = adversary(noise_like(train), train).discriminator
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[0] == pytest.approx(2.0, abs=0.2)
    with torch.no_grad():
        unseen = adversary(noise_like(held_out), held_out)
    assert unseen.discriminator < 1.5
    assert unseen.adversarial > 1.0  # and the noise is told that it does not pass


def test_each_side_learns_from_its_own_losses(segments: Tensor) -> None:
    torch.manual_seed(0)
    true, decoded = segments[:2], noise_like(segments[:2]).requires_grad_()
    adversary = Adversary(AdversarialConfig(weight=0.5, feature_matching=2.0, channels=4))

    def gradients(loss: Tensor) -> list[Tensor | None]:
        sources = [decoded, *adversary.parameters()]
        return list(torch.autograd.grad(loss, sources, allow_unused=True, retain_graph=True))

    losses = adversary(decoded, true)
    assert all(parameter.requires_grad for parameter in adversary.parameters())
    of_decoder, *of_judges = gradients(losses.total)
    only_decoder, *unmoved = gradients(0.5 * losses.adversarial + 2.0 * losses.feature_matching)
    still, *only_judges = gradients(losses.discriminator)
    assert still is None
    assert set(unmoved) == {None}
    torch.testing.assert_close(of_decoder, only_decoder)
    for together, alone in zip(of_judges, only_judges, strict=True):
        torch.testing.assert_close(together, alone)
    assert of_decoder.abs().max() > 0


def test_a_perfect_decoder_matches_every_feature(segments: Tensor) -> None:
    losses = Adversary(AdversarialConfig(weight=1.0, channels=4))(segments[:2], segments[:2])
    assert losses.feature_matching == 0
