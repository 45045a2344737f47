"""What phones and browsers record is read to the sample, and films are heard."""

from __future__ import annotations

import subprocess
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
import soxr
from command_line import needs

from vqcodec import audio
from vqcodec.audio import mediafiles, writing
from vqcodec.errors import AudioError
from vqcodec.files import AUDIO_SUFFIXES

SPEECH = Path(__file__).parents[2] / "samples" / "slt.wav"
RATE = 16_000


@pytest.fixture(scope="module")
def speech() -> np.ndarray:
    return soundfile.read(SPEECH, dtype="float32")[0]


def encoded(path: Path, samples: np.ndarray, codec: str, rate: int, **options: str) -> Path:
    """A file that PyAV makes of samples (T,) at 16 kHz."""
    resampled = soxr.resample(samples, RATE, rate)
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream(codec, rate=rate, layout="mono")
        frame = av.AudioFrame.from_ndarray(resampled[None], format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
        size = stream.codec_context.frame_size or 960
        convert = av.AudioResampler(stream.codec_context.format, "mono", rate, size)
        for piece in convert.resample(frame) + convert.resample(None):
            container.mux(stream.encode(piece))
        container.mux(stream.encode(None))
    return path


def lag(samples: np.ndarray, original: np.ndarray) -> int:
    """How much later samples come than in the original."""
    size = 1 << 17
    product = np.fft.rfft(samples, size) * np.conj(np.fft.rfft(original, size))
    return int((np.argmax(np.fft.irfft(product)) + size // 2) % size - size // 2)


@pytest.mark.parametrize(
    ("name", "codec", "rate"),
    [
        ("a.m4a", "aac", 44_100),
        ("a.mp4", "aac", 16_000),
        ("a.webm", "libopus", 48_000),
        ("a.webm", "libopus", 16_000),
        ("a.mkv", "flac", 16_000),
    ],
)
def test_what_pyav_encodes_is_read_in_time(speech, tmp_path, name, codec, rate):
    path = encoded(tmp_path / name, speech, codec, rate)
    samples = audio.load(path, RATE)
    # PyAV does not tell the muxer how much of the last packet is padding.
    assert 0 <= len(samples) - len(speech) <= 1024
    assert lag(samples, speech) == 0
    assert np.corrcoef(samples[: len(speech)], speech)[0, 1] > 0.95


@needs("ffmpeg")
@pytest.mark.parametrize("rate", [16_000, 48_000])
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.m4a", ""),
        ("a.m4a", "-c:a alac"),
        ("a.3gp", "-c:a aac"),
        ("a.mov", "-c:a aac -ac 2"),
        ("a.webm", "-c:a libopus"),
        ("a.mkv", "-c:a libopus"),
        ("a.mp4", "-c:a libopus"),
    ],
)
def test_what_ffmpeg_encodes_is_read_to_the_sample(speech, tmp_path, name, options, rate):
    path = tmp_path / name
    command = ["ffmpeg", "-loglevel", "error", "-i", SPEECH, *options.split(), "-ar", str(rate)]
    subprocess.run([*command, path], check=True)
    recording = audio.open_recording(path)
    assert recording.n_samples == len(speech) * recording.sample_rate // RATE
    samples = audio.load(path, RATE)
    assert len(samples) == len(speech)
    assert lag(samples, speech) == 0
    assert audio.info(path).n_samples == recording.n_samples


@needs("ffmpeg")
def test_a_film_is_heard(speech, tmp_path):
    path = tmp_path / "a.mp4"
    picture = ["-f", "lavfi", "-i", "color=size=16x16:rate=5", "-shortest"]
    command = ["ffmpeg", "-loglevel", "error", "-i", SPEECH, *picture, path]
    subprocess.run(command, check=True)
    assert lag(audio.load(path, RATE), speech) == 0


def test_a_film_without_sound_is_refused(tmp_path):
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=5, width=16, height=16)
        stream.pix_fmt = "yuv420p"
        frame = av.VideoFrame.from_ndarray(np.zeros((16, 16, 3), np.uint8), format="rgb24")
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with pytest.raises(AudioError, match=r"a\.mp4: holds no sound; name another"):
        audio.open_recording(path)


def test_without_pyav_the_error_says_what_to_install(speech, tmp_path, monkeypatch):
    path = encoded(tmp_path / "a.m4a", speech, "aac", RATE)
    monkeypatch.setattr(mediafiles, "is_installed", lambda: False)
    with pytest.raises(AudioError, match=r"a\.m4a: .* pip install 'vqcodec\[av\]'"):
        audio.open_recording(path)


def test_a_half_copied_recording_is_refused(speech, tmp_path):
    path = encoded(tmp_path / "a.m4a", speech, "aac", RATE, movflags="faststart")
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 6 // 10])
    with pytest.raises(AudioError, match=r"a\.m4a: (is cut off: of 3\.|cannot be decoded beyond)"):
        audio.load(path, RATE)
    path.write_bytes(data[:64])
    with pytest.raises(AudioError, match=r"a\.m4a: holds no sound"):
        audio.load(path, RATE)


@pytest.mark.parametrize(
    ("name", "codec", "rate"),
    [("a.webm", "libopus", 48_000), ("a.mkv", "flac", 16_000)],
)
def test_a_matroska_of_which_something_is_missing_is_refused(speech, tmp_path, name, codec, rate):
    path = encoded(tmp_path / name, np.tile(speech, 3), codec, rate, cluster_time_limit="500")
    data = path.read_bytes()
    middle = len(data) // 2
    path.write_bytes(data[:middle] + data[middle + len(data) // 6 :])
    with pytest.raises(AudioError, match=r"is damaged: \d\.\d+ s .*, from [3-6]\.\d+ s on") as told:
        audio.load(path, RATE)
    lost = float(str(told.value).split("damaged: ")[1].split()[0])
    assert 1 < lost < 4
    path.write_bytes(data[:middle])
    with pytest.raises(AudioError, match=r"(is cut off: of 1\d\.\d+ s .*, \d\.|beyond \d\.)"):
        audio.load(path, RATE)


def test_a_matroska_whose_start_is_missing_is_refused(speech, tmp_path):
    path = encoded(tmp_path / "a.mkv", speech, "flac", RATE, cluster_time_limit="500")
    data = path.read_bytes()
    clusters = [at for at in range(len(data)) if data.startswith(b"\x1f\x43\xb6\x75", at)]
    path.write_bytes(data[: clusters[0]] + data[clusters[2] :])
    with pytest.raises(AudioError, match=r"is damaged: [01]\.\d+ s .*, from 0\.000 s on"):
        audio.load(path, RATE)


@pytest.mark.parametrize("share", [0.5, 1])
def test_a_webm_that_states_no_duration_is_read_to_its_end(speech, tmp_path, share):
    path = encoded(tmp_path / "a.webm", speech, "libopus", 48_000, live="1")
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with av.open(str(path)) as container:
        assert container.duration is None
    assert len(audio.load(path, RATE)) > 0.8 * share * len(speech)


@needs("ffmpeg")
def test_the_sound_of_a_film_may_end_before_its_picture(speech, tmp_path):
    path = tmp_path / "a.mkv"
    picture = ["-f", "lavfi", "-i", "color=size=16x16:rate=5:d=9", "-c:v", "mpeg4"]
    subprocess.run(["ffmpeg", "-loglevel", "error", "-i", SPEECH, *picture, path], check=True)
    with av.open(str(path)) as container:
        assert container.duration > 8e6
    assert lag(audio.load(path, RATE), speech) == 0


def test_what_is_written_is_found_in_a_folder():
    assert {*writing._ENCODINGS} < {*AUDIO_SUFFIXES}
