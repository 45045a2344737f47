"""Sampling from the autoregressive decoder."""

from __future__ import annotations

LANES_PER_THREAD = 16  # segments that are sampled side by side
