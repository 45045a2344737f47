from __future__ import annotations

import gc
import io
import os
import subprocess
import sys
import tempfile
import threading
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
from command_line import needs
from hypothesis import given, settings
from hypothesis import strategies as st
from sounds import noise, tone, write

from vqcodec import audio
from vqcodec.audio import recording as audio_recording
from vqcodec.audio import soundfiles
from vqcodec.audio.level import TARGET_RMS
from vqcodec.audio.resampling import resample_blocks, resampled_length
from vqcodec.errors import AudioError

RATES = (8000, 11025, 16000, 22050, 32000, 44100, 48000, 96000, 192000)


def joined(blocks) -> np.ndarray:
    return np.concatenate(list(blocks))


FILES = {
    "ulaw8k.wav": (8000, 1, 41600, "WAV", "ULAW"),
    "stereo48k.flac": (48000, 2, 249600, "FLAC", "PCM_24"),
    "mono192k.wav": (192000, 1, 998400, "WAVEX", "PCM_32"),
    "eight44k.wav": (44100, 8, 229320, "WAVEX", "PCM_16"),
    "vbr.mp3": (48000, 2, 249600, "MP3", "MPEG_LAYER_III"),
    "opus.opus": (48000, 2, 249600, "OGG", "OPUS"),
    "vorbis.ogg": (48000, 2, 249600, "OGG", "VORBIS"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """`FILES`, 5.2 s of trembling noise each."""
    folder = tmp_path_factory.mktemp("audio")
    for name, (sample_rate, n_channels, n_samples, container, subtype) in FILES.items():
        trembling = 1 + np.sin(2 * np.pi * 3 * np.arange(n_samples) / sample_rate)
        samples = noise(n_samples, n_channels) * trembling[:, None].astype("f4")
        soundfile.write(folder / name, samples, sample_rate, subtype, format=container)
    return folder


BY_FFMPEG = {
    "vbr.mp3": ["-q:a", "4"],
    "opus.opus": ["-c:a", "libopus"],
    "vorbis.ogg": ["-c:a", "libvorbis"],
    "stereo48k.flac": ["-sample_fmt", "s32", "-bits_per_raw_sample", "24"],
    "eight44k.wav": ["-ar", "44100", "-ac", "8"],
    "ulaw8k.wav": ["-ar", "8000", "-ac", "1", "-c:a", "pcm_mulaw"],
}


@needs("ffmpeg")
@pytest.mark.parametrize("name", BY_FFMPEG)
def test_what_ffmpeg_writes_is_described_and_read(folder, tmp_path, name):
    command = ["ffmpeg", "-v", "error", "-i", folder / "stereo48k.flac", *BY_FFMPEG[name]]
    subprocess.run([*command, tmp_path / name], check=True)
    expected = audio.AudioInfo(*FILES[name])
    assert audio.info(tmp_path / name) == expected
    assert len(audio.load(tmp_path / name, expected.sample_rate)) == expected.n_samples


@pytest.mark.parametrize("name", FILES)
def test_every_format_is_described_and_read_as_the_channel_mean(folder, name):
    expected = audio.AudioInfo(*FILES[name])
    assert audio.info(folder / name) == expected
    assert expected.duration_s == 5.2
    samples, sample_rate = soundfile.read(folder / name, dtype="float32", always_2d=True)
    mono = samples.mean(axis=1)
    np.testing.assert_array_equal(audio.load(folder / name, sample_rate), mono)
    resampled = audio.load(folder / name, 16000)
    assert len(resampled) == -(-expected.n_samples * 16000 // sample_rate)
    np.testing.assert_allclose(resampled, soxr.resample(mono, sample_rate, 16000), atol=1e-5)


@settings(max_examples=25)
@given(block_length=st.integers(1, 70_000))
def test_blocks_hold_the_same_samples_whatever_their_length(block_length):
    recording = audio.open_recording(noise(2, 40_001), 44100)
    blocks = list(recording.blocks(16000, block_length))
    assert {len(block) for block in blocks[:-1]} <= {block_length}
    assert len(blocks[-1]) <= block_length
    whole = joined(recording.blocks(16000, 1 << 20))
    assert whole.dtype == np.float32
    assert joined(blocks).tobytes() == whole.tobytes()


@settings(max_examples=25)
@given(cuts=st.lists(st.integers(0, 50_000), max_size=20), output_rate=st.sampled_from(RATES))
def test_resampling_does_not_depend_on_how_the_input_is_cut(cuts, output_rate):
    samples = noise(50_000)
    n_samples = resampled_length(50_000, 16000, output_rate)
    pieces = np.split(samples, sorted(cuts))
    cut = joined(resample_blocks(pieces, 16000, output_rate, n_samples))
    whole = joined(resample_blocks([samples], 16000, output_rate, n_samples))
    assert cut.tobytes() == whole.tobytes()


@pytest.mark.parametrize("n_samples", [1, 2, 997, 30_000])
@pytest.mark.parametrize("sample_rate", RATES)
def test_the_round_trip_keeps_the_exact_length_and_the_sound(tmp_path, sample_rate, n_samples):
    path = tmp_path / "out.wav"
    recording = audio.open_recording(tone(n_samples, sample_rate), sample_rate)
    with audio.open_writer(
        path, model_rate=16000, output_rate=sample_rate, n_samples=n_samples
    ) as writer:
        for block in recording.blocks(16000, 4096):
            writer.write(block)
    assert audio.info(path) == audio.AudioInfo(sample_rate, 1, n_samples, "WAV", "PCM_16")
    # The ends ring where a tone starts and stops at once.
    inside = slice(n_samples // 4, -n_samples // 4) if n_samples == 30_000 else slice(0, 0)
    np.testing.assert_allclose(
        audio.load(path, sample_rate)[inside], tone(n_samples, sample_rate)[inside], atol=2e-3
    )


@pytest.mark.parametrize("sample_rate", [1000, *RATES, 768_000])
def test_one_sample_has_a_length_at_every_rate(sample_rate):
    samples = audio.load([0.5], 16000, source_rate=sample_rate)
    assert len(samples) == max(1, -(-16000 // sample_rate))


def test_arrays_of_every_type_and_files_give_the_same_samples(tmp_path):
    pcm = (noise(3, 40_000) * 32767).astype(np.int16)
    soundfile.write(tmp_path / "a.wav", pcm.T, 48000, "PCM_16")
    expected = audio.load(tmp_path / "a.wav", 16000)
    for array in (pcm, pcm.astype("i4") << 16, pcm / 32768, (pcm / 32768).astype("f4")):
        np.testing.assert_array_equal(audio.load(array, 16000, source_rate=48000), expected)


def test_a_pcm_file_is_copied_bit_for_bit_at_its_own_rate(tmp_path):
    pcm = np.arange(-32768, 32768, dtype=np.int16)
    soundfile.write(tmp_path / "in.wav", pcm, 16000)
    assert write(tmp_path / "out.flac", audio.load(tmp_path / "in.wav", 16000)).n_clipped == 0
    np.testing.assert_array_equal(soundfile.read(tmp_path / "out.flac", dtype="int16")[0], pcm)


# Pipes


class OnceOnly(io.RawIOBase):
    """A stream that can be neither sought nor read twice, like a pipe."""

    name = "<stdin>"

    def __init__(self, data: bytes) -> None:
        self.data = data

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        part, self.data = self.data[: len(buffer)], self.data[len(buffer) :]
        buffer[: len(part)] = part
        return len(part)


def test_a_stream_is_read_like_a_file_and_its_copy_is_deleted(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    path = folder / "vbr.mp3"
    recording = audio.open_recording(OnceOnly(path.read_bytes()))
    assert (recording.name, recording.n_samples) == ("<stdin>", 249600)
    assert recording.gain() == audio.open_recording(path).gain()
    np.testing.assert_array_equal(joined(recording.blocks(16000, 1000)), audio.load(path, 16000))
    assert len(list(tmp_path.iterdir())) == 1
    del recording
    gc.collect()
    assert list(tmp_path.iterdir()) == []


def test_a_stream_that_is_not_audio_is_refused_and_its_copy_deleted(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(AudioError, match="<stdin>: is not audio that can be read"):
        audio.open_recording(OnceOnly(b"hello"))
    assert list(tmp_path.iterdir()) == []


def test_a_named_pipe_is_read_like_a_file(folder, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    data = (folder / "ulaw8k.wav").read_bytes()
    feeder = threading.Thread(target=(tmp_path / "pipe").write_bytes, args=(data,))
    feeder.start()
    samples = audio.load(tmp_path / "pipe", 8000)
    feeder.join()
    np.testing.assert_array_equal(samples, audio.load(folder / "ulaw8k.wav", 8000))


@needs("ffmpeg")
@pytest.mark.parametrize("container", ["wav", "flac"])
def test_a_header_that_could_not_know_the_length_is_read_to_the_end(folder, tmp_path, container):
    command = ["ffmpeg", "-v", "error", "-i", folder / "stereo48k.flac", "-f", container, "-"]
    piped = subprocess.run(command, check=True, capture_output=True).stdout
    (tmp_path / "piped").write_bytes(piped)
    assert audio.info(tmp_path / "piped").n_samples == 249600
    assert len(audio.load(tmp_path / "piped", 48000)) == 249600


def test_a_recording_is_read_once(tmp_path, monkeypatch):
    write(tmp_path / "a.wav", tone(48_000, 16000))
    n_read = 0

    def counted(*arguments):
        nonlocal n_read
        n_read += 1
        return soundfiles.decode(*arguments)

    monkeypatch.setattr(audio_recording, "decode", counted)
    recording = audio.open_recording(tmp_path / "a.wav")
    gain = recording.gain()
    heard = [np.concatenate(list(recording.speech(8000, n, gain))) for n in (100, 7777)]
    assert n_read == 1
    np.testing.assert_array_equal(*heard)


# Size


def test_a_recording_of_a_low_rate_is_heard_in_bounded_memory():
    recording = audio.open_recording(noise(1 << 20), 1000)
    tracemalloc.start()
    try:
        n_heard = sum(map(len, recording.speech(16000, 16000, 1.0)))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert n_heard == 16 << 20
    assert peak < 16e6


def test_ten_minutes_pass_in_bounded_memory(tmp_path):
    n_samples = 48000 * 600
    block = noise(16000)
    tracemalloc.start()
    try:
        with audio.open_writer(
            tmp_path / "in.wav", model_rate=16000, output_rate=48000, n_samples=n_samples
        ) as writer:
            for _ in range(600):
                writer.write(block)
        recording = audio.open_recording(tmp_path / "in.wav")
        assert recording.gain() == pytest.approx(0.1 / TARGET_RMS, rel=0.05)
        assert sum(map(len, recording.blocks(16000, 16000))) == 16000 * 600
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 10e6


def test_importing_audio_does_not_import_torch():
    script = "import sys, vqcodec.audio.recording; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True)
