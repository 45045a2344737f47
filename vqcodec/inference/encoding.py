"""From a recording, at once or block by block, to its codes and its speaker vector."""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from vqcodec.audio.analysis import MAX_REFERENCES, REFERENCE_SECONDS
from vqcodec.audio.level import ABSOLUTE_GATE
from vqcodec.audio.offset import FRAME_SECONDS, frame_length, regroup, without_offset
from vqcodec.audio.recording import Recording, array_frames, as_channels, mix, open_recording
from vqcodec.audio.resampling import resample_blocks, resampled_length
from vqcodec.audio.soundfiles import checked_rate
from vqcodec.errors import AudioError, RecordingWarning, SpeakerError
from vqcodec.format.header import StreamMetadata
from vqcodec.format.stream_records import CodeBlock
from vqcodec.format.streaming import Blocks
from vqcodec.inference import chunking
from vqcodec.inference.engines import Engine
from vqcodec.inference.melody import record_of, tracked_blocks, with_symbols
from vqcodec.models.config import ModelConfig
from vqcodec.models.receptive_field import encoder_context

Progress = Callable[[float], None]

# Another chunk is another shape of matrix products, which moves a margin by some 1e-7.
DOUBT = 2e-5
LONGEST_PAUSE = 16.0  # seconds
SOUND_POWER = 1e-5  # mean square: -50 dB full scale
BLOCK_LENGTH = 1 << 16  # samples read at a time
SILENCE = ABSOLUTE_GATE**0.5  # below which no level is measured
# The closest tenth of the latents of speech is nearer to codes of these (docs/decisions.md).
CLOSEST_SHARE, LEAST_SECONDS = 0.1, 5.0
UNLIKE_SPEECH = {"speech-1k": 0.1, "speech-2k": 0.1, "units-25hz": 0.125}


def encode_recording(
    engine: Engine,
    recording: Recording,
    gain: float,
    *,
    search: Callable[[Iterable[np.ndarray]], Iterator[np.ndarray]] | None,
    packaged: str | None,
    on_progress: Progress | None = None,
) -> np.ndarray:
    """Encode a whole recording of some gain to codes, (Q, N) uint16.

    Args:
        engine: of the model.
        recording: of any rate.
        gain: of the recording.
        search: encodes in place of the encoder, as `code_search.searched_blocks` does.
        packaged: name of the model, if it is a packaged one: how near speech is to others' codes is
            not known.
        on_progress: called with the share done, in [0, 1].

    Raises:
        AudioError: the recording cannot be read.
        VqcodecError: of the search.

    Warns:
        RecordingWarning: the recording is silent or unlike speech.
    """
    sample_rate, hop_length = engine.config.sample_rate, engine.config.hop_length
    n_samples = resampled_length(recording.n_samples, recording.sample_rate, sample_rate)
    n_codes, n_done, loudest = -(-n_samples // hop_length), 0, 0.0

    def normalised_blocks() -> Iterator[np.ndarray]:
        nonlocal loudest
        for block in recording.speech(sample_rate, BLOCK_LENGTH, gain):
            loudest = max(loudest, float(np.abs(block).max()))
            yield block / np.float32(gain)

    parts: list[np.ndarray] = []
    distances: list[np.ndarray] = []
    blocks = normalised_blocks()
    for part in search(blocks) if search else code_blocks(engine, blocks, distances=distances):
        parts.append(part)
        n_done += part.shape[1]
        if on_progress:
            on_progress(n_done / n_codes)
    if loudest < SILENCE:
        _warn(f"{recording.name}: is silent; if it is stereo of opposite phase, give one channel")
    elif is_unlike_speech(distances, engine.config, UNLIKE_SPEECH.get(packaged or "", math.inf)):
        _warn(
            f"{recording.name}: does not sound like speech but like music or noise, of which the "
            "codes keep little; listen to what is decoded"
        )
    return np.concatenate(parts, axis=1)


def is_unlike_speech(distances: list[np.ndarray], config: ModelConfig, least: float) -> bool:
    """Whether a recording holds hardly anything that the model has a code for.

    Even noisy speech has moments that lie close to a code, and pauses; music and noise have fewer.
    Of less than five seconds of distances, as `code_blocks` gives them, nothing is said; of more,
    the closest tenth are to be `least` at most.
    """
    squares = np.sort(np.concatenate([np.zeros(0, np.float32), *distances]))
    if len(squares) < LEAST_SECONDS * config.sample_rate / config.hop_length:
        return False
    return bool(squares[round(CLOSEST_SHARE * (len(squares) - 1))] > least)


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
        blocks, length=_step(engine, live=live), context=(before, after), step=hop_length
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


def _warn(message: str) -> None:
    warnings.warn(message, RecordingWarning, stacklevel=4)
