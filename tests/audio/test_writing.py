"""Sound files that are written: of exact length, whole or not at all."""

from __future__ import annotations

import io
import os
import stat
import subprocess
import sys

import numpy as np
import pytest
import soundfile
from sounds import decibels, gain, noise, tone, write

from vqcodec import audio
from vqcodec.audio import writing
from vqcodec.audio.resampling import resampled_length
from vqcodec.errors import AudioError


@pytest.mark.parametrize(
    ("name", "subtype", "sample_rate"),
    [
        ("a.wav", "PCM_16", 44100),
        ("a.FLAC", "PCM_16", 192000),
        ("a.ogg", "VORBIS", 44100),
        ("a.opus", "OPUS", 48000),
        ("a.mp3", "MPEG_LAYER_III", 22050),
    ],
)
def test_every_format_is_written_to_the_exact_length(tmp_path, name, subtype, sample_rate):
    n_samples = resampled_length(33_333, 16000, sample_rate) - 5
    write(tmp_path / name, tone(33_333, 16000), output_rate=sample_rate, n=n_samples)
    written = audio.info(tmp_path / name)
    assert (written.n_samples, written.sample_rate) == (n_samples, sample_rate)
    assert written.subtype == subtype
    written_gain = audio.open_recording(tmp_path / name).gain()
    assert abs(decibels(written_gain / gain(tone(33_333, 16000)))) < 0.5


def test_audio_shorter_than_promised_is_followed_by_zeros(tmp_path):
    write(tmp_path / "a.wav", np.full(100, 0.5), n=40_000)
    samples = audio.load(tmp_path / "a.wav", 16000)
    assert len(samples) == 40_000
    assert np.flatnonzero(samples).tolist() == list(range(100))


def test_clipping_is_at_full_scale_and_counted(tmp_path):
    writer = write(tmp_path / "a.wav", np.array([0.5, 1.5, -3.0, 1.0, -1.0]))
    assert writer.n_clipped == 2
    samples = audio.load(tmp_path / "a.wav", 16000)
    np.testing.assert_allclose(samples, [0.5, 1, -1, 1, -1], atol=1 / 32768)


def test_minutes_in_one_block_do_not_crash_the_vorbis_encoder(tmp_path):
    write(tmp_path / "a.ogg", np.zeros(2_000_000))
    assert audio.info(tmp_path / "a.ogg").n_samples == 2_000_000


def test_a_wav_too_long_for_its_header_becomes_rf64(tmp_path, monkeypatch):
    monkeypatch.setattr(writing, "_MAX_WAV_BYTES", 2000)
    for n_samples, expected in [(1000, "WAV"), (1001, "RF64")]:
        write(tmp_path / "a.wav", noise(n_samples))
        written = audio.info(tmp_path / "a.wav")
        assert (written.format, written.n_samples) == (expected, n_samples)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "a.wav"
    write(path, tone(1000, 16000))
    before = path.read_bytes()

    def fail_while_writing() -> None:
        with audio.open_writer(path, model_rate=16000, output_rate=8000, n_samples=9) as writer:
            writer.write(noise(50_000))
            assert path.read_bytes() == before
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail_while_writing()
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_the_finished_file_has_ordinary_permissions(tmp_path):
    write(tmp_path / "a.wav", tone(10, 16000))
    (tmp_path / "plain").touch()
    modes = {stat.S_IMODE(os.stat(tmp_path / name).st_mode) for name in ("a.wav", "plain")}
    assert len(modes) == 1


def test_a_full_disk_is_an_error_and_leaves_nothing(tmp_path):
    script = f"""
import resource, numpy as np
from vqcodec import audio
from vqcodec.errors import AudioError
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
try:
    with audio.open_writer({str(tmp_path / "a.wav")!r}, model_rate=16000, output_rate=16000,
                           n_samples=10**6) as writer:
        writer.write(np.zeros(10**6))
except AudioError as error:
    print(error)
"""
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert "a.wav: cannot be written (System error); free space" in result.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "sample_rate", "message"),
    [
        ("a.m4a", 16000, r"a\.m4a: cannot write \.m4a; end the name in one of \.wav \.flac"),
        ("a", 16000, "cannot write a file without extension; end the name"),
        ("a.wav", 500, "a sample rate of 500 Hz is impossible; it must be a whole number"),
        ("a.wav", 16000.5, "a sample rate of 16000.5 Hz is impossible"),
        ("a.wav", "16000", "a sample rate of '16000' Hz is impossible"),
        ("a.opus", 44100, "cannot hold 44100 Hz; choose a sample rate of 48000 Hz or write a .wav"),
        ("a.mp3", 96000, "cannot hold 96000 Hz; choose a sample rate of 48000 Hz or write a .wav"),
        ("a.ogg", 200_001, "cannot hold 200001 Hz; choose a sample rate of 200000 Hz"),
        ("a.flac", 65_537, "cannot hold 65537 Hz; choose a sample rate of 65540 Hz"),
        ("a.flac", 768_000, "cannot hold 768000 Hz; choose a sample rate of 655350 Hz"),
        ("none/a.wav", 16000, r"none/a\.wav: its folder cannot be written \(No such file"),
        ("folder.wav", 16000, r"folder\.wav: is a folder; name a file in it"),
    ],
)
def test_what_cannot_be_written_is_refused_at_once(tmp_path, name, sample_rate, message):
    (tmp_path / "folder.wav").mkdir()
    with pytest.raises(AudioError, match=message) as caught:
        write(tmp_path / name, noise(100), output_rate=sample_rate)
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["folder.wav"]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_audio_that_is_not_finite_is_not_written(tmp_path, value):
    with pytest.raises(AudioError, match=r"a\.wav: the audio to write holds NaN or infinite"):
        write(tmp_path / "a.wav", np.array([0, value]))
    assert list(tmp_path.iterdir()) == []


def test_a_wav_is_written_to_a_stream_only_when_complete(tmp_path):
    stream = io.BytesIO()
    with audio.open_writer(stream, model_rate=16000, output_rate=8000, n_samples=500) as writer:
        writer.write(tone(1000, 16000))
        assert stream.tell() == 0
    stream.seek(0)
    samples, sample_rate = soundfile.read(stream)
    assert (len(samples), sample_rate) == (500, 8000)
