"""From a recording, block by block, to its codes and its speaker vector."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from vqcodec.audio.analysis import MAX_REFERENCES, REFERENCE_SECONDS
from vqcodec.audio.offset import FRAME_SECONDS, frame_length, regroup, without_offset
from vqcodec.audio.recording import Recording, array_frames, as_channels, mix, open_recording
from vqcodec.audio.resampling import resample_blocks, resampled_length
from vqcodec.audio.soundfiles import checked_rate
from vqcodec.errors import AudioError, SpeakerError
from vqcodec.format.header import StreamMetadata
from vqcodec.format.stream_records import CodeBlock
from vqcodec.format.streaming import Blocks
from vqcodec.inference import chunking
from vqcodec.inference.engines import Engine
from vqcodec.inference.melody import record_of, tracked_blocks, with_symbols
from vqcodec.models.receptive_field import encoder_context

Progress = Callable[[float], None]

# Another chunk is another shape of matrix products, which moves a margin by some 1e-7.
DOUBT = 2e-5
LONGEST_PAUSE = 16.0  # seconds
SOUND_POWER = 1e-5  # mean square: -50 dB full scale


def code_blocks(
    engine: Engine,
    blocks: Iterable[np.ndarray],
    *,
    live: bool = False,
    distances: list[np.ndarray] | None = None,
) -> Iterator[np.ndarray]:
    """Encode blocks (T,) float32 at the model's rate and normalised level to (Q, n) uint16.

    Live, they are encoded in short chunks, each as soon as it is heard, to the same codes.
    `distances` gets those of every block of latents to their codes, (n,), squared: for
    `is_unlike_speech`.
    """
    config, hop_length = engine.config, engine.config.hop_length
    before, after = (-(-n // hop_length) for n in encoder_context(config.encoder))
    grid = chunking.chunks(
        blocks,
        length=_step(engine, live=live),
        context=(before, after),
        step=hop_length,
    )

    def encode(chunk: chunking.Chunk) -> tuple[np.ndarray, np.ndarray]:
        codes, margins, squares = engine.encode_chunk(chunk.data)
        for frame in np.flatnonzero(margins < DOUBT).tolist():
            if chunk.start <= frame < chunk.end:
                codes[:, frame] = settle(chunk.data, frame)
        span = slice(chunk.start, chunk.end)
        return codes[:, span].astype(np.uint16), squares[span]

    def settle(waveform: np.ndarray, frame: int) -> np.ndarray:
        """The code of a frame from just what it sees, wherever the chunk lay."""
        first = max(frame - before, 0)
        seen = waveform[first * hop_length : (frame + after + 1) * hop_length]
        return engine.encode_chunk(seen).codes[:, frame - first]

    for codes, squares in chunking.map_in_order(encode, grid, engine.n_threads, live=live):
        if distances is not None:
            distances.append(squares)
        yield codes


def _step(engine: Engine, *, live: bool) -> int:
    # Codes without margins cannot be settled, so their chunks never move.
    has_margins = engine.config.quantizer.has_margins
    return chunking.LIVE_LENGTH if live and has_margins else chunking.LENGTH


def live_codes(engine: Engine, blocks: Iterable[np.ndarray], metadata: StreamMetadata) -> Blocks:
    """Encode a recording, (T,) blocks at its own rate and level, while it is being made.

    Returns a generator as of a `CodesStream`; raises AudioError if it ends before it has begun.
    """
    n_samples, has_ended = 0, False

    def counted() -> Iterator[np.ndarray]:
        nonlocal n_samples, has_ended
        for block in blocks:
            n_samples += len(block)
            yield block
        has_ended = True

    rates = metadata.original_sample_rate, metadata.sample_rate
    centred = without_offset(counted(), metadata.original_sample_rate, metadata.gain)
    resampled = resample_blocks(
        centred, *rates, lambda: resampled_length(n_samples, *rates) if has_ended else None
    )
    normalised = (block / np.float32(metadata.gain) for block in resampled)
    record = record_of(metadata)
    if record is None:
        yield from map(CodeBlock, code_blocks(engine, normalised, live=True))
    else:
        for_codes, for_pitch = itertools.tee(normalised)
        codes = code_blocks(engine, for_codes, live=True)
        contours = tracked_blocks(engine, for_pitch, step=_step(engine, live=True), live=True)
        yield from with_symbols(codes, contours, record)
    if not n_samples:
        raise AudioError("stream: holds no samples; record it again")
    return n_samples


def listened(
    blocks: Iterable[np.ndarray], sample_rate: int, *, hold: bool
) -> tuple[Iterator[np.ndarray], Recording]:
    """Mix a live recording to mono, and hold back its beginning if need be.

    A pause before the first word must fix neither the level nor the voice.

    Args:
        blocks: (T,) or (channels, T) samples, T free.
        sample_rate: in Hz.
        hold: hold back the recording until `REFERENCE_SECONDS` of sound have come, or
            `LONGEST_PAUSE` seconds, or its end.

    Returns:
        (T,) float32 blocks of the whole recording, and a recording of what was held back, from
        the first sound on: a moment of silence if there is none.

    Raises:
        AudioError: here or while iterating, a block is no audio.
    """
    name = "stream"
    frames = (frame for block in blocks for frame in array_frames(as_channels(block, name)))
    mono = mix(frames, name, checked_rate(name, sample_rate))
    mono, heard, centred = itertools.tee(mono, 3)
    length = frame_length(sample_rate)
    levelled = regroup(without_offset(centred, sample_rate, 0), length)
    pairs = zip(regroup(heard, length), levelled, strict=True)
    held: list[np.ndarray] = []
    n_silent, n_sound, seconds = 0, 0, 1 / FRAME_SECONDS
    while hold and n_sound < REFERENCE_SECONDS * seconds and len(held) < LONGEST_PAUSE * seconds:
        if (pair := next(pairs, None)) is None:
            n_silent = 0  # this is all, however soft
            break
        held.append(pair[0])
        n_sound += int(np.square(pair[1], dtype=np.float64).mean() > SOUND_POWER)
        if not n_sound:
            n_silent = len(held)
    beginning = np.concatenate([np.zeros(0, np.float32), *held[n_silent:]])
    if not len(beginning):
        beginning = np.zeros(1, np.float32)
    return mono, open_recording(beginning, sample_rate)


def speaker_vectors(engine: Engine, recording: Recording, *, gain: float) -> np.ndarray:
    """Hear who speaks in each of the first 1 to 16 pieces of a recording, (n, 64) float32.

    Raises AudioError if it cannot be read, SpeakerError if the model has only a table of speakers.
    """
    if engine.config.speaker.kind == "table":
        raise SpeakerError(
            f"{recording.name}: the model knows speakers only by name; "
            "say who speaks with --speaker"
        )
    sample_rate = engine.config.sample_rate
    length = round(REFERENCE_SECONDS * sample_rate)
    pieces: list[np.ndarray] = []
    for piece in recording.speech(sample_rate, length, gain):
        if pieces and (len(piece) < length // 2 or len(pieces) == MAX_REFERENCES):
            break
        # The mel spectrogram needs a window's worth of samples.
        pieces.append(np.pad(piece / np.float32(gain), (0, max(0, length // 8 - len(piece)))))
    return np.stack(list(chunking.map_in_order(engine.speaker_vector, pieces, engine.n_threads)))
