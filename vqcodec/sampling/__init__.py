"""Sampling from the autoregressive decoder."""

from __future__ import annotations

import torch

from vqcodec.sampling.reference import ReferenceSampler


def sampler_for(device: torch.device) -> type:
    """The fastest sampler for a device; all have the interface of `ReferenceSampler`."""
    if device.type != "cpu":
        return ReferenceSampler
    # Imported here: numba takes a second, and only this decoder needs it.
    from vqcodec.sampling.cpu import CpuSampler

    return CpuSampler
