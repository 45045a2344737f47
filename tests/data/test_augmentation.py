from __future__ import annotations

import numpy as np
import pytest
import torch
from recordings import spoken
from torch import Tensor

from vqcodec.audio.level import TARGET_RMS
from vqcodec.data.augmentation import N_TALKERS, augment
from vqcodec.data.data_config import AugmentationConfig

RATE = 16_000
SPEECH = torch.from_numpy(spoken("slt", 0.2, 3.4)).float()
SPEECH = SPEECH * (TARGET_RMS / SPEECH.square().mean().sqrt())
OTHER = torch.from_numpy(spoken("rms", 0.2, 4.9)).float()
TALKERS = torch.stack([OTHER.roll(9000 * n)[: len(SPEECH)] for n in range(N_TALKERS)])
SEEDS = range(60)


def heard(seed: int, waveform: Tensor = SPEECH, **config: object) -> Tensor:
    settings = AugmentationConfig.model_validate({"probability": 1.0, **config})
    rng = np.random.default_rng(seed)
    return augment(waveform, TALKERS[:, : len(waveform)], rng, settings, RATE)


def test_every_segment_is_another_and_none_is_later_or_louder() -> None:
    found = [heard(seed) for seed in SEEDS]
    spectrum = torch.fft.rfft(SPEECH, 2 * len(SPEECH)).conj()
    for other in found:
        assert other.dtype == torch.float32
        assert other.shape == SPEECH.shape
        assert (other - SPEECH).abs().max() > 1e-3
        level = other.square().mean().sqrt() / TARGET_RMS
        assert 0.7 < level < 1.4
        # What is decoded is the clean segment: it must be at the same place (GCC-PHAT).
        cross = torch.fft.rfft(other, 2 * len(SPEECH)) * spectrum
        lag = int(torch.fft.irfft(cross / (cross.abs() + 1e-9)).argmax())
        assert min(lag, 2 * len(SPEECH) - lag) <= 8
    assert len({float(other.sum()) for other in found}) == len(SEEDS)
    assert torch.equal(found[3], heard(3))


@pytest.mark.parametrize("snr_db", [0.0, 20.0])
def test_noise_is_as_far_below_speech_as_it_is_asked_to_be(snr_db: float) -> None:
    """Room and band aside, what was added is there whether somebody speaks or not."""
    pause = torch.zeros(len(SPEECH))
    levels = []
    for seed in SEEDS:
        noisy, alone = (heard(seed, own, snr_db=[snr_db, snr_db]) for own in (SPEECH, pause))
        if not alone.any():  # a room without sound, or a band of it
            continue
        scale = float((noisy - alone) @ SPEECH / SPEECH.square().sum())
        if (noisy - alone - scale * SPEECH).abs().max() > 1e-4:
            continue
        speech = scale * SPEECH
        levels.append(10 * float((speech.square().mean() / alone.square().mean()).log10()))
    assert len(levels) > 20
    np.testing.assert_allclose(levels, snr_db, atol=0.02)


def test_silence_stays_sound_that_is_finite() -> None:
    for seed in SEEDS:
        assert heard(seed, torch.zeros(2048)).isfinite().all()
