"""What is no recording, or a damaged one, is refused in one line."""

from __future__ import annotations

import struct
import subprocess
from pathlib import Path

import numpy as np
import pytest
import soundfile
from command_line import needs
from sounds import noise

from vqcodec import audio
from vqcodec.errors import AudioError


def wav_header_with(tmp_path: Path, layout: str, offset: int, value: int) -> Path:
    soundfile.write(tmp_path / "a.wav", noise(1000), 16000)
    data = bytearray((tmp_path / "a.wav").read_bytes())
    struct.pack_into(layout, data, offset, value)
    (tmp_path / "a.wav").write_bytes(data)
    return tmp_path / "a.wav"


@pytest.mark.parametrize(
    ("layout", "offset", "value", "message"),
    [
        ("<I", 24, 0, r"a\.wav: is not audio that can be read"),
        ("<I", 24, 1, r"a\.wav: a sample rate of 1 Hz is impossible; it must be"),
        ("<I", 24, 2_000_000, r"a\.wav: a sample rate of 2000000 Hz is impossible"),
        ("<I", 24, 4_000_000_000, r"a\.wav: is not audio that can be read"),
        ("<H", 22, 0, r"a\.wav: is not audio that can be read \(Channel count is zero\)"),
        ("<H", 22, 65, r"a\.wav: 65 channels are not supported; give 1 to 64"),
    ],
)
def test_impossible_headers_are_refused(tmp_path, layout, offset, value, message):
    path = wav_header_with(tmp_path, layout, offset, value)
    with pytest.raises(AudioError, match=message):
        audio.info(path)
    with pytest.raises(AudioError, match=message):
        audio.open_recording(path)


def test_files_that_hold_no_recording_are_refused(tmp_path):
    (tmp_path / "text.wav").write_text("hello")
    (tmp_path / "nothing.wav").touch()
    soundfile.write(tmp_path / "empty.wav", np.zeros(0), 16000)
    for name, message in {
        "missing.wav": r"missing\.wav: cannot be opened \(No such file or directory\); give",
        ".": r"cannot be opened \(Is a directory\); give the path of a sound file",
        "text.wav": r"text\.wav: is not audio that can be read \(.*\); convert it to WAV",
        "nothing.wav": r"nothing\.wav: is not audio that can be read",
        "empty.wav": r"empty\.wav: holds no samples; record or export it again",
    }.items():
        with pytest.raises(AudioError, match=message) as caught:
            audio.open_recording(tmp_path / name)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("value", "shown"), [(np.nan, "nan"), (np.inf, "inf"), (-np.inf, "-inf"), (-30000.0, "-30000")]
)
def test_impossible_samples_are_refused_with_their_time(tmp_path, value, shown):
    samples = noise(60_000, 2)
    samples[44_000, 1] = value
    soundfile.write(tmp_path / "a.wav", samples, 16000, "FLOAT")
    message = rf"a\.wav: the sample at 2\.750 s is {shown}; samples must be finite"
    with pytest.raises(AudioError, match=message):
        audio.load(tmp_path / "a.wav", 8000)
    with pytest.raises(AudioError, match=message):
        audio.open_recording(tmp_path / "a.wav").gain()
    with pytest.raises(AudioError, match=message.replace(r"a\.wav", "array")):
        audio.load(samples.T, 8000, source_rate=16000)


def test_float64_beyond_float32_is_refused_without_a_warning(recwarn):
    with pytest.raises(AudioError, match="is inf; samples must be finite"):
        audio.load([0.0, 1e300], 8000, source_rate=16000)
    assert not recwarn


@pytest.mark.parametrize("fraction", [0.1, 0.5, 0.95])
def test_a_truncated_flac_is_refused_where_it_breaks_off(tmp_path, fraction):
    soundfile.write(tmp_path / "whole.flac", noise(200_000), 16000)
    data = (tmp_path / "whole.flac").read_bytes()
    (tmp_path / "a.flac").write_bytes(data[: int(len(data) * fraction)])
    recording = audio.open_recording(tmp_path / "a.flac")
    message = r"a\.flac: (cannot be decoded beyond|ends at) \d+\.\d{3} s .*; copy or export"
    with pytest.raises(AudioError, match=message):
        list(recording.blocks(16000, 1000))
    with pytest.raises(AudioError, match=message):
        recording.gain()


def untagged_mp3(path: Path, sound: str) -> Path:
    """Make an MP3 of variable bit rate whose length must be guessed."""
    options = ["-q:a", "0", "-write_xing", "0"]
    command = ["ffmpeg", "-v", "error", "-f", "lavfi", "-i", sound, *options, path]
    subprocess.run(command, check=True)
    return path


@needs("ffmpeg")
def test_an_mp3_is_as_long_as_what_it_delivers_whatever_the_guess(tmp_path):
    path = untagged_mp3(tmp_path / "a.mp3", "aevalsrc=exprs='0.4*random(0)*gt(t,2)':d=6:s=44100")
    assert soundfile.info(path).duration > 12
    found = audio.info(path)
    assert found.duration_s == pytest.approx(6, abs=0.1)
    assert len(audio.load(path, 44100)) == found.n_samples


@needs("ffmpeg")
def test_files_whose_header_hides_audio_are_refused(tmp_path):
    untagged_mp3(tmp_path / "untagged.mp3", "anoisesrc=r=44100:d=6:a=0.3,afade=d=3")
    soundfile.write(tmp_path / "one.opus", noise(240_000, 2), 48000, "OPUS", format="OGG")
    (tmp_path / "joined.opus").write_bytes((tmp_path / "one.opus").read_bytes() * 2)
    for name in ("untagged.mp3", "joined.opus"):
        with pytest.raises(AudioError, match=r"more audio follows .* convert it to WAV"):
            audio.load(tmp_path / name, 16000)


@pytest.mark.parametrize(
    ("source", "sample_rate", "message"),
    [
        ([0.0], None, "array: has no sample rate of its own; give sample_rate in Hz"),
        ([0.0], 0, "array: a sample rate of 0 Hz is impossible; it must be a whole number"),
        ([0.0], 10**6, "array: a sample rate of 1000000 Hz is impossible"),
        ([0.0], float("nan"), "array: a sample rate of nan Hz is impossible"),
        ([], 16000, "array: holds no samples"),
        (np.zeros((100, 2)), 16000, r"array: 100 channels .* give 1 to 64, .*\(channels, samples"),
        (np.zeros((0, 100)), 16000, "array: 0 channels are not supported"),
        (np.zeros((1, 2, 3)), 16000, r"array: shape \(1, 2, 3\); give \(samples,\) or"),
        (0.1, 16000, r"array: shape \(\); give \(samples,\) or \(channels, samples\)"),
        (np.array(["a"]), 16000, "array: samples of type <U1"),
        (np.zeros(9, np.complex64), 16000, "array: samples of type complex64"),
        (np.zeros(9, np.uint8), 16000, "array: samples of type uint8; convert them to float"),
        ([[0.0], [0.0, 1.0]], 16000, "array: NumPy cannot read it; give a NumPy array"),
        ("a.wav", 16000, r"a\.wav: knows its own sample rate; leave sample_rate out"),
    ],
)
def test_impossible_sources_are_refused(source, sample_rate, message):
    with pytest.raises(AudioError, match=message):
        audio.open_recording(source, sample_rate)


def test_an_impossible_rate_to_read_at_is_refused():
    with pytest.raises(AudioError, match="array: a sample rate of 0 Hz is impossible"):
        audio.open_recording([0.0], 16000).blocks(0, 100)
