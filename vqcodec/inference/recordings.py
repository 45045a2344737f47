"""A whole recording to its codes, and what speaks against it."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from vqcodec.audio import Recording
from vqcodec.audio.level import ABSOLUTE_GATE
from vqcodec.audio.resampling import resampled_length
from vqcodec.errors import RecordingWarning
from vqcodec.inference.encoding import Progress, code_blocks
from vqcodec.inference.engines import Engine
from vqcodec.models.config import ModelConfig

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


def _warn(message: str) -> None:
    warnings.warn(message, RecordingWarning, stacklevel=4)
