"""Decodings are as loud as what was recorded, and no louder where it paused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import vqcodec
from vqcodec import Codes
from vqcodec.audio import load as load_audio
from vqcodec.audio.level import TARGET_RMS, frame_powers
from vqcodec.audio.recording import open_recording
from vqcodec.codec import Codec
from vqcodec.format.stream_records import CodeBlock
from vqcodec.format.streaming import CodesStream
from vqcodec.inference.loudness import followed, normalised

SAMPLES = Path(__file__).parents[2] / "samples"
LAYOUT = {"sample_rate": 16000, "hop_length": 128}


@pytest.fixture(scope="module")
def codec() -> Codec:
    return vqcodec.load(device="cpu")


@pytest.fixture(scope="module", params=["rms", "slt"])
def recording(request: pytest.FixtureRequest) -> np.ndarray:
    return load_audio(SAMPLES / f"{request.param}.wav", 16000)


@pytest.fixture(scope="module")
def spoken(codec: Codec, recording: np.ndarray) -> Codes:
    return codec.encode(recording, 16000)


def level_db(waveform: np.ndarray) -> float:
    return 20 * float(np.log10(open_recording(waveform, 16000).gain()))


def pause_db(waveform: np.ndarray, is_pause: np.ndarray) -> float:
    power = frame_powers(waveform, 16000)[is_pause].mean()
    return 10 * float(np.log10(max(power, 1e-9)))


def pauses(recording: np.ndarray) -> np.ndarray:
    """20 ms frames 25 dB below the level of speech, five or more in a row."""
    active = (open_recording(recording, 16000).gain() * TARGET_RMS) ** 2
    is_low = (frame_powers(recording, 16000) < active * 10**-2.5).astype(int)
    runs = np.convolve(is_low, np.ones(5, int), "valid") == 5
    return np.convolve(runs, np.ones(5, int)) > 0


# The first three are too soft or hiss when nothing is done, the last does neither.
@pytest.mark.parametrize("voice", ["ls2414", "ls2609", "p239", "p225"])
def test_conversions_are_as_loud_as_the_recording_and_pause_with_it(
    codec, recording, spoken, voice
):
    converted = codec.decode(spoken, speaker=voice)
    assert level_db(converted) == pytest.approx(level_db(recording), abs=1.5)
    is_pause = pauses(recording)
    assert is_pause.sum() > 10
    assert pause_db(converted, is_pause) < pause_db(recording, is_pause) + 6.5


def test_a_decoding_in_its_own_voice_is_as_loud(codec, recording, spoken):
    # 2.2 and 1.4 dB too soft when nothing is done.
    assert level_db(codec.decode(spoken)) == pytest.approx(level_db(recording), abs=1.2)


@pytest.mark.parametrize("voice", [None, "ls2609"])
def test_streams_are_the_same_bits(codec, spoken, voice):
    whole = codec.decode(spoken, speaker=voice)
    assert np.array_equal(np.concatenate(list(codec.stream_decode(spoken, speaker=voice))), whole)
    assert len(whole) == spoken.n_samples


def test_a_live_conversion_waits_for_one_block_more(codec, spoken):
    read = 0

    def codes():
        nonlocal read
        for start in range(0, spoken.n_codes, 25):
            read = min(start + 25, spoken.n_codes)
            symbols = {kind: own[start // 4 : read // 4] for kind, own in spoken.symbols.items()}
            yield CodeBlock(spoken.codes[:, start:read], symbols)
        return spoken.n_samples

    for voice, blocks in ((None, 3), ("ls2609", 4)):
        stream = CodesStream(spoken, codes())
        next(codec.stream_decode(stream, speaker=voice))
        assert read == 25 * blocks


@pytest.mark.parametrize("n_samples", [1, 320, 16000])
def test_silence_stays_silent(codec, n_samples):
    silence = np.zeros(n_samples, np.float32)
    converted = codec.convert(silence, 16000, speaker="ls2609")
    assert converted.shape == (n_samples,)
    own = codec.decode(codec.encode(silence, 16000))
    assert np.abs(converted).max() <= 1.2 * max(np.abs(own).max(), 1e-3)


def test_twenty_milliseconds(codec):
    word = load_audio(SAMPLES / "rms.wav", 16000)[8000:8320]
    converted = codec.convert(word, 16000, speaker="ls2414")
    assert converted.shape == (320,)
    assert np.isfinite(converted).all()


def test_more_level_does_not_clip(codec, recording):
    loud = recording * (0.99 / np.abs(recording).max())
    codes = codec.encode(loud, 16000)
    for voice in (None, "ls2414", "p239"):
        assert np.abs(codec.decode(codes, speaker=voice)).max() < 1.001


def test_what_was_clipped_stays_as_loud(codec, recording):
    clipped = (recording * 20).clip(-1, 1)
    converted = codec.convert(clipped, 16000, speaker="p225")
    assert level_db(converted) == pytest.approx(level_db(clipped), abs=2)


def speechlike(n_codes: int, level: float) -> np.ndarray:
    noise = np.random.default_rng(0).standard_normal(128 * n_codes)
    return (level * TARGET_RMS * noise).astype(np.float32)


def test_a_level_is_found_however_far_off():
    softer = np.concatenate(list(normalised([speechlike(2000, 0.75)], gain=1.0, **LAYOUT)))
    assert level_db(softer[-16000:]) == pytest.approx(0, abs=0.3)


def test_blocks_and_windows_leave_no_seam():
    """A pure tone that is only raised has no steps in its envelope."""
    tone = np.sin(np.arange(128 * 600) * (2 * np.pi * 250 / 16000)).astype(np.float32)
    blocks = np.split(0.03 * tone, 6)
    out = np.concatenate(list(followed(blocks, [0.06 * tone], **LAYOUT)))
    out = np.concatenate(list(normalised([out], gain=1.0, **LAYOUT)))
    assert np.abs(np.diff(out)).max() < 1.02 * np.abs(out).max() * 2 * np.pi * 250 / 16000
    assert np.sqrt(np.mean(out**2)) == pytest.approx(TARGET_RMS, rel=0.3)


def test_a_soft_beginning_stays_soft():
    soft, loud = speechlike(300, 0.3), speechlike(300, 1.0)
    out = np.concatenate(list(normalised([soft, loud], gain=1.0, **LAYOUT)))
    assert level_db(out[-16000:]) - level_db(out[:16000]) > 6


def test_a_wavenet_pauses_with_the_fast_decoder(tiny_model):
    codec = vqcodec.load(tiny_model, device="cpu")
    codes = codec.encode(load_audio(SAMPLES / "rms.wav", 16000)[:8000], 16000)
    for voice in (None, "anna"):
        whole = codec.decode(codes, speaker=voice, decoder="wavenet", seed=1)
        stream = codec.stream_decode(codes, speaker=voice, decoder="wavenet", seed=1)
        assert whole.shape == (8000,)
        assert np.array_equal(np.concatenate(list(stream)), whole)
    reference = codec.decode(codes)
    # Random weights: white noise at full scale, but for the level that it is led to.
    assert abs(level_db(codec.decode(codes, decoder="wavenet")) - level_db(reference)) < 6
