from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from pystoi import stoi
from torch import Tensor

from vqcodec.audio import load
from vqcodec.models.discriminators import Judgement
from vqcodec.models.loss_config import LONGEST_WINDOW, STOI_SECONDS
from vqcodec.models.waveform_loss import (
    IntelligibilityLoss,
    MultiResolutionSpectralLoss,
    PeriodicityLoss,
)
from vqcodec.training.adversary import adversarial_loss, discriminator_loss, feature_matching_loss

RATE = 16000


@pytest.fixture(scope="module")
def loss() -> MultiResolutionSpectralLoss:
    return MultiResolutionSpectralLoss(RATE)


def voiced(n_samples: int = 8000) -> Tensor:
    """(2, n_samples) harmonics of 120 and 210 Hz at the level of normalised speech."""
    time = torch.arange(n_samples) / RATE
    pitches = torch.tensor([120.0, 210.0])
    harmonics = torch.arange(1, 20)
    phase = 2 * torch.pi * pitches[:, None, None] * harmonics[:, None] * time
    waveform = (phase.sin() / harmonics[:, None]).sum(1)
    return 0.06 * waveform / waveform.std(1, keepdim=True)


def test_zero_for_identical_waveforms_only(loss: MultiResolutionSpectralLoss) -> None:
    waveform = voiced()
    assert [value.item() for value in loss(waveform, waveform)] == [0.0, 0.0, 0.0]
    assert all(value > 0.01 for value in loss(0.9 * waveform, waveform))


def test_grows_with_noise(loss: MultiResolutionSpectralLoss) -> None:
    waveform = voiced()
    noise = torch.randn(waveform.shape, generator=torch.Generator().manual_seed(0))
    levels = [1e-4, 1e-3, 1e-2, 1e-1]
    values = torch.tensor([list(loss(waveform + level * noise, waveform)) for level in levels])
    assert (values.diff(dim=0) > 0).all()


def test_what_cannot_be_heard_hardly_counts(loss: MultiResolutionSpectralLoss) -> None:
    waveform = voiced()
    noise = torch.randn(waveform.shape, generator=torch.Generator().manual_seed(0))
    mel, log_stft, _ = loss(waveform + 1e-6 * noise, waveform)
    assert mel < 0.01
    assert log_stft < 0.01


@pytest.mark.parametrize("n_samples", [LONGEST_WINDOW, 4000])
@pytest.mark.parametrize("silent", ["output", "target", "both"])
def test_finite_with_finite_gradient_on_silence(
    loss: MultiResolutionSpectralLoss, silent: str, n_samples: int
) -> None:
    waveform, silence = voiced(n_samples), torch.zeros(2, n_samples)
    output = (silence if silent in ("output", "both") else waveform).requires_grad_()
    values = loss(output, silence if silent in ("target", "both") else waveform)
    assert all(value.isfinite() for value in values)
    sum(values, torch.zeros(())).backward()
    assert output.grad is not None
    assert output.grad.isfinite().all()


def test_identical_waveforms_have_a_finite_gradient(loss: MultiResolutionSpectralLoss) -> None:
    output = voiced().requires_grad_()
    sum(loss(output, voiced()), torch.zeros(())).backward()
    assert output.grad is not None
    assert output.grad.isfinite().all()


def test_gradient_descent_finds_the_waveform_s_spectrum(loss: MultiResolutionSpectralLoss) -> None:
    target = voiced(4096)
    output = (0.01 * torch.randn(2, 4096, generator=torch.Generator().manual_seed(0))).clone()
    output.requires_grad_()
    optimizer = torch.optim.Adam([output], lr=5e-3)
    totals = []
    for _ in range(30):
        total = sum(loss(output, target), torch.zeros(()))
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        totals.append(total.item())
    assert totals[-1] < 0.6 * totals[0]


@pytest.mark.parametrize("sample_rate", [8000, 16000, 22050, 44100])
def test_no_mel_band_is_empty(sample_rate: int) -> None:
    loss = MultiResolutionSpectralLoss(sample_rate)
    for n_fft in loss.n_ffts:
        filters = getattr(loss, f"filters_{n_fft}")
        assert (filters.sum(0) > 0).all()
        assert filters.shape[1] >= 16


@pytest.mark.parametrize("snr", [-5.0, 0.0, 5.0, 10.0, 20.0])
def test_intelligibility_is_what_pystoi_finds(speech: Path, snr: float) -> None:
    waveform = torch.from_numpy(load(speech, RATE))
    noise = torch.randn(waveform.shape, generator=torch.Generator().manual_seed(0))
    noisy = waveform + 10 ** (-snr / 20) * waveform.std() * noise
    found = 1 - IntelligibilityLoss(RATE)(noisy[None], waveform[None])
    assert found.item() == pytest.approx(stoi(waveform.numpy(), noisy.numpy(), RATE), abs=0.02)


def test_intelligibility_does_not_hear_level_or_silence(speech: Path) -> None:
    loss, waveform = IntelligibilityLoss(RATE), torch.from_numpy(load(speech, RATE))[None]
    pause = torch.zeros(1, 16000)
    noise = 1e-4 * torch.randn(1, 16000, generator=torch.Generator().manual_seed(0))
    assert loss(0.1 * waveform, waveform) == pytest.approx(0, abs=1e-3)
    with_pause = loss(torch.cat([waveform, noise], 1), torch.cat([waveform, pause], 1))
    assert with_pause == pytest.approx(0, abs=0.02)


def test_intelligibility_hears_a_pause_in_which_something_rumbles(speech: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    waveform = F.pad(torch.from_numpy(load(speech, RATE)), (0, 2 * RATE))
    time = torch.arange(len(waveform)) / RATE
    waveform += 0.1 * waveform.std() * (2 * torch.pi * 20 * time).sin()
    target, output = (
        waveform + 1e-4 * torch.randn(waveform.shape, generator=generator) for _ in range(2)
    )
    found = 1 - IntelligibilityLoss(RATE)(output[None], target[None])
    measured = stoi(target.numpy(), output.numpy(), RATE)
    assert measured < 0.9
    assert found.item() == pytest.approx(measured, abs=0.02)


@pytest.mark.parametrize("silent", ["output", "target", "both", "neither"])
@pytest.mark.parametrize(
    ("kind", "length"),
    [(IntelligibilityLoss, int(STOI_SECONDS * RATE)), (PeriodicityLoss, LONGEST_WINDOW)],
)
def test_silence_has_a_bounded_loss_with_a_finite_gradient(
    kind: type[IntelligibilityLoss | PeriodicityLoss], length: int, silent: str
) -> None:
    waveform = voiced(length)
    output = (torch.zeros_like(waveform) if silent in ("output", "both") else waveform).clone()
    target = torch.zeros_like(waveform) if silent in ("target", "both") else waveform
    output.requires_grad_()
    value = kind(RATE)(output, target)
    value.backward()
    assert -1e-6 <= value <= 2  # rounding
    assert output.grad is not None
    assert output.grad.isfinite().all()


def pulses(pitch: float) -> Tensor:
    """(1, 16000) harmonics of one pitch up to 4 kHz at the level of normalised speech."""
    harmonics = torch.arange(1, int(4000 / pitch) + 1)
    phase = 2 * torch.pi * pitch * harmonics[:, None] * torch.arange(RATE) / RATE
    waveform = phase.cos().sum(0, keepdim=True)
    return 0.06 * waveform / waveform.std()


def test_periodicity_hears_pitch_and_voicing_alone() -> None:
    loss, voice = PeriodicityLoss(RATE), pulses(120.0)
    noise = 0.06 * torch.randn(voice.shape, generator=torch.Generator().manual_seed(0))
    assert loss(voice, voice) == 0
    assert loss(0.5 * voice, voice) < 1e-3
    # Neither where the pulses lie, nor how they are formed.
    assert loss(voice.roll(50, -1), voice) < 0.01
    shaped = voice[:, 1:] - 0.5 * voice[:, :-1]
    others = {pitch: loss(pulses(pitch), voice) for pitch in (121.0, 130.0, 150.0)}
    assert loss(shaped, voice[:, 1:]) < others[130.0]
    assert 0.005 < others[121.0] < others[130.0] < others[150.0]
    assert loss(noise, voice) > 0.1
    assert loss(voice + noise, voice) > loss(voice + 0.1 * noise, voice)


def judged(*scores: float, feature: float = 0.0) -> list[Judgement]:
    """A judgement for every score, each with one hidden layer."""
    return [
        Judgement(torch.full((2, 1, 3, 4), score), [torch.full((2, 5, 3, 4), feature)])
        for score in scores
    ]


@pytest.mark.parametrize(
    ("true", "decoded", "wanted"),
    [(1.0, -1.0, 0.0), (7.0, -7.0, 0.0), (0.0, 0.0, 2.0), (0.5, 0.25, 1.75), (-1.0, 1.0, 4.0)],
)
def test_hinge_loss_of_the_discriminators(true: float, decoded: float, wanted: float) -> None:
    assert discriminator_loss(judged(true), judged(decoded)) == wanted
    assert discriminator_loss(judged(true, 1.0), judged(decoded, -1.0)) == wanted / 2


@pytest.mark.parametrize(("score", "wanted"), [(1.0, 0.0), (7.0, 0.0), (0.0, 1.0), (-2.0, 3.0)])
def test_hinge_loss_of_the_decoder(score: float, wanted: float) -> None:
    assert adversarial_loss(judged(score)) == wanted


def test_feature_matching_is_relative_to_the_true_features() -> None:
    true, decoded = judged(0.0, feature=-4.0), judged(0.0, feature=-3.0)
    assert feature_matching_loss(true, decoded) == 0.25
    assert feature_matching_loss(true, true) == 0
