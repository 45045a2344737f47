"""What lies below speech decides neither level nor codes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

import vqcodec
from vqcodec.audio import open_recording
from vqcodec.audio.offset import without_offset

RATE = 16_000
SAMPLES = Path(__file__).parents[2] / "samples"


@pytest.fixture(scope="module")
def voice() -> np.ndarray:
    """Three seconds of a woman at 0.3 of full scale."""
    samples = soundfile.read(SAMPLES / "slt.wav", dtype="float32")[0][: 3 * RATE]
    return samples * np.float32(0.3 / np.abs(samples).max())


@pytest.fixture(scope="module")
def codec() -> vqcodec.Codec:
    return vqcodec.load(device="cpu")


@pytest.fixture(scope="module")
def clean(codec, voice) -> vqcodec.Codes:
    return codec.encode(voice, RATE)


@pytest.mark.parametrize("offset", [0.05, -0.2])
def test_an_offset_changes_neither_level_nor_voice_nor_codes(codec, voice, clean, offset):
    codes = codec.encode(voice + np.float32(offset), RATE)
    assert codes.gain == pytest.approx(clean.gain, rel=0.01)
    heard, own = (one.speaker / np.linalg.norm(one.speaker) for one in (codes, clean))
    assert heard @ own > 0.99
    assert np.mean(codes.codes == clean.codes) >= 0.97
    loudness = [np.sqrt(np.square(codec.decode(one)).mean()) for one in (codes, clean)]
    assert loudness[0] == pytest.approx(loudness[1], rel=0.03)


@pytest.mark.parametrize("offset", [0.05, -0.2])
def test_an_offset_changes_no_live_recording(codec, voice, clean, offset):
    shifted = voice + np.float32(offset)
    stream = codec.stream_encode(np.array_split(shifted, 40), RATE)
    assert stream.metadata.gain == pytest.approx(clean.gain, rel=0.01)
    assert np.mean(np.concatenate(list(stream), axis=1) == clean.codes) >= 0.97


def test_live_and_whole_recordings_with_an_offset_have_the_same_codes(codec, voice):
    shifted = voice + np.linspace(0.1, 0.3, len(voice), dtype=np.float32)
    whole = codec.encode(shifted, RATE, speaker="p225")
    stream = codec.stream_encode(np.array_split(shifted, 37), RATE, speaker="p225", gain=whole.gain)
    np.testing.assert_array_equal(np.concatenate(list(stream), axis=1), whole.codes)


def test_rumble_does_not_change_the_level(voice):
    time = np.arange(len(voice)) / RATE
    rumble = 0.1 * np.sin(2 * np.pi * 5 * time)
    gain = open_recording(voice, RATE).gain()
    assert open_recording(voice + rumble, RATE).gain() == pytest.approx(gain, rel=0.03)


def test_a_pause_with_an_offset_is_a_pause(codec, voice):
    """It must not fix the level and the voice of a live recording."""
    pause = np.random.default_rng(0).normal(0, 1e-4, 2 * RATE).astype(np.float32)
    recording = np.concatenate([pause, voice]) + np.float32(0.1)
    stream = codec.stream_encode(np.array_split(recording, 50), RATE)
    alone = open_recording(voice, RATE).gain()
    assert stream.metadata.gain == pytest.approx(alone, rel=0.01)


@pytest.mark.parametrize("n_blocks", [1, 7, 1000])
def test_the_offset_goes_however_the_recording_is_cut(voice, n_blocks):
    shifted = voice + np.float32(0.2)
    cut = np.concatenate(list(without_offset(np.array_split(shifted, n_blocks), RATE, 1.0)))
    np.testing.assert_array_equal(cut, np.concatenate(list(without_offset([shifted], RATE, 1.0))))
    assert len(cut) == len(voice)
    np.testing.assert_allclose(cut, voice, atol=0.001)


@pytest.mark.parametrize("n_samples", [1, 17 * 320 - 1, 100 * 320, 210 * 320 + 5])
def test_what_is_taken_off_is_the_mean_of_the_last_four_seconds(n_samples):
    rng = np.random.default_rng(0)
    drift = np.linspace(-0.2, 0.3, n_samples) + rng.normal(0, 0.1, n_samples)
    frames = np.split(drift.astype(np.float32), range(320, n_samples, 320))
    means = [frame.mean(dtype=np.float64) for frame in frames]
    expected, before = [], None
    for number, frame in enumerate(frames):
        heard = means[max(0, number - 199) : number + 1] if number >= 17 else means[:17]
        offset = np.mean(heard)
        start = offset if before is None else before
        ramp = np.linspace(start, offset, len(frame), dtype=np.float32)
        expected.append(frame - ramp)
        before = offset
    found = np.concatenate(list(without_offset([np.concatenate(frames)], RATE, 0)))
    np.testing.assert_array_equal(found, np.concatenate(expected))


@pytest.mark.parametrize("length", [0, 1, 319, 320, 5000])
def test_short_recordings_lose_their_offset_too(length):
    constant = np.full(length, 0.25, np.float32)
    left = [np.zeros(0), *without_offset([constant], RATE, 1.0)]
    np.testing.assert_array_equal(np.concatenate(left), np.zeros(length))


def test_what_has_no_offset_is_untouched(voice):
    gain = open_recording(voice, RATE).gain()
    blocks = list(without_offset([voice], RATE, gain))
    np.testing.assert_array_equal(np.concatenate(blocks), voice)
    powers = np.square(voice[: len(voice) // 320 * 320].astype(float)).reshape(-1, 320).mean(1)
    active = powers[powers > 0.1 * powers[powers > 1e-8].mean()]
    assert gain == np.float32(np.sqrt(active.mean()) / 0.06)
