"""Voices that a codec knows, hears and is given."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import vqcodec
from vqcodec import Codes, Speaker
from vqcodec.audio import open_recording
from vqcodec.codec import Codec
from vqcodec.errors import (
    RecordingWarning,
    SpeakerError,
)
from vqcodec.models.speaker_vector import from_int8, mean_vector
from vqcodec.weights.voices import VoicesFile


@pytest.fixture(scope="module", params=["onnx", "torch"])
def codec(light_model: Path, request: pytest.FixtureRequest) -> Codec:
    codec = vqcodec.load(light_model, device="cpu", engine=request.param)
    assert codec.engine.name == request.param
    return codec


@pytest.fixture(scope="module")
def codes(codec: Codec, speech: Path) -> Codes:
    return codec.encode(speech)


def test_conversion_keeps_the_codes_and_changes_the_voice(codec, speech, samples, codes):
    converted = codec.convert(speech, speaker="anna")
    assert np.array_equal(converted, codec.decode(codes, speaker="anna"))
    assert not np.array_equal(converted, codec.convert(speech, speaker="p225"))
    assert codec.encode(speech, speaker="anna").speaker == "anna"
    assert np.array_equal(codec.encode(speech, speaker="anna").codes, codes.codes)
    tensor = codec.convert(torch.from_numpy(samples), 16000, speaker="anna")
    assert isinstance(tensor, torch.Tensor)
    assert np.array_equal(tensor.numpy(), converted)


def test_conversion_is_led_away_from_the_source(codec, codes):
    guided = codec.decode(codes, speaker="anna")
    plain = codec.decode(replace(codes, speaker="anna"))
    assert not np.array_equal(guided, plain)
    nameless = replace(codes, speaker="ben")  # of a voice that this model does not know
    assert np.array_equal(codec.decode(nameless, speaker="anna"), plain)
    assert np.array_equal(codec.decode(replace(codes, speaker="anna"), speaker="anna"), plain)


def test_a_recording_carries_its_own_voice(codec, speech, samples, codes):
    own = codec.decode(codes)
    assert isinstance(codes.speaker, np.ndarray)
    pairs = (16_000, samples), (16_000, torch.from_numpy(samples))
    for same in (speech, str(speech), *pairs, Speaker(codes.speaker)):
        assert np.array_equal(codec.decode(codes, speaker=same), own)
    named = codec.voices["anna"]
    assert np.array_equal(
        codec.decode(codes, speaker=Speaker(named.vector)), codec.decode(codes, speaker="anna")
    )


def test_a_voice_of_elsewhere_is_stored_as_its_vector(codec, samples):
    """Its name would mean nothing, or somebody else, to whoever decodes."""
    stranger = Speaker(codec.voices["anna"].vector, "p225")
    codes = codec.encode(samples, 16000, speaker=stranger)
    assert np.array_equal(codes.speaker, stranger.vector)
    converted = codec.convert(samples, 16000, speaker=stranger)
    assert np.array_equal(converted, codec.convert(samples, 16000, speaker="anna"))


def test_an_unknown_voice_is_answered_with_the_nearest(codec, codes):
    with pytest.raises(SpeakerError, match=r"p255: neither a voice nor a recording; .*: p225"):
        codec.decode(codes, speaker="p255")
    with pytest.raises(SpeakerError, match="neither a voice nor a recording"):
        codec.speaker("x" * 5000)


def test_a_voice_named_by_codes_is_never_opened_as_a_file(codec, speech, tmp_path, monkeypatch):
    named = replace(codec.encode(speech, speaker="anna"), speaker="ben")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ben").write_bytes(speech.read_bytes())
    with pytest.raises(SpeakerError, match="name the voice ben, which model tiny does not know"):
        codec.decode(named)
    assert len(codec.decode(named, speaker="anna")) == named.n_samples


def test_enrolling_a_voice(light_model, samples, tmp_path):
    codec = vqcodec.load(light_model, device="cpu")
    voice = codec.enroll("ben", [samples[:9000], samples[9000:]], sample_rate=16_000)
    assert voice.name == "ben"
    assert codec.voices["ben"] is voice
    assert codec.encode(samples, 16000, speaker="ben").speaker == "ben"
    first, second = (
        codec.speaker(part, 16_000).vector for part in (samples[:9000], samples[9000:])
    )
    mean = mean_vector(np.stack([from_int8(first), from_int8(second)]))
    assert np.array_equal(voice.vector, mean)
    assert not np.array_equal(voice.vector, first)
    alone = codec.enroll("one", [samples], sample_rate=16_000)
    assert np.array_equal(alone.vector, codec.speaker(samples, 16_000).vector)
    VoicesFile(tmp_path / "voices.json").add(codec.fingerprint, voice)
    other = vqcodec.load(light_model, device="cpu", voices=tmp_path / "voices.json")
    assert np.array_equal(other.voices["ben"].vector, voice.vector)
    for clips in ([], "a.wav"):
        with pytest.raises(SpeakerError, match="nobody: give a list of recordings"):
            codec.enroll("nobody", clips)
    with pytest.raises(SpeakerError, match="cannot name a voice"):
        codec.enroll("x" * 65, [samples], sample_rate=16_000)
    with pytest.raises(SpeakerError, match=r"none\.json: no such voices file"):
        vqcodec.load(light_model, voices=tmp_path / "none.json")


def test_a_voice_of_another_model_is_refused(light_model, samples):
    """Its vector would be somebody else's."""
    ours, theirs = vqcodec.load(light_model, device="cpu"), vqcodec.load("units-25hz")
    enrolled = theirs.enroll("zoe", [samples], sample_rate=16_000)
    for voice in (enrolled, theirs.speaker(samples, 16_000), theirs.speaker("p225")):
        with pytest.raises(SpeakerError, match="as another model heard it, and tiny hears"):
            ours.convert(samples, 16_000, speaker=voice)
    assert len(ours.convert(samples, 16_000, speaker=ours.speaker("p225"))) == len(samples)


def test_a_namesake_of_the_models_voice_is_stored_in_the_codes(light_model, samples):
    """Where only the model's own voice is known by that name, it would say them."""
    codec = vqcodec.load(light_model, device="cpu", voices=False)
    assert codec.encode(samples, 16_000, speaker="p225").speaker == "p225"
    voice = codec.enroll("p225", [samples], sample_rate=16_000)
    assert np.array_equal(codec.encode(samples, 16_000, speaker="p225").speaker, voice.vector)


def test_a_warning_of_a_voice_points_at_the_caller(light_model, samples):
    codec, clip = vqcodec.load(light_model, device="cpu", voices=False), samples[:8000]
    with pytest.warns(RecordingWarning, match="the voice may be off") as heard:
        codec.speaker(clip, 16_000)
    with pytest.warns(RecordingWarning, match="the voice may be off") as enrolled:
        codec.enroll("mia", [clip], sample_rate=16_000)
    assert {warning.filename for told in (heard, enrolled) for warning in told} == {__file__}


def test_a_long_reference_is_heard_to_its_end(codec, samples):
    """Four seconds of a voice and four of another, an octave higher and at the same level."""
    pieces = [np.resize(one, 64_000) for one in (samples, samples[::2])]
    pieces = [one / np.float32(open_recording(one, 16000).gain()) for one in pieces]
    first, second = (codec.speaker(one, 16_000).vector.astype(int) for one in pieces)
    both = codec.speaker(np.concatenate(pieces), 16_000).vector.astype(int)
    np.testing.assert_allclose(both, (first + second) / 2, atol=2)
    assert np.abs(both - first).max() > 4


def test_who_adds_a_voice_keeps_those_of_others(tmp_path):
    one, other = (VoicesFile(tmp_path / "voices.json") for _ in range(2))
    one.add(b"model", Speaker(np.zeros(64, np.int8), "ben"))
    other.add(b"model", Speaker(np.ones(64, np.int8), "eve"))
    assert VoicesFile(tmp_path / "voices.json").voices(b"model").keys() == {"ben", "eve"}


def test_voices_that_are_added_at_the_same_time_all_stay(tmp_path):
    names = {f"voice{number}" for number in range(32)}

    def add(name):
        VoicesFile(tmp_path / "voices.json").add(b"model", Speaker(np.zeros(64, np.int8), name))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(add, names))
    assert VoicesFile(tmp_path / "voices.json").voices(b"model").keys() == names


def test_the_voice_does_not_depend_on_the_level(codec, samples):
    voiced = samples[5600:22400]  # no pause, which would be silence where it is quiet
    levels = np.float32(1), 2**-5
    loud, quiet = (codec.speaker(level * voiced, 16_000).vector for level in levels)
    assert np.array_equal(loud, quiet)
