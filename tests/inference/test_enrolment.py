"""Voices from recordings: what is warned of, and what is measured of them."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import soundfile
from command_line import is_one_line

import vqcodec
from vqcodec.audio import open_recording
from vqcodec.audio.analysis import pitches, seconds_of_sound
from vqcodec.errors import RecordingWarning, SpeakerError
from vqcodec.inference import enrolment
from vqcodec.weights.voices import Speaker

SAMPLES = Path(__file__).parents[2] / "samples"


RMS, SLT = SAMPLES / "rms.wav", SAMPLES / "slt.wav"


def test_silent_references_are_refused(tiny_model, run, tmp_path):
    codec = vqcodec.load(tiny_model, device="cpu")
    samples, rate = soundfile.read(RMS, dtype="float32")
    with pytest.raises(SpeakerError, match="array: holds no sound"):
        codec.speaker(np.zeros(32_000, np.float32), rate)
    with pytest.raises(SpeakerError, match="array: holds no sound"):
        codec.enroll("eve", [samples, np.zeros(32_000, np.float32)], sample_rate=rate)
    assert "eve" not in codec.voices
    soundfile.write(tmp_path / "silence.wav", np.zeros(32_000), rate)
    options = ["--speaker", tmp_path / "silence.wav", "--model", tiny_model]
    result = run("convert", RMS, "-o", tmp_path / "out.wav", *options)
    assert (result.status, is_one_line(result)) == (1, True)
    assert f"{tmp_path / 'silence.wav'}: holds no sound; give" in result.stderr


def test_too_little_speech_is_warned_of(tiny_model, run, tmp_path):
    codec = vqcodec.load(tiny_model, device="cpu")
    samples, rate = soundfile.read(RMS, dtype="float32")
    short = np.concatenate([np.zeros(80_000, np.float32), samples[8000:8800]])
    with pytest.warns(RecordingWarning, match=r"^array: has only 0\.0\d+ s of sound"):
        codec.speaker(short, rate)
    with pytest.warns(RecordingWarning, match=r"^eve: has only 3\.\d s of sound"):
        codec.enroll("eve", [samples], sample_rate=rate)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        codec.speaker(samples, rate)
        codec.enroll("long", [samples] * 3, sample_rate=rate)
    soundfile.write(tmp_path / "short.wav", short, rate)
    options = ["--speaker", tmp_path / "short.wav", "--model", tiny_model]
    result = run("convert", SLT, "-o", tmp_path / "out.wav", *options)
    assert (result.status, is_one_line(result)) == (0, True)
    assert "short.wav: has only 0.0" in result.stderr


def voices_around(common: np.ndarray, n_voices: int) -> list[Speaker]:
    """Voices whose mean is `common`, nearly."""
    rng = np.random.default_rng(5)
    away = rng.normal(size=(n_voices, 64))
    away -= away.mean(axis=0)
    stored = np.rint(32 * (common + away)).clip(-128, 127).astype(np.int8)
    return [Speaker(one) for one in stored]


def test_recordings_of_two_people_are_told_apart():
    rng = np.random.default_rng(0)
    common, *people = rng.normal(size=(3, 64))
    known = voices_around(common, 12)

    def pieces(person: int, n_pieces: int) -> np.ndarray:
        return common + people[person] + 0.3 * rng.normal(size=(n_pieces, 64))

    def unlike(*clips: np.ndarray, known: list[Speaker] = known) -> list[int]:
        return enrolment.unlike(clips, [np.full(len(clip), 4.0) for clip in clips], known)

    assert unlike(pieces(0, 3), pieces(0, 2), pieces(0, 1)) == []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert unlike(np.ones((1, 64)), np.ones((1, 64))) == []  # one recording, given twice
    assert unlike(pieces(0, 3), pieces(1, 2), pieces(0, 1)) == [1]
    assert unlike(pieces(0, 1), pieces(1, 5), pieces(1, 2)) == [0]
    assert unlike(np.concatenate([pieces(0, 3), pieces(1, 1)])) == [0]
    assert unlike(pieces(0, 1)) == []
    assert unlike(pieces(0, 3), pieces(1, 2), known=known[:3]) == []  # too few to judge by
    # A pause is nobody.
    clips, sound = [pieces(0, 3), pieces(1, 1)], [np.full(3, 4.0), np.full(1, 0.5)]
    assert enrolment.unlike(clips, sound, known) == []


def test_two_people_enrolled_as_one_are_warned_of(tiny_model, monkeypatch):
    codec = vqcodec.load(tiny_model, device="cpu")
    monkeypatch.setattr(enrolment, "unlike", lambda clips, sound, known: [1])
    samples, _ = soundfile.read(RMS, dtype="float32")
    with pytest.warns(RecordingWarning, match=r"slt\.wav: unlike the other recordings of eve"):
        codec.enroll("eve", [RMS, SLT, RMS])
    with pytest.warns(RecordingWarning, match=r"^recording 2: unlike the other recordings of eve"):
        codec.enroll("eve", [samples, samples, samples], sample_rate=16_000)


@pytest.mark.parametrize("hertz", [65, 110, 220, 480])
@pytest.mark.parametrize("rate", [8000, 44100])
def test_pitch_of_a_tone_with_harmonics(hertz, rate):
    time = np.arange(2 * rate) / rate
    tone = sum(np.sin(2 * np.pi * hertz * k * time) / k for k in range(1, 7))
    recording = open_recording(0.1 * tone, rate)
    found = pitches(recording, recording.gain())
    assert np.median(found) == pytest.approx(hertz, rel=0.01)
    assert len(found) > 150


def test_pitch_of_what_has_none():
    noise = 0.1 * np.random.default_rng(0).standard_normal(32_000)
    for samples in (noise, np.zeros(32_000), np.full(10, 0.1)):
        recording = open_recording(samples, 16_000)
        assert len(pitches(recording, recording.gain())) == 0


@pytest.mark.parametrize("name", ["rms", "slt", "espeak"])
def test_pitch_is_that_of_world(name):
    pyworld = pytest.importorskip("pyworld")
    samples, rate = soundfile.read(SAMPLES / f"{name}.wav")
    recording = open_recording(SAMPLES / f"{name}.wav")
    reference, _ = pyworld.dio(samples, rate)
    found = np.median(pitches(recording, recording.gain()))
    assert abs(12 * np.log2(found / np.median(reference[reference > 0]))) < 1


def test_seconds_are_those_of_sound():
    samples, rate = soundfile.read(RMS, dtype="float32")
    alone = open_recording(samples, rate)
    padded = open_recording(np.concatenate([np.zeros(3 * rate, np.float32), samples]), rate)
    quiet = open_recording(samples / 100, rate)
    expected = seconds_of_sound(alone, alone.gain()).sum()
    assert 3 < expected < 5
    for other in (padded, quiet):
        found = seconds_of_sound(other, other.gain()).sum()
        assert found == pytest.approx(expected, abs=0.05)
    silence = open_recording(np.zeros(rate), rate)
    assert seconds_of_sound(silence, silence.gain()).tolist() == [0.0]
    offset = open_recording(np.full(rate, 0.05), rate)
    assert seconds_of_sound(offset, offset.gain()).tolist() == [0.0]
