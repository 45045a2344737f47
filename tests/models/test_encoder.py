"""The encoder: its length law, and exactly how far it sees."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError

from vqcodec.models.config import EncoderConfig
from vqcodec.models.encoder import Filterbank, build_encoder
from vqcodec.models.receptive_field import encoder_context

TINY = {"n_filters": 4, "channels": 8, "code_channels": 8}
CONFIGS = {
    "64": EncoderConfig(**TINY, strides=(16, 4), kernel_length=40, dilations=(1, 3)),
    "128": EncoderConfig(**TINY, strides=(32, 4)),
    "320": EncoderConfig(**TINY, strides=(32, 5, 2), kernel_length=64, dilations=(1, 3)),
    "640": EncoderConfig(**TINY, strides=(32, 5, 4), kernel_length=33, dilations=(1, 2)),
    "one stride": EncoderConfig(**TINY, strides=(64,), kernel_length=65, dilations=(1,)),
    "causal": EncoderConfig(**TINY, strides=(32, 4), causal=True),
    "causal, odd": EncoderConfig(**TINY, strides=(32, 5, 2), kernel_length=33, causal=True),
    "paper": EncoderConfig(paper=True, channels=16, strides=(2,) * 6),
}


def make(config: EncoderConfig) -> torch.nn.Module:
    torch.manual_seed(0)
    encoder = build_encoder(config, 5, 16000)
    for parameter in encoder.parameters():
        # Real filters fade to almost nothing; here every tap must be felt.
        torch.nn.init.normal_(parameter, std=0.3)
    return encoder


@pytest.mark.parametrize("name", CONFIGS)
def test_one_latent_per_hop(name):
    config = CONFIGS[name]
    encoder = build_encoder(config, 5, 16000)
    for n_codes in (1, 2, 7):
        waveform = 0.06 * torch.randn(2, n_codes * config.hop_length)
        latents = encoder(waveform)
        assert latents.shape == (2, 5, n_codes)
        assert latents.isfinite().all()
        assert torch.equal(latents, encoder(waveform))


@pytest.mark.parametrize("name", CONFIGS)
def test_receptive_field_is_exact(name):
    config = CONFIGS[name]
    hop_length = config.hop_length
    encoder = make(config)
    before, after = encoder_context(config)
    code = before // hop_length + 2
    seen = torch.zeros((code + 3) * hop_length + after, dtype=torch.bool)
    seen = seen[: len(seen) // hop_length * hop_length]
    for seed in range(3):
        torch.manual_seed(seed)
        waveform = 0.06 * torch.randn(1, len(seen))
        waveform.requires_grad_(True)
        encoder(waveform)[0, :, code].sum().backward()
        seen |= waveform.grad[0] != 0
    first, last = seen.nonzero()[[0, -1], 0].tolist()
    assert code * hop_length - first == before
    assert last + 1 - (code + 1) * hop_length == after


def test_a_causal_encoder_sees_no_later_sample():
    assert encoder_context(CONFIGS["causal"])[1] == 0
    before, after = encoder_context(CONFIGS["128"])
    # Elsewhere as many samples come after as before, as far as odd strides allow.
    assert abs(before - after) <= CONFIGS["128"].hop_length // 2


def test_models_from_before_the_choice_are_described_as_they_were():
    """Fingerprints are taken of this description, and code files name them."""
    assert "causal" not in EncoderConfig().model_dump()
    assert EncoderConfig(causal=True).model_dump()["causal"]


def test_receptive_fields_known_beforehand():
    paper, default = EncoderConfig(paper=True, strides=(2,) * 6), EncoderConfig()
    assert sum(encoder_context(paper)) + paper.hop_length == 190
    assert sum(encoder_context(default)) + default.hop_length >= 0.1 * 16000


def test_codes_can_tell_tones_apart_from_the_start():
    """Each filter of the untrained filterbank answers most to its own frequency."""
    bank = Filterbank(16, 512, 32, 16000, causal=False)
    time = torch.arange(4096) / 16000
    peaks = []
    for frequency in (200.0, 700.0, 2500.0, 6000.0):
        power = bank(torch.sin(2 * torch.pi * frequency * time)[None])[0, :, 64]
        peaks.append(int(power.argmax()))
    assert peaks == sorted(set(peaks))


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ({"paper": True}, "paper: true needs strides"),
        ({"kernel_length": 16}, "kernel_length 16 is shorter than the first stride 32"),
        ({"stride": [2]}, "stride"),
        ({"paper": True, "strides": [2] * 6, "causal": True}, "set paper or causal, not both"),
    ],
)
def test_impossible_settings_are_refused(settings, fault):
    with pytest.raises(ValidationError, match=fault):
        EncoderConfig.model_validate(settings)
