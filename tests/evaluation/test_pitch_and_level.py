"""What the measures of conversion say of changes that are known."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import pyworld
from recordings import spoken

from vqcodec.evaluation import conversion
from vqcodec.evaluation.pitch_and_level import level_in_pauses, level_in_speech, mean_pitch
from vqcodec.evaluation.quality import (
    SAMPLE_RATE,
    UndefinedMetricError,
    f0_correlation,
    measure_each,
    speaker_embedding,
    speaker_similarity,
    voicing_error,
)


@pytest.fixture(scope="module")
def speech() -> np.ndarray:
    """A woman, with a pause at the end in which a little noise is heard."""
    hiss = 1e-4 * np.random.default_rng(0).standard_normal(4 * SAMPLE_RATE)
    waveform = spoken("slt", 0.0, 3.0)
    return (np.pad(waveform, (0, len(hiss) - len(waveform))) + hiss).astype(np.float32)


Voice = Callable[[Callable[[np.ndarray], np.ndarray]], np.ndarray]


@pytest.fixture(scope="module")
def say(speech: np.ndarray) -> Voice:
    """The speech by WORLD, with another F0 and all else as it was."""
    samples = speech.astype(np.float64)
    f0, times = pyworld.harvest(samples, SAMPLE_RATE)
    envelope = pyworld.cheaptrick(samples, f0, times, SAMPLE_RATE)
    noise = pyworld.d4c(samples, f0, times, SAMPLE_RATE)

    def say(change: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        made: np.ndarray = pyworld.synthesize(change(f0), envelope, noise, SAMPLE_RATE)
        return made[: len(speech)].astype(np.float32)

    return say


@pytest.fixture(scope="module")
def plain(say: Voice) -> np.ndarray:
    return say(lambda f0: f0)


def against(reference: np.ndarray, decoded: np.ndarray) -> dict[str, float]:
    return {
        "F0 correlation": f0_correlation(reference, decoded),
        "voicing error": voicing_error(reference, decoded),
        "mean pitch": mean_pitch(decoded) - mean_pitch(reference),
        "in speech": level_in_speech(reference, decoded),
        "in pauses": level_in_pauses(reference, decoded),
        "similarity": speaker_similarity(reference, decoded),
    }


UNCHANGED = {
    "F0 correlation": pytest.approx(1, abs=0.2),  # a syllable whose octave is mistaken is .15
    "voicing error": pytest.approx(0, abs=0.04),
    "mean pitch": pytest.approx(0, abs=0.1),
    "in speech": pytest.approx(0, abs=0.2),
    "in pauses": pytest.approx(0, abs=0.2),
    "similarity": pytest.approx(1, abs=0.05),
}


def test_a_recording_is_like_itself(speech: np.ndarray) -> None:
    assert against(speech, speech.copy()) == UNCHANGED


@pytest.mark.parametrize("semitones", [0.5, -1])
def test_a_pitch_moves_the_mean_pitch_alone(
    say: Voice, plain: np.ndarray, semitones: float
) -> None:
    changed = {"mean pitch": pytest.approx(semitones, abs=0.1)}
    found = against(plain, say(lambda f0: f0 * 2 ** (semitones / 12)))
    assert found == {**UNCHANGED, **changed}


def test_a_level_moves_the_levels_alone(speech: np.ndarray) -> None:
    changed = dict.fromkeys(["in speech", "in pauses"], pytest.approx(-6.02, abs=0.05))
    assert against(speech, speech / 2) == {**UNCHANGED, **changed}


def test_noise_in_the_pauses_moves_their_level_alone(speech: np.ndarray) -> None:
    hiss = 1e-3 * np.random.default_rng(1).standard_normal(SAMPLE_RATE).astype(np.float32)
    noisy = speech.copy()
    noisy[-SAMPLE_RATE:] += hiss
    found = against(speech, noisy)
    assert found == {**UNCHANGED, "in pauses": found["in pauses"]}
    assert 10 < found["in pauses"] <= 20


def test_a_melody_upside_down_moves_the_correlation_alone(say: Voice, plain: np.ndarray) -> None:
    mean = 2 ** (mean_pitch(plain) / 12)
    turned = say(lambda f0: np.where(f0 > 0, mean**2 / np.maximum(f0, 1), 0))
    found = against(plain, turned)
    assert found == {
        **UNCHANGED,
        "F0 correlation": pytest.approx(-1, abs=0.4),
        "mean pitch": pytest.approx(0, abs=0.3),
        "similarity": pytest.approx(1, abs=0.1),
    }


def test_another_voice_moves_similarity_to_target_and_source() -> None:
    parts = {
        who: [spoken(who, 0, 1.7), spoken(who, 1.7, 3.4)] for who in ("slt", "rms")
    }  # a woman and a man
    people = {
        who: conversion._person(who, [voice(each) for each in own]) for who, own in parts.items()
    }
    kept, swapped = (voice(parts[who][0]) for who in ("rms", "slt"))
    for mine, others in (("rms", "slt"), ("slt", "rms")):
        own = kept if mine == "rms" else swapped
        assert people[mine].similarity(own) > 0.9
        assert people[others].similarity(own) < people[mine].similarity(own) - 0.2
        assert people[mine].pitch_distance(own) < 1.5
        assert people[others].pitch_distance(own) > 4


def voice(waveform: np.ndarray) -> dict[str, Any]:
    return measure_each(conversion._of_voice(waveform, waveform)).values


@pytest.mark.parametrize("silent", ["original", "decoded recording"])
def test_silence_has_no_values_but_a_reason(speech: np.ndarray, silent: str) -> None:
    silence = np.zeros_like(speech)
    pair = (silence, speech) if silent == "original" else (speech, silence)
    for measure in (level_in_speech, level_in_pauses, f0_correlation, voicing_error):
        with pytest.raises(UndefinedMetricError, match=f"the {silent} is silent"):
            measure(*pair)
    for alone in (mean_pitch, speaker_embedding):
        with pytest.raises(UndefinedMetricError, match="silen"):
            alone(silence)


def test_what_has_no_pauses_no_speech_or_no_voice_is_told(speech: np.ndarray) -> None:
    hiss = 0.1 * np.random.default_rng(0).standard_normal(SAMPLE_RATE).astype(np.float32)
    with pytest.raises(UndefinedMetricError, match="fewer than 10 frames are voiced"):
        mean_pitch(hiss)
    with pytest.raises(UndefinedMetricError, match="fewer than 10 frames of pauses in the orig"):
        level_in_pauses(hiss, hiss)
    with pytest.raises(UndefinedMetricError, match="fewer than 10 frames of speech in the orig"):
        level_in_speech(speech[:1200], speech[:1200])
    with pytest.raises(UndefinedMetricError, match="less than 64 ms"):
        mean_pitch(speech[:300])


def test_directions_between_the_sexes_stand_apart() -> None:
    names = ["eva", "ada", "tom"]
    base = dict.fromkeys([*conversion._AGAINST_SOURCE, conversion._PITCH_DISTANCE], 0.5)
    errors = {f"word errors{of}": 1 for of in ("", " of reconstruction", " of original")}
    rows = [
        {"source": a, "target": b, "original to target": 0.5, "to source": 0.6}
        | {"words": 4, "words put in": 0}
        | {"to target": 0.9 if a == "tom" else 0.4}
        | base
        | errors
        for a in names
        for b in names
        if a != b
    ]
    table = conversion._table(rows, names, {"eva": "female", "ada": "female", "tom": "male"})
    lines = {(row["source"], row["target"]): row for row in table}
    assert len(table) == 6 + 3 + 1
    assert ("men", "men") not in lines
    assert lines["men", "women"]["to target"] == "0.900"
    assert lines["men", "women"]["target > source"] == "2 of 2"
    assert lines["women", "men"]["nearer to target"] == "0 of 2"
    assert lines["women", "women"]["target > source"] == "0 of 2"
    assert lines["all", "all"]["target > source"] == "2 of 6"
    unknown = conversion._table(rows, names, {"eva": "", "ada": "", "tom": "male"})
    assert len(unknown) == 6 + 1
