"""Spectra and mu-law are those of torchaudio, with which the packaged models were trained."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from vqcodec.models.companding import mu_law_encode
from vqcodec.models.mel import MelSpectrogram, mel_filterbank
from vqcodec.models.mu_law import SAMPLES

functional = pytest.importorskip("torchaudio.functional")
transforms = pytest.importorskip("torchaudio.transforms")

SAMPLE = Path(__file__).parents[2] / "samples" / "slt.wav"


@pytest.mark.parametrize("sample_rate", [8000, 11025, 16000, 48000])
@pytest.mark.parametrize(("n_fft", "n_mels"), [(512, 64), (1024, 80), (2048, 128)])
@pytest.mark.filterwarnings("ignore:At least one mel filterbank")
def test_filters(sample_rate: int, n_fft: int, n_mels: int) -> None:
    own = mel_filterbank(n_fft // 2 + 1, n_mels, sample_rate)
    theirs = functional.melscale_fbanks(
        n_fft // 2 + 1, 0.0, float(sample_rate // 2), n_mels, sample_rate
    )
    assert torch.equal(own, theirs)


@pytest.mark.parametrize("power", [1.0, 2.0])
def test_spectrogram(power: float) -> None:
    waveform = torch.from_numpy(soundfile.read(SAMPLE, 32000, dtype="float32")[0]).repeat(2, 1)
    waveform[1] *= 0.1
    settings = {"n_fft": 512, "hop_length": 160, "n_mels": 64, "power": power}
    own, theirs = MelSpectrogram(16000, **settings), transforms.MelSpectrogram(16000, **settings)
    assert torch.equal(own(waveform), theirs(waveform))
    theirs.load_state_dict(own.state_dict())  # they have the same names and shapes


def test_gradient_of_the_spectrogram() -> None:
    settings = {"n_fft": 256, "hop_length": 64, "n_mels": 20, "power": 1.0}
    gradients = []
    for mel in (MelSpectrogram(8000, **settings), transforms.MelSpectrogram(8000, **settings)):
        waveform = torch.sin(torch.arange(2000.0))[None].requires_grad_()
        (mel(waveform) + 1e-2).log().sum().backward()
        gradients.append(waveform.grad)
    assert torch.equal(*gradients)


def test_mu_law() -> None:
    waveform = torch.cat([torch.linspace(-1, 1, 100_001), torch.tensor([0.0, -0.0, 1e-9])])[None]
    levels = mu_law_encode(waveform)
    assert torch.equal(levels, functional.mu_law_encoding(waveform, 256))
    every = torch.arange(256)
    # Near zero torchaudio subtracts 1 from nearly 1 in float32.
    np.testing.assert_allclose(SAMPLES, functional.mu_law_decoding(every, 256), rtol=2e-5)
