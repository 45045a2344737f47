"""Sampling from the autoregressive decoder."""

from __future__ import annotations

import torch


def sampler_for(device: torch.device) -> type:
    """The fastest sampler for a device; all have the interface of `ReferenceSampler`."""
    # Imported here: numba takes a second, and only this decoder needs it.
    if device.type == "cpu":
        from vqcodec.inference.wavenet.cpu import CpuSampler

        return CpuSampler
    from vqcodec.inference.wavenet.graph import GraphSampler

    return GraphSampler
