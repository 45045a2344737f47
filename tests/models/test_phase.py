"""A recording with the phase of a coarse waveform."""

from __future__ import annotations

import torch

from vqcodec.models.phase import with_phase_of


def test_magnitudes_are_the_recordings_and_the_phase_is_the_coarse_waveforms() -> None:
    time = torch.arange(8000) / 16_000
    swell = 1 + 0.5 * torch.sin(2 * torch.pi * 3 * time)
    recording = swell * torch.sin(2 * torch.pi * 200 * time)
    coarse = 0.3 * torch.cos(2 * torch.pi * 200 * time)
    expected = swell * torch.cos(2 * torch.pi * 200 * time)
    found = with_phase_of(coarse[None], recording[None])[0]
    kept = slice(512, -512)
    assert (found - expected)[kept].abs().max() < 0.02
    torch.testing.assert_close(with_phase_of(recording[None], recording[None])[0], recording)
