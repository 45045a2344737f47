"""From the codes of a whole recording to blocks of its waveform."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from vqcodec import windows
from vqcodec.models import spectral
from vqcodec.models.vqvae import VQVAE
from vqcodec.sampling import sampler_for, segments

LANES_PER_THREAD = 16  # segments that a WaveNet samples side by side
CONDITION_CONTEXT = 2  # codes on each side that the WaveNet's conditioner hears


def fast_blocks(model: VQVAE, indices: Tensor, speaker: Tensor) -> Iterator[np.ndarray]:
    """Decode in parallel, window by window.

    Args:
        model: with a fast decoder, on the device of the indices.
        indices: (1, Q, N) codes.
        speaker: (1, S).

    Yields:
        (T,) float32 at normalised level, T a multiple of the hop length.
    """
    fast, config, hop_length = model.fast, model.config.fast, model.config.hop_length
    assert fast is not None
    assert config is not None
    context = spectral.receptive_field(config, hop_length) // 2 + 1

    @torch.no_grad()
    def decode(window: windows.Window) -> np.ndarray:
        waveform = fast(model.latents(indices[..., window.first : window.last]), speaker)[0]
        return waveform[window.start * hop_length : window.end * hop_length].cpu().numpy()

    grid = windows.windows(indices.shape[-1], context)
    return windows.map_in_order(decode, grid, indices.device)


def wavenet_blocks(
    model: VQVAE, indices: Tensor, speaker: Tensor, *, seed: int, temperature: float
) -> Iterator[np.ndarray]:
    """Sample; segments of a long recording side by side, a short one as a single segment.

    Args:
        model: with a WaveNet, on the device of the indices.
        indices: (1, Q, N) codes.
        speaker: (1, S).
        seed: of the draws.
        temperature: of the draws.

    Yields:
        (T,) float32 at normalised level, T a multiple of the hop length.
    """
    wavenet, hop_length = model.wavenet, model.config.hop_length
    assert wavenet is not None
    warm_up = -(-wavenet.receptive_field // hop_length)
    parts = segments.cut(_power(model, indices, speaker), warm_up)

    @torch.no_grad()
    def condition(segment: segments.Segment) -> Tensor:
        first = max(0, segment.first - CONDITION_CONTEXT)
        latents = model.latents(indices[..., first : segment.last + CONDITION_CONTEXT])
        heard = wavenet.condition(latents, speaker)[0]
        return heard[segment.first - first : segment.last - first]

    def waveforms() -> Iterator[np.ndarray]:
        n_lanes = LANES_PER_THREAD * torch.get_num_threads()
        for index in range(0, len(parts), n_lanes):
            batch = parts[index : index + n_lanes]
            conditions = list(windows.map_in_order(condition, batch, indices.device))
            sampler = sampler_for(indices.device)(
                wavenet,
                seeds=[[seed, index + lane] for lane in range(len(batch))],
                temperature=temperature,
            )
            padded = torch.nn.utils.rnn.pad_sequence(conditions, batch_first=True)
            blocks = list(sampler.blocks(padded))
            for waveform, heard in zip(torch.cat(blocks, 1), conditions, strict=True):
                yield waveform[: len(heard) * hop_length].cpu().numpy()

    return segments.join(parts, waveforms(), hop_length)


def _power(model: VQVAE, indices: Tensor, speaker: Tensor) -> np.ndarray:
    """(N,) power of each code's audio: where a cut is heard least."""
    if indices.shape[-1] <= segments.LENGTH or model.fast is None:
        return np.ones(indices.shape[-1], np.float32)
    blocks = fast_blocks(model, indices, speaker)
    hop_length = model.config.hop_length
    return np.concatenate([np.square(block).reshape(-1, hop_length).mean(-1) for block in blocks])
