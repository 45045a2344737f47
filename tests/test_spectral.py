"""The fast decoder: its inverse STFT, its length, its reach and its speaker."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from vqcodec.models.config import ModelConfig, SpectralDecoderConfig
from vqcodec.models.spectral import SpectralDecoder, receptive_field

DIM, SPEAKER_DIM = 6, 5


def make(hop_length: int = 128, n_fft: int = 512, n_layers: int = 2) -> SpectralDecoder:
    torch.manual_seed(0)
    config = SpectralDecoderConfig(channels=16, n_layers=n_layers, n_fft=n_fft)
    decoder = SpectralDecoder(config, DIM, SPEAKER_DIM, hop_length)
    for block in decoder.blocks:
        # They start close to no influence.
        nn.init.normal_(block.speaker.weight, std=0.3)
    return decoder.requires_grad_(False)


@pytest.mark.parametrize(
    ("hop_length", "n_fft"), [(128, 512), (128, 256), (64, 512), (320, 1280), (100, 250)]
)
@pytest.mark.parametrize("n_frames", [1, 2, 9])
def test_synthesis_inverts_the_analysis_of_the_same_frames(hop_length, n_fft, n_frames):
    decoder = make(hop_length, n_fft)
    waveform = torch.randn(2, n_frames * hop_length)
    # Frame n lies around the middle of hop n, reaching into silence at the ends.
    cut = (n_fft - hop_length) // 2
    frames = nn.functional.pad(waveform, (cut, cut)).unfold(-1, n_fft, hop_length)
    assert frames.shape == (2, n_frames, n_fft)
    spectrum = torch.fft.rfft(frames * decoder.window)
    torch.testing.assert_close(decoder.synthesize(spectrum), waveform, atol=1e-4, rtol=0)


@pytest.mark.parametrize("n_codes", [1, 2, 33])
def test_a_hop_of_samples_for_every_code(n_codes):
    decoder = make()
    output = decoder(torch.randn(2, DIM, n_codes), torch.randn(2, SPEAKER_DIM))
    assert output.shape == (2, n_codes * 128)
    assert output.isfinite().all()
    assert output.std() > 0


def test_absurd_latents_stay_finite():
    output = make()(1e4 * torch.randn(1, DIM, 8), torch.randn(1, SPEAKER_DIM))
    assert output.isfinite().all()


@pytest.mark.parametrize(("hop_length", "n_fft"), [(128, 512), (128, 256), (64, 250)])
def test_the_receptive_field_is_exact(hop_length, n_fft):
    decoder = make(hop_length, n_fft)
    reach = (receptive_field(SpectralDecoderConfig(n_layers=2, n_fft=n_fft), hop_length) - 1) // 2
    n_codes = 2 * reach + 5
    middle = n_codes // 2
    latents = torch.randn(1, DIM, n_codes, requires_grad=True)
    waveform = decoder(latents, torch.randn(1, SPEAKER_DIM))
    waveform[0, middle * hop_length : (middle + 1) * hop_length].square().sum().backward()
    seen = (latents.grad[0] != 0).any(0).nonzero()[:, 0] - middle
    assert -reach <= seen.min() <= -reach + 1
    assert reach - 1 <= seen.max() <= reach


def test_another_speaker_makes_another_sound_of_the_same_length():
    decoder = make()
    latents = torch.randn(1, DIM, 20).expand(2, -1, -1)
    first, second = decoder(latents, torch.randn(2, SPEAKER_DIM))
    assert (first - second).square().mean() > 0.01 * first.square().mean()


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ({"n_fft": 200}, "fast.n_fft 200 must be at least twice the hop length 128"),
        ({"n_fft": 513}, "fast.n_fft 513 minus hop 128 must be even"),
        ({"kernel_size": 6}, "kernel_size 6 must be odd"),
    ],
)
def test_impossible_settings_are_refused(settings, fault):
    with pytest.raises(ValidationError, match=fault):
        ModelConfig.model_validate({"fast": settings})
