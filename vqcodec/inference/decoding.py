"""From the codes of a whole recording to blocks of its waveform."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import cast

import numpy as np
import torch
from torch import Tensor

from vqcodec.inference import chunking
from vqcodec.inference.loudness import followed, normalised
from vqcodec.inference.wavenet import sampler_for, segments
from vqcodec.models import AUTOREGRESSIVE, DecoderName
from vqcodec.models.interfaces import Condition, DecodeOptions, Decoder
from vqcodec.models.vqvae import VQVAE

LANES_PER_THREAD = 16  # segments that a WaveNet samples side by side


def speech_blocks(
    model: VQVAE,
    codes: Iterable[np.ndarray],
    speaker: Tensor,
    options: DecodeOptions,
    *,
    own: Tensor | None,
    gain: float,
    live: bool = False,
) -> Iterator[np.ndarray]:
    """`decoded_blocks`, as loud as the recording was.

    Args:
        model: as of `decoded_blocks`.
        codes: as of `decoded_blocks`.
        speaker: as of `decoded_blocks`.
        options: as of `decoded_blocks`.
        own: (1, S) who spoke the codes, if that is known.
        gain: of the recording.
        live: as of `decoded_blocks`.

    Yields:
        (T,) float32 at the recording's level.
    """
    layout = {"sample_rate": model.config.sample_rate, "hop_length": model.config.hop_length}
    codes, again = itertools.tee(codes)
    blocks = decoded_blocks(model, codes, speaker, options, live=live)
    is_same = options.decoder == "fast" and own is not None and own.equal(speaker)
    if own is not None and model.fast is not None and not is_same:
        # What the voice that spoke makes of the codes tells how loud they are to be.
        blocks = followed(blocks, parallel_blocks(model, again, own, live=live), **layout)
    return (block * np.float32(gain) for block in normalised(blocks, gain=gain, **layout))


def decoded_blocks(
    model: VQVAE,
    codes: Iterable[np.ndarray],
    speaker: Tensor,
    options: DecodeOptions,
    *,
    live: bool = False,
) -> Iterator[np.ndarray]:
    """Decode with the decoder that the options name.

    Args:
        model: with that decoder, on the device of `speaker`.
        codes: (Q, n) blocks, n free.
        speaker: (1, S).
        options: they name a decoder; the sample rate does not matter here.
        live: in short chunks, each as soon as its codes are there.

    Yields:
        (T,) float32 at normalised level, T a multiple of the hop length.
    """
    assert options.decoder is not None
    if options.decoder in AUTOREGRESSIVE:
        return sampled_blocks(model, codes, speaker, options, live=live)
    return parallel_blocks(model, codes, speaker, options.decoder, live=live)


def parallel_blocks(
    model: VQVAE,
    codes: Iterable[np.ndarray],
    speaker: Tensor,
    decoder: DecoderName = "fast",
    *,
    live: bool = False,
) -> Iterator[np.ndarray]:
    """Decode in one pass a chunk; arguments and result as of `decoded_blocks`."""
    network, hop_length, device = model.decoders[decoder], model.config.hop_length, speaker.device
    grid = chunking.chunks(
        codes,
        length=chunking.LIVE_LENGTH if live else chunking.LENGTH,
        context=cast(Decoder, network).context,
        step=1,
    )

    @torch.no_grad()
    def decode(chunk: chunking.Chunk) -> np.ndarray:
        condition = Condition(model.latents(_indices(chunk.data, device)), speaker)
        waveform = run_decoder(cast(Decoder, network), condition)[0]
        return waveform[chunk.start * hop_length : chunk.end * hop_length].cpu().numpy()

    return chunking.map_in_order(decode, grid, device, live=live)


def run_decoder(decoder: Decoder, condition: Condition) -> Tensor:
    """Run a parallel decoder in bfloat16 where that is the faster.

    Args:
        decoder: on the device of the condition.
        condition: of N codes.

    Returns:
        (B, N * hop_length) float32 at normalised level.
    """
    device = condition.latents.device
    with torch.autocast(device.type, torch.bfloat16, enabled=multiplies_bfloat16(device)):
        waveform = decoder(condition)
    return waveform.float()


def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether a device multiplies bfloat16 faster than float32, being built for it."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return any(torch.cpu.get_capabilities().get(name) for name in ("avx512_bf16", "amx_bf16"))


def sampled_blocks(
    model: VQVAE,
    codes: Iterable[np.ndarray],
    speaker: Tensor,
    options: DecodeOptions,
    *,
    live: bool = False,
) -> Iterator[np.ndarray]:
    """Sample the WaveNet; segments of a long recording side by side, a short one as a single one.

    Arguments and result as of `decoded_blocks`; live, it samples one segment at a time.
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
        told = Condition(model.latents(_indices(seen, device)), speaker)
        result = wavenet.per_code(told)[0]
        return result[segment.first - first : segment.last - first]

    def waveforms() -> Iterator[np.ndarray]:
        n_lanes = 1 if live else LANES_PER_THREAD * torch.get_num_threads()
        seen = _seen(sampled_parts, for_samples, wavenet.condition_context)
        for index in itertools.count(0, n_lanes):
            conditions = list(
                chunking.map_in_order(condition, itertools.islice(seen, n_lanes), device, live=live)
            )
            if not conditions:
                return
            sampler = sampler_for(device)(
                wavenet,
                seeds=[[options.seed, index + lane] for lane in range(len(conditions))],
                temperature=options.temperature,
            )
            padded = torch.nn.utils.rnn.pad_sequence(conditions, batch_first=True)
            blocks = list(sampler.blocks(padded))
            for waveform, heard in zip(torch.cat(blocks, 1), conditions, strict=True):
                yield waveform[: len(heard) * hop_length].cpu().numpy()

    return segments.join(joined_parts, waveforms(), hop_length)


def _seen(
    parts: Iterable[segments.Segment], codes: Iterable[np.ndarray], context: int
) -> Iterator[tuple[segments.Segment, np.ndarray, int]]:
    """Each segment, the codes that its conditioner hears, and where those begin."""
    stream, held, position = iter(codes), np.zeros((0, 0), np.uint16), 0
    for segment in parts:
        first = max(0, segment.first - context)
        last = segment.last + context
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
    for block in parallel_blocks(model, codes, speaker, live=live):
        yield np.square(block).reshape(-1, hop_length).mean(-1)


def _indices(codes: np.ndarray, device: torch.device) -> Tensor:
    """(Q, N) of a file -> (1, Q, N) for the model."""
    return torch.from_numpy(codes.astype(np.int64))[None].to(device)
