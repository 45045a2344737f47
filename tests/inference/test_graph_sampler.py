"""The GPU sampler's steps against the plain sampler: uncaptured, and captured on a GPU."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vqcodec.inference.wavenet.graph import GraphSampler
from vqcodec.inference.wavenet.reference import ReferenceSampler
from vqcodec.models.config import WaveNetConfig
from vqcodec.models.interfaces import Condition
from vqcodec.models.pitch import PitchStream
from vqcodec.models.wavenet import WaveNet

CONFIG = WaveNetConfig(
    n_stacks=2,
    layers_per_stack=4,
    residual_channels=8,
    skip_channels=12,
    condition_channels=20,
    hidden_channels=16,
)
DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


@pytest.mark.parametrize("temperature", [0.0, 0.8, 1.0])
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("n_bands", "order"), [(1, 0), (4, 3)])
def test_samples_are_those_of_the_plain_sampler(
    n_bands: int, order: int, device: str, temperature: float
) -> None:
    torch.manual_seed(0)
    changes = {
        "n_bands": n_bands,
        "prediction_order": order,
        "pitch_taps": order,
        "n_harmonics": order,
    }
    streams = {"pitch": PitchStream.channels}
    wavenet = WaveNet(CONFIG.model_copy(update=changes), 16, 64, 32, streams)
    wavenet.eval().requires_grad_(False).to(device)
    if wavenet.prediction is not None and wavenet.harmonics is not None:
        wavenet.prediction.filter.weight.normal_(std=0.1)
        wavenet.harmonics.weight.normal_(std=0.5)
    pitch = torch.from_numpy(PitchStream.features(np.log(np.linspace(80, 300, 27)).reshape(3, 9)))
    told = Condition(
        torch.randn(3, 16, 9, device=device),
        torch.randn(3, 64, device=device),
        {"pitch": pitch.to(device)},
    )
    condition = wavenet.per_code(told)
    samplers = [
        kind(wavenet, seeds=[1, [2, 5], 3], temperature=temperature)
        for kind in (GraphSampler, ReferenceSampler)
    ]
    # In two parts: the state must carry over.
    first, second = (
        torch.cat([b for part in (slice(4), slice(4, 9)) for b in s.blocks(condition[:, part])], 1)
        for s in samplers
    )
    assert first.shape == (3, 9 * 32)
    if temperature:
        assert first.std() > 0.01
    torch.testing.assert_close(first, second, atol=1e-5, rtol=0)
