"""The fast decoder: its inverse STFT, its length, its reach and its speaker."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from vqcodec.models.config import IstftDecoderConfig, ModelConfig
from vqcodec.models.interfaces import Condition
from vqcodec.models.istft import IstftDecoder

DIM, SPEAKER_DIM = 6, 5


# (hop_length, n_fft, upsample)
SHAPES = [
    (128, 512, 1), (128, 256, 1), (64, 250, 1), (128, 640, 1),
    (640, 512, 5), (320, 400, 2), (128, 512, 4), (60, 70, 3),
]  # fmt: skip


def make(hop_length: int = 128, **settings: int) -> IstftDecoder:
    torch.manual_seed(0)
    config = IstftDecoderConfig(channels=16, **{"n_layers": 2, **settings})
    decoder = IstftDecoder(config, DIM, SPEAKER_DIM, hop_length)
    for block in decoder.blocks:
        # They start close to no influence.
        nn.init.normal_(block.speaker.weight, std=0.3)
    return decoder.requires_grad_(False)


@pytest.mark.parametrize(
    ("hop_length", "n_fft"), [(128, 512), (128, 256), (64, 512), (320, 1280), (100, 250)]
)
@pytest.mark.parametrize("n_frames", [1, 2, 9])
def test_synthesis_inverts_the_analysis_of_the_same_frames(hop_length, n_fft, n_frames):
    decoder = make(hop_length, n_fft=n_fft)
    waveform = torch.randn(2, n_frames * hop_length)
    # Frame n lies around the middle of hop n, reaching into silence at the ends.
    cut = (n_fft - hop_length) // 2
    frames = nn.functional.pad(waveform, (cut, cut)).unfold(-1, n_fft, hop_length)
    assert frames.shape == (2, n_frames, n_fft)
    spectrum = torch.fft.rfft(frames * decoder.window)
    torch.testing.assert_close(decoder.synthesize(spectrum), waveform, atol=1e-4, rtol=0)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("upsample", [1, 4])
@pytest.mark.parametrize("n_codes", [1, 2, 33])
def test_a_hop_of_samples_for_every_code(n_codes, upsample, causal):
    decoder = make(upsample=upsample, causal=causal)
    output = decoder(Condition(torch.randn(2, DIM, n_codes), torch.randn(2, SPEAKER_DIM)))
    assert output.shape == (2, n_codes * 128)
    assert output.isfinite().all()
    assert output.std() > 0


def test_absurd_latents_stay_finite():
    output = make()(Condition(1e4 * torch.randn(1, DIM, 8), torch.randn(1, SPEAKER_DIM)))
    assert output.isfinite().all()


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("hop_length", "n_fft", "upsample"), SHAPES)
def test_a_code_changes_the_samples_that_the_context_promises_and_no_others(
    hop_length, n_fft, upsample, causal
):
    settings = {"n_fft": n_fft, "upsample": upsample, "causal": causal}
    decoder = make(hop_length, **settings)
    decoder.window.fill_(1.0)  # Hann's ends are too faint to be felt
    before, after = decoder.context
    # A code is heard by those that see it: `before` of them come after it.
    middle, n_codes = after + 2, before + after + 5
    latents, speaker = torch.randn(1, DIM, n_codes), torch.randn(1, SPEAKER_DIM)
    changed = latents.clone()
    changed[..., middle] += 1
    moved = (decoder(Condition(changed, speaker)) != decoder(Condition(latents, speaker)))[
        0
    ].nonzero()[:, 0]
    codes = moved // hop_length - middle
    assert (int(codes.min()), int(codes.max())) == (-after, before)
    assert middle * hop_length - int(moved.min()) == decoder._reach[0]


@pytest.mark.parametrize(("hop_length", "n_fft", "upsample"), SHAPES)
def test_a_causal_decoder_waits_for_half_a_window_only(hop_length, n_fft, upsample):
    decoder = make(hop_length, n_fft=n_fft, upsample=upsample, causal=True)
    assert decoder._reach[0] == (n_fft - hop_length // upsample) // 2


def test_a_causal_decoder_continues_from_its_context():
    """The end of a long input is the end of its last codes, given their context."""
    settings = {"upsample": 4, "n_fft": 128, "causal": True}
    decoder, hop_length = make(**settings), 128
    before, after = decoder.context
    latents, speaker = torch.randn(1, DIM, 40), torch.randn(1, SPEAKER_DIM)
    whole = decoder(Condition(latents, speaker))[:, 30 * hop_length : 31 * hop_length]
    part = decoder(Condition(latents[..., 30 - before : 31 + after], speaker))
    kept = part[:, before * hop_length : (before + 1) * hop_length]
    torch.testing.assert_close(kept, whole, atol=1e-5, rtol=1e-4)


def test_another_speaker_makes_another_sound_of_the_same_length():
    decoder = make()
    latents = torch.randn(1, DIM, 20).expand(2, -1, -1)
    first, second = decoder(Condition(latents, torch.randn(2, SPEAKER_DIM)))
    assert (first - second).square().mean() > 0.01 * first.square().mean()


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ({"n_fft": 200}, "fast.n_fft 200 must be at least twice the hop length 128"),
        ({"n_fft": 513}, "fast.n_fft 513 minus hop 128 must be even"),
        ({"n_fft": 60, "upsample": 4}, "n_fft 60 must be at least twice the hop length 32 of its"),
        ({"n_fft": 513, "upsample": 4}, "fast.n_fft 513 minus hop 32 must be even"),
        ({"upsample": 3}, "fast.upsample 3 must divide the hop length 128"),
        ({"kernel_size": 6}, "kernel_size 6 must be odd"),
    ],
)
def test_impossible_settings_are_refused(settings, fault):
    with pytest.raises(ValidationError, match=fault):
        ModelConfig.model_validate({"fast": settings})
