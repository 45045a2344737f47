"""From the codes of a whole recording to blocks of its waveform."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch import Tensor

from vqcodec.inference import chunking
from vqcodec.inference.wavenet import sampler_for, segments
from vqcodec.models import istft
from vqcodec.models.vqvae import VQVAE

LANES_PER_THREAD = 16  # segments that a WaveNet samples side by side
CONDITION_CONTEXT = 2  # codes on each side that the WaveNet's conditioner hears


def fast_blocks(
    model: VQVAE,
    codes: Iterable[np.ndarray],
    speaker: Tensor,
    *,
    live: bool = False,
) -> Iterator[np.ndarray]:
    """Decode in parallel, window by window.

    Args:
        model: with a fast decoder, on the device of `speaker`.
        codes: (Q, n) blocks, n free.
        speaker: (1, S).
        live: in short windows, each as soon as its codes are there.

    Yields:
        (T,) float32 at normalised level, T a multiple of the hop length.
    """
    fast, config, hop_length = model.fast, model.config.fast, model.config.hop_length
    assert fast is not None
    assert config is not None
    device = speaker.device
    grid = chunking.windows(
        codes,
        length=chunking.LIVE_LENGTH if live else chunking.LENGTH,
        context=istft.context(config, hop_length),
        step=1,
    )

    @torch.no_grad()
    def decode(window: chunking.Window) -> np.ndarray:
        waveform = decode_latents(fast, model.latents(_indices(window.data, device)), speaker)[0]
        return waveform[window.start * hop_length : window.end * hop_length].cpu().numpy()

    return chunking.map_in_order(decode, grid, device, live=live)


def decode_latents(fast: istft.SpectralDecoder, latents: Tensor, speaker: Tensor) -> Tensor:
    """Run the fast decoder in bfloat16 where that is the faster.

    Args:
        fast: on the device of the latents.
        latents: (B, D, N) float32.
        speaker: (B, S).

    Returns:
        (B, N * hop_length) float32 at normalised level.
    """
    device = latents.device
    with torch.autocast(device.type, torch.bfloat16, enabled=multiplies_bfloat16(device)):
        waveform: Tensor = fast(latents, speaker)
    return waveform.float()


def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether a device multiplies bfloat16 faster than float32, being built for it."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return any(torch.cpu.get_capabilities().get(name) for name in ("avx512_bf16", "amx_bf16"))


def wavenet_blocks(
    model: VQVAE,
    codes: Iterable[np.ndarray],
    speaker: Tensor,
    *,
    seed: int,
    temperature: float,
    live: bool = False,
) -> Iterator[np.ndarray]:
    """Sample; segments of a long recording side by side, a short one as a single segment.

    Args:
        model: with a WaveNet, on the device of `speaker`.
        codes: (Q, n) blocks, n free.
        speaker: (1, S).
        seed: of the draws.
        temperature: of the draws.
        live: one segment at a time, as soon as its codes are there.

    Yields:
        (T,) float32 at normalised level, T a multiple of the hop length.
    """
    wavenet, hop_length, device = model.wavenet, model.config.hop_length, speaker.device
    assert wavenet is not None
    warm_up = -(-wavenet.receptive_field // hop_length)
    for_samples, for_power = itertools.tee(codes)
    parts = segments.cut(_power(model, for_power, speaker, live=live), warm_up)
    sampled_parts, joined_parts = itertools.tee(parts)

    @torch.no_grad()
    def condition(heard: tuple[segments.Segment, np.ndarray, int]) -> Tensor:
        segment, seen, first = heard
        result = wavenet.condition(model.latents(_indices(seen, device)), speaker)[0]
        return result[segment.first - first : segment.last - first]

    def waveforms() -> Iterator[np.ndarray]:
        n_lanes = 1 if live else LANES_PER_THREAD * torch.get_num_threads()
        seen = _seen(sampled_parts, for_samples)
        for index in itertools.count(0, n_lanes):
            conditions = list(
                chunking.map_in_order(condition, itertools.islice(seen, n_lanes), device, live=live)
            )
            if not conditions:
                return
            sampler = sampler_for(device)(
                wavenet,
                seeds=[[seed, index + lane] for lane in range(len(conditions))],
                temperature=temperature,
            )
            padded = torch.nn.utils.rnn.pad_sequence(conditions, batch_first=True)
            blocks = list(sampler.blocks(padded))
            for waveform, heard in zip(torch.cat(blocks, 1), conditions, strict=True):
                yield waveform[: len(heard) * hop_length].cpu().numpy()

    return segments.join(joined_parts, waveforms(), hop_length)


def _seen(
    parts: Iterable[segments.Segment], codes: Iterable[np.ndarray]
) -> Iterator[tuple[segments.Segment, np.ndarray, int]]:
    """Each segment, the codes that its conditioner hears, and where those begin."""
    stream, held, position = iter(codes), np.zeros((0, 0), np.uint16), 0
    for segment in parts:
        first = max(0, segment.first - CONDITION_CONTEXT)
        last = segment.last + CONDITION_CONTEXT
        while position + held.shape[1] < last and (block := next(stream, None)) is not None:
            held = np.concatenate([held, block], axis=1) if held.size else block
        held, position = held[:, first - position :], first
        yield segment, held[:, : last - first], first


def _power(
    model: VQVAE, codes: Iterable[np.ndarray], speaker: Tensor, *, live: bool
) -> Iterator[np.ndarray]:
    """(n,) power of each code's audio, in blocks: where a cut is heard least."""
    if model.fast is None:
        for block in codes:
            yield np.ones(block.shape[1], np.float32)
        return
    hop_length = model.config.hop_length
    for block in fast_blocks(model, codes, speaker, live=live):
        yield np.square(block).reshape(-1, hop_length).mean(-1)


def _indices(codes: np.ndarray, device: torch.device) -> Tensor:
    """(Q, N) of a file -> (1, Q, N) for the model."""
    return torch.from_numpy(codes.astype(np.int64))[None].to(device)
