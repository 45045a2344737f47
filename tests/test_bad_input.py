"""Whatever a user may hand over either works or is refused in one line that names it."""

from __future__ import annotations

import io

import numpy as np
import pytest
import soundfile

import vqcodec
from vqcodec.codec import Codec
from vqcodec.errors import AudioError, VqcodecError


def refusal(codec: Codec, source: object, sample_rate: int | None = None) -> str:
    """The same one line from everything that takes a recording."""
    messages = []
    for take in (codec.encode, codec.convert):
        if hasattr(source, "seek"):
            source.seek(0)
        options = {"speaker": "anna"} if take == codec.convert else {}
        with pytest.raises(AudioError) as refused:
            take(source, sample_rate, **options)
        messages.append(str(refused.value))
    assert messages[0] == messages[1]
    assert "\n" not in messages[0]
    return messages[0]


def wav_bytes(samples: np.ndarray, sample_rate: int, subtype: str = "PCM_16") -> bytes:
    stream = io.BytesIO()
    soundfile.write(stream, samples, sample_rate, format="WAV", subtype=subtype)
    return stream.getvalue()


def good_wav() -> bytes:
    return wav_bytes(0.1 * np.sin(np.arange(1600) / 10), 16000)


def with_nan() -> bytes:
    samples = np.zeros(1600, np.float32)
    samples[800] = np.nan
    return wav_bytes(samples, 16000, "FLOAT")


FILES = {
    "notes.wav": (b"Dear diary, nothing here can be heard.", "is not audio that can be read"),
    "header.wav": (good_wav()[:20], "is not audio that can be read|holds no samples"),
    "no_samples.wav": (wav_bytes(np.zeros(0), 16000), "holds no samples"),
    "nan.wav": (with_nan(), r"the sample at 0\.050 s is nan; samples must be finite"),
    "model.safetensors": (b"\x10\0\0\0\0\0\0\0" + b"{}" * 20, "is not audio that can be read"),
}


@pytest.mark.parametrize("name", FILES)
def test_files_that_hold_no_recording(codec, tmp_path, name):
    data, fault = FILES[name]
    path = tmp_path / name
    path.write_bytes(data)
    message = refusal(codec, path)
    assert message.startswith(f"{path}: ")
    with pytest.raises(AudioError, match=fault):
        codec.encode(path)
    with pytest.raises(AudioError, match=fault):
        codec.speaker(str(path))
    with pytest.raises(AudioError, match=fault):
        codec.enroll("new", [path])
    assert "new" not in codec.voices


def test_streams_that_hold_no_recording(codec):
    assert "is not audio that can be read" in refusal(codec, io.BytesIO(b"nothing of the kind"))


def bad(value: float) -> np.ndarray:
    samples = np.zeros(4000, np.float32)
    samples[1600] = value
    return samples


ARRAYS = {
    "NaN": (bad(np.nan), 16000, "array: the sample at 0.100 s is nan"),
    "no rate": (bad(0), None, "array: has no sample rate of its own; give sample_rate in Hz"),
    "0 Hz": (bad(0), 0, "array: a sample rate of 0 Hz is impossible"),
    "transposed": (np.zeros((4000, 2)), 16000, "array: 4000 channels are not supported"),
    "batch": (np.zeros((2, 1, 4000)), 16000, "array: shape (2, 1, 4000); give (samples,) or"),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_that_hold_no_recording(codec, name):
    samples, sample_rate, fault = ARRAYS[name]
    assert refusal(codec, samples, sample_rate).startswith(fault)


def test_one_bad_recording_of_a_list_is_named(codec, tmp_path):
    (tmp_path / "good.wav").write_bytes(good_wav())
    (tmp_path / "bad.wav").write_bytes(b"bad")
    assert "bad.wav" in refusal(codec, [tmp_path / "good.wav", tmp_path / "bad.wav"])


def test_damage_late_in_a_file_is_found(codec, tmp_path):
    path = tmp_path / "cut.flac"
    soundfile.write(path, 0.1 * np.random.default_rng(0).standard_normal(160_000), 16000)
    path.write_bytes(path.read_bytes()[:200_000])
    assert refusal(codec, path).startswith(f"{path}: ")


WORKING = {
    "one sample": (np.array([0.3]), 44100),
    "one silent sample": (np.zeros(1), 8000),
    "silence": (np.zeros(20_000), 16000),
    "almost silence": (1e-6 * np.ones(20_000), 16000),
    "clipping": (np.clip(20 * np.sin(np.arange(20_000) / 20), -1, 1), 16000),
    "far over full scale": (300 * np.sin(np.arange(20_000) / 20), 16000),
    "a click": (np.eye(1, 20_000, 7)[0], 16000),
    "direct current": (np.full(20_000, 0.5), 16000),
    "8 channels": (0.1 * np.random.default_rng(0).standard_normal((8, 20_000)), 16000),
    "8 kHz": (0.1 * np.random.default_rng(0).standard_normal(9000), 8000),
    "192 kHz": (0.1 * np.random.default_rng(0).standard_normal(90_001), 192_000),
    "int16": ((3000 * np.sin(np.arange(9000) / 20)).astype(np.int16), 16000),
}


@pytest.mark.parametrize("name", WORKING)
def test_odd_recordings_that_work(codec, tmp_path, name):
    samples, sample_rate = WORKING[name]
    codes = codec.encode(samples, sample_rate)
    decoded = codec.decode(vqcodec.Codes.from_bytes(codes.to_bytes()))
    assert decoded.shape == (np.shape(samples)[-1],)
    assert np.isfinite(decoded).all()
    codec.decode_to(tmp_path / "out.wav", codes)
    info = soundfile.info(tmp_path / "out.wav")
    assert (info.samplerate, info.frames, info.channels) == (sample_rate, len(decoded), 1)


def test_targets_that_cannot_be_written(codec, tmp_path):
    codes = codec.encode(np.zeros(1000), 16000)
    for target, fault in (
        (tmp_path / "out.xyz", "cannot write .xyz"),
        (tmp_path / "nowhere" / "out.wav", "its folder cannot be written"),
        (tmp_path, "cannot write a file without extension|is a folder"),
    ):
        with pytest.raises(VqcodecError, match=fault) as refused:
            codec.decode_to(target, codes)
        assert str(refused.value).startswith(f"{target}: ")
    assert list(tmp_path.iterdir()) == []
