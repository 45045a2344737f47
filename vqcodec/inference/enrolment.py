"""Voices from recordings of people, and what speaks against such a recording."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence

import numpy as np

from vqcodec.audio import Recording
from vqcodec.audio.analysis import pitches, seconds_of_sound
from vqcodec.errors import RecordingWarning, SpeakerError
from vqcodec.inference.encoding import speaker_vectors
from vqcodec.inference.engines import Engine
from vqcodec.models.speaker_vector import from_int8, mean_vector
from vqcodec.weights.voices import Speaker, VoiceInfo

ENOUGH_S, ENOUGH_TO_ENROLL_S = 3.0, 10.0
# Chosen on training recordings. Of pieces of one person in 58 to 134 sets of two to six, 0 to 1.6 %
# have groups less alike; of two people, 81 to 93 %.
UNLIKE = 0.6
SHORTEST_PIECE_S, FEWEST_VOICES = 1.0, 8


def heard(engine: Engine, recording: Recording) -> Speaker:
    """Who speaks in a reference recording of any rate.

    Raises SpeakerError if it is silent or the model has only a table of speakers, and AudioError if
    it cannot be read; warns if it has less than 3 s of sound.
    """
    gain = recording.gain()
    vector = mean_vector(speaker_vectors(engine, recording, gain=gain))
    seconds = _seconds(recording, gain).sum()
    if seconds < ENOUGH_S:
        _warn(
            f"{recording.name}: has only {seconds:.2g} s of sound: the voice may be off; "
            f"{ENOUGH_S:.0f} s or more are better",
            n_between=2,
        )
    if engine.config.pitch is None:
        return Speaker(vector)
    return Speaker(vector, info=VoiceInfo(pitch_hz=_median(pitches(recording, gain))))


def _median(hertz: np.ndarray) -> float | None:
    return round(float(np.median(hertz)), 1) if len(hertz) else None


def enrolled(
    engine: Engine,
    name: str,
    recordings: Sequence[Recording],
    *,
    known: Sequence[Speaker],
    tune: Callable[[Sequence[Recording], np.ndarray], np.ndarray] | None = None,
) -> Speaker:
    """A new voice from one or more recordings of one person; see `Codec.enroll`.

    The voices that are `known` tell how unlike each other people are; `tune` makes a better vector
    of recordings and a vector, (64,) int8 both.
    """
    gains = [recording.gain() for recording in recordings]
    pairs = list(zip(recordings, gains, strict=True))
    clips = [speaker_vectors(engine, one, gain=gain) for one, gain in pairs]
    sound = [_seconds(*pair) for pair in pairs]
    seconds = float(np.concatenate(sound).sum())
    if seconds < ENOUGH_TO_ENROLL_S:
        _warn(
            f"{name}: has only {seconds:.1f} s of sound: the voice may be off; half a minute is "
            "better"
        )
    strangers = unlike(clips, sound, known)
    if strangers:
        _warn(_doubt(name, recordings, strangers))
    stored = [mean_vector(vectors) for vectors in clips]
    vector = mean_vector(np.stack([from_int8(one) for one in stored]))
    if tune:
        vector = tune(recordings, vector)
    voiced = np.concatenate([pitches(*pair) for pair in pairs])
    count = f"{len(recordings)} recording" + "s" * (len(recordings) > 1)
    info = VoiceInfo(
        pitch_hz=_median(voiced), seconds=round(seconds, 1), source=f"enrolled from {count}"
    )
    return Speaker(vector, name, info)


def unlike(
    clips: Sequence[np.ndarray], sound: Sequence[np.ndarray], known: Sequence[Speaker]
) -> list[int]:
    """Which of some recordings seem to be of somebody else, at least in part.

    The pieces of all recordings are parted in two by which of the two least alike each is nearer
    to. Groups that differ as people do are of two people, or of one person whom two microphones
    or rooms have made as different. What all voices have in common is taken off first.

    Args:
        clips: speaker vectors (n, 64) of the pieces of each recording.
        sound: seconds of sound (n,) in these pieces, or (n + 1,).
        known: voices that the model knows already.

    Returns:
        Indices of the recordings that have pieces of the smaller group; none if the groups are
        alike, or too few voices are known.
    """
    if len(known) < FEWEST_VOICES:
        return []
    common = np.mean([from_int8(voice.vector) for voice in known], axis=0)
    kept = [s[: len(v)] >= SHORTEST_PIECE_S for v, s in zip(clips, sound, strict=True)]
    owners = np.repeat(np.arange(len(clips)), [int(k.sum()) for k in kept])
    pieces = np.concatenate([v[k] for v, k in zip(clips, kept, strict=True)]) - common
    if len(pieces) < 2:
        return []
    directions = pieces / np.linalg.norm(pieces, axis=1, keepdims=True).clip(1e-9)
    likeness = directions @ directions.T
    one, other = np.unravel_index(likeness.argmin(), likeness.shape)
    is_first = likeness[one] >= likeness[other]
    if is_first.all():  # as of one recording that is given twice
        return []
    first, second = pieces[is_first].mean(axis=0), pieces[~is_first].mean(axis=0)
    cosine = first @ second / max(float(np.linalg.norm(first) * np.linalg.norm(second)), 1e-9)
    if cosine >= UNLIKE:
        return []
    is_smaller = is_first if is_first.sum() < (~is_first).sum() else ~is_first
    return sorted({*owners[is_smaller].tolist()})


def _doubt(name: str, recordings: Sequence[Recording], strangers: Sequence[int]) -> str:
    if len(recordings) == 1:
        return (
            f"{recordings[0].name}: parts of it sound unlike each other: if it is of several "
            "people, cut out one"
        )
    names = [recording.name for recording in recordings]
    # All arrays are called the same.
    told = ", ".join(
        names[index] if names.count(names[index]) == 1 else f"recording {index + 1}"
        for index in strangers
    )
    return (
        f"{told}: unlike the other recordings of {name}, at least in part: listen whether it is of "
        "somebody else, or of another microphone, and leave it out"
    )


def _seconds(recording: Recording, gain: float) -> np.ndarray:
    seconds = seconds_of_sound(recording, gain)
    if not seconds.any():
        raise SpeakerError(
            f"{recording.name}: holds no sound; give a recording of somebody who speaks"
        )
    return seconds


def _warn(message: str, n_between: int = 1) -> None:
    # At the caller of `Codec.speaker` or `Codec.enroll`, so many calls above this module.
    warnings.warn(message, RecordingWarning, stacklevel=3 + n_between)
