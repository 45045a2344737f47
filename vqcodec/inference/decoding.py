"""From the codes of a whole recording to blocks of its waveform."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator

import numpy as np

from vqcodec.inference import chunking
from vqcodec.inference.engines import Engine
from vqcodec.inference.loudness import followed, normalised
from vqcodec.inference.melody import Voice, split
from vqcodec.inference.wavenet import segments
from vqcodec.models import AUTOREGRESSIVE, DecoderName
from vqcodec.models.config import WaveNetConfig
from vqcodec.models.interfaces import DecodeOptions
from vqcodec.models.receptive_field import condition_context, wavenet_field
from vqcodec.models.streams import build_streams

CONDITION_LENGTH = 125  # codes of which the WaveNet is told at once


def speech_blocks(
    engine: Engine,
    codes: Iterable[np.ndarray],
    voice: Voice,
    options: DecodeOptions,
    *,
    own: Voice | None,
    gain: float,
    live: bool = False,
) -> Iterator[np.ndarray]:
    """`decoded_blocks`, led to the level of a recording of this gain.

    `own` is the voice that spoke the codes, if that is known.
    """
    config = engine.config
    layout = {"sample_rate": config.sample_rate, "hop_length": config.hop_length}
    codes, again = itertools.tee(codes)
    blocks = decoded_blocks(engine, codes, voice, options, live=live)
    is_same = options.decoder == "fast" and own is not None and own.is_like(voice)
    if own is not None and config.fast is not None and not is_same:
        # What the voice that spoke makes of the codes tells how loud they are to be.
        blocks = followed(blocks, parallel_blocks(engine, again, own, live=live), **layout)
    return (block * np.float32(gain) for block in normalised(blocks, gain=gain, **layout))


def decoded_blocks(
    engine: Engine,
    codes: Iterable[np.ndarray],
    voice: Voice,
    options: DecodeOptions,
    *,
    live: bool = False,
) -> Iterator[np.ndarray]:
    """Decode with the decoder that the options name; their sample rate does not matter here.

    Args:
        engine: of a model with that decoder.
        codes: (Q, n) blocks, n free; or (Q + 1, n) with a contour, see `melody.told_blocks`.
        voice: that shall say it.
        options: of the decoder.
        live: in short chunks, each as soon as its codes are there.

    Yields:
        (T,) float32 at normalised level, T a multiple of the hop length.
    """
    assert options.decoder != "auto"
    if options.decoder in AUTOREGRESSIVE:
        return sampled_blocks(engine, codes, voice, options, live=live)
    return parallel_blocks(engine, codes, voice, options.decoder, live=live)


def parallel_blocks(
    engine: Engine,
    codes: Iterable[np.ndarray],
    voice: Voice,
    decoder: DecoderName = "fast",
    *,
    live: bool = False,
) -> Iterator[np.ndarray]:
    """Decode in one pass a chunk; arguments and result as of `decoded_blocks`."""
    hop_length, n_codebooks = engine.config.hop_length, engine.config.quantizer.n_codebooks
    grid = chunking.chunks(
        codes,
        length=chunking.LIVE_LENGTH if live else chunking.LENGTH,
        context=engine.decoder_context(decoder),
        step=1,
    )

    def decode(chunk: chunking.Chunk) -> np.ndarray:
        own, contour = split(chunk.data, n_codebooks)
        waveform = engine.decode_chunk(decoder, own, voice.vector, voice.streams(contour))
        return waveform[chunk.start * hop_length : chunk.end * hop_length]

    return chunking.map_in_order(decode, grid, engine.n_threads, live=live)


def sampled_blocks(
    engine: Engine,
    codes: Iterable[np.ndarray],
    voice: Voice,
    options: DecodeOptions,
    *,
    live: bool = False,
) -> Iterator[np.ndarray]:
    """Sample the WaveNet; segments of a long recording side by side, a short one as a single one.

    Arguments and result as of `decoded_blocks`; live, it samples one segment at a time.
    """
    wavenet, hop_length = engine.config.wavenet, engine.config.hop_length
    assert wavenet is not None
    warm_up = -(-wavenet_field(wavenet) * wavenet.n_bands // hop_length)
    told: Iterator[np.ndarray]
    power: Iterator[np.ndarray]
    # What is not read of a tee would be kept to the end.
    if wavenet.coarse_steps:
        told, of_coarse = itertools.tee(_told(engine, codes, voice, live=live))
        power = (_coarse_power(block, wavenet) for block in of_coarse)
    else:
        codes, for_power = itertools.tee(codes)
        told = _told(engine, codes, voice, live=live)
        power = _power(engine, for_power, voice, live=live)
    joined, sampled = itertools.tee(segments.cut(power, warm_up))

    def waveforms() -> Iterator[np.ndarray]:
        n_lanes = 1 if live else engine.n_lanes
        conditions = _of_segments(sampled, told)
        for index in itertools.count(0, n_lanes):
            lanes = list(itertools.islice(conditions, n_lanes))
            if not lanes:
                return
            yield from engine.sample(
                lanes,
                seeds=[[options.seed, index + lane] for lane in range(len(lanes))],
                temperature=options.temperature,
            )

    return segments.join(joined, waveforms(), hop_length)


def _told(
    engine: Engine, codes: Iterable[np.ndarray], voice: Voice, *, live: bool
) -> Iterator[np.ndarray]:
    """(n, _) of `wavenet_condition`, on the same grid live and not: samples follow the last bit."""
    config = engine.config
    grid = chunking.chunks(
        codes,
        length=CONDITION_LENGTH,
        context=condition_context(config, len(build_streams(config))),
        step=1,
    )

    def condition(chunk: chunking.Chunk) -> np.ndarray:
        own, contour = split(chunk.data, config.quantizer.n_codebooks)
        told = engine.wavenet_condition(own, voice.vector, voice.streams(contour))
        return told[chunk.start : chunk.end]

    return chunking.map_in_order(condition, grid, engine.n_threads, live=live)


def _of_segments(
    parts: Iterable[segments.Segment], told: Iterable[np.ndarray]
) -> Iterator[np.ndarray]:
    """The rows (last - first, _) of each segment."""
    stream, held, position = iter(told), np.zeros((0, 0), np.float32), 0
    for segment in parts:
        while position + len(held) < segment.last and (block := next(stream, None)) is not None:
            held = np.concatenate([held, block]) if held.size else block
        held, position = held[segment.first - position :], segment.first
        yield held[: segment.last - segment.first]


def _coarse_power(told: np.ndarray, config: WaveNetConfig) -> np.ndarray:
    """Power (n,) of the coarse waveform, pre-emphasised, in rows of `wavenet_condition`."""
    before, after = (steps * config.n_bands for steps in config.beside)
    own = told[:, config.condition_channels + before : -after or None]
    power: np.ndarray = np.square(own).mean(-1)
    return power


def _power(
    engine: Engine, codes: Iterable[np.ndarray], voice: Voice, *, live: bool
) -> Iterator[np.ndarray]:
    """(n,) power of each code's audio, in blocks: where a cut is heard least."""
    if engine.config.fast is None:
        for block in codes:
            yield np.ones(block.shape[1], np.float32)
        return
    for block in parallel_blocks(engine, codes, voice, live=live):
        yield np.square(block).reshape(-1, engine.config.hop_length).mean(-1)
