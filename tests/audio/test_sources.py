"""What can be given as a recording, in Python."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
import torch

from vqcodec.audio import open_recording, recording
from vqcodec.errors import AudioError

RATE = 16_000
SAMPLES = Path(__file__).parents[2] / "samples"


@pytest.fixture(scope="module")
def voice() -> np.ndarray:
    return soundfile.read(SAMPLES / "slt.wav", dtype="float32")[0][: 2 * RATE]


def read(source: object) -> np.ndarray:
    opened = open_recording(source)
    return np.concatenate(list(opened.blocks(opened.sample_rate, 9999)))


def test_pairs_examples_and_bytes_are_read_as_the_file(voice, tmp_path):
    path = tmp_path / "a.wav"
    soundfile.write(path, voice, RATE)
    expected = read(path)
    whole = np.rint(expected * 32768).astype(np.int16)
    for source in (
        (RATE, expected),
        (np.int64(RATE), whole),
        (RATE, whole.astype(">i2")),  # as SciPy reads a RIFX
        (RATE, np.stack([whole, whole], axis=1)),  # Gradio and SciPy: channels last
        {"array": expected, "sampling_rate": RATE, "path": "gone.wav"},
        {"array": np.stack([expected, expected]), "sampling_rate": RATE},
        {"bytes": path.read_bytes(), "path": None},
        {"bytes": None, "path": str(path)},
        path.read_bytes(),
    ):
        np.testing.assert_array_equal(read(source), expected)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ((np.zeros(9), RATE), r"give \(rate, array\)"),
        ((RATE, np.zeros((2, 9000))), r"9000 channels are not supported"),
        ((RATE, [[0.0], [0.0, 1.0]]), "NumPy cannot read it"),
        ((0, np.zeros(9)), "a sample rate of 0 Hz is impossible"),
        ({"array": np.zeros(9)}, "dictionary with array: give one with array and sampling_rate"),
        ({}, "dictionary with nothing"),
        (b"RIFF", "bytes: is not audio that can be read"),
        (np.zeros(9), r"has no sample rate of its own; give sample_rate in Hz, or \(rate, array\)"),
        (None, "NoneType: is no recording; give a path, bytes, an open file, or an array"),
        (iter(["a.wav"]), "list_iterator: is no recording; give a path"),
        (["a.wav", "b.wav"], "list: is no recording; give a path"),
        (io.StringIO("RIFF"), 'stream: is open as text; open it as bytes, with the mode "rb"'),
    ],
)
def test_what_cannot_be_read_says_what_to_pass(source, message):
    with pytest.raises(AudioError, match=message):
        open_recording(source)


@pytest.mark.parametrize("source", [(RATE, np.zeros(9)), b"RIFF", {"path": "a.wav"}])
def test_a_rate_is_not_given_twice(source):
    with pytest.raises(AudioError, match="knows its own sample rate; leave sample_rate out"):
        open_recording(source, RATE)


def test_a_conversion_reads_each_recording_once(codec, voice, tmp_path, monkeypatch):
    paths = [tmp_path / "source.wav", tmp_path / "reference.wav"]
    for path in paths:
        soundfile.write(path, voice, RATE)
    decode, read_files = recording.decode, []
    monkeypatch.setattr(
        recording, "decode", lambda path, name: (read_files.append(path), decode(path, name))[1]
    )
    source = open_recording(paths[0])
    assert open_recording(source) is source
    opened = codec.convert(source, speaker=open_recording(paths[1]))
    assert sorted(read_files) == sorted(paths)
    np.testing.assert_array_equal(codec.convert(paths[0], speaker=paths[1]), opened)
    assert len(read_files) == 4


def test_a_pair_is_one_recording_and_a_list_several(codec, voice):
    pair = RATE, voice
    one = codec.encode(pair)
    for codes in codec.encode([pair, {"array": voice, "sampling_rate": RATE}]):
        np.testing.assert_array_equal(codes.codes, one.codes)
    assert codec.convert(pair, speaker="p225").shape == voice.shape


def test_the_reference_of_a_conversion_shares_the_rate_of_its_source(codec, voice):
    source, reference = voice[:RATE], voice[RATE:]
    at_48k = soxr.resample(reference, RATE, 48_000)
    expected = codec.convert(source, RATE, speaker=codec.speaker((48_000, at_48k)))
    converted = codec.convert(source, RATE, speaker=(48_000, at_48k))
    np.testing.assert_array_equal(converted, expected)
    source_at_48k = soxr.resample(source, RATE, 48_000)
    for speaker in (at_48k, torch.from_numpy(at_48k), (48_000, at_48k)):
        converted = codec.convert(source_at_48k, 48_000, speaker=speaker)
        expected = codec.convert(source_at_48k, 48_000, speaker=codec.speaker(at_48k, 48_000))
        np.testing.assert_array_equal(converted, expected)


def test_a_reference_that_is_a_file_has_its_own_rate(codec, voice):
    path = SAMPLES / "slt.wav"
    converted = codec.convert(voice[:RATE], RATE, speaker=path)
    expected = codec.convert(voice[:RATE], RATE, speaker=codec.speaker(path))
    np.testing.assert_array_equal(converted, expected)


def test_references_have_the_rate_that_is_given(codec, voice):
    at_48k = soxr.resample(voice, RATE, 48_000)
    vector = codec.speaker(at_48k, 48_000).vector
    np.testing.assert_array_equal(codec.speaker((48_000, at_48k)).vector, vector)
    enrolled = codec.enroll("eve", [at_48k, SAMPLES / "slt.wav"], sample_rate=48_000)
    same = codec.enroll("eve", [(48_000, at_48k), SAMPLES / "slt.wav"])
    np.testing.assert_array_equal(enrolled.vector, same.vector)


def test_a_reference_without_a_rate_is_refused(codec, voice, tmp_path):
    soundfile.write(tmp_path / "a.wav", voice, RATE)
    codes = codec.encode(voice, RATE)
    for use in (
        lambda: codec.speaker(voice),
        lambda: codec.enroll("eve", [voice]),
        lambda: codec.decode(codes, speaker=voice),
        lambda: codec.convert(tmp_path / "a.wav", speaker=voice),
    ):
        with pytest.raises(AudioError, match=r"give sample_rate in Hz, or \(rate, array\)"):
            use()
