"""Damage that decoders pass over in silence: told, with the place and a remedy."""

from __future__ import annotations

import shutil
import struct
import subprocess
import warnings
from pathlib import Path

import numpy as np
import pytest
import soundfile
from command_line import needs

from vqcodec import audio
from vqcodec.errors import AudioError, RecordingWarning

RATE, SECONDS = 16_000, 4
SUFFIXES = ("wav", "aiff", "flac", "ogg", "opus", "mp3")


@pytest.fixture(scope="module")
def sound() -> np.ndarray:
    samples = soundfile.read(Path(__file__).parents[2] / "samples" / "rms.wav")[0]
    return samples[: SECONDS * RATE]


@pytest.fixture(scope="module")
def whole(sound, tmp_path_factory) -> dict[str, bytes]:
    """The bytes of a file by suffix."""
    folder = tmp_path_factory.mktemp("whole")
    for suffix in SUFFIXES:
        is_opus = suffix == "opus"
        format, subtype = ("OGG", "OPUS") if is_opus else (None, None)
        soundfile.write(folder / f"a.{suffix}", sound, RATE, subtype, format=format)
    soundfile.write(folder / "a.rf64", sound, RATE, "PCM_24", format="RF64")
    soundfile.write(folder / "a.24.flac", sound, RATE, "PCM_24")
    soundfile.write(folder / "a.8.flac", np.stack([sound, -sound], 1), RATE, "PCM_S8")
    return {path.name[2:]: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def read(tmp_path):
    """Reads bytes as a file, to its samples."""

    def read(data: bytes, name: str) -> np.ndarray:
        path = tmp_path / name
        path.write_bytes(data)
        recording = audio.open_recording(path)
        samples = np.concatenate(list(recording.blocks(recording.sample_rate, 5000)))
        assert len(samples) == recording.n_samples
        return samples

    return read


def id3(size: int, *, has_footer: bool = False) -> bytes:
    """An ID3v2.4 tag."""
    head = bytes([4, 0, 16 * has_footer, *(size >> 7 * place & 127 for place in (3, 2, 1, 0))])
    return b"ID3" + head + bytes(size) + (b"3DI" + head if has_footer else b"")


def ape(size: int, *, has_head: bool = True) -> bytes:
    """An APEv2 tag."""
    head, foot = (
        b"APETAGEX" + struct.pack("<IIII8x", 2000, size + 32, 1, has_head << 31 | is_head << 29)
        for is_head in (True, False)
    )
    return head * has_head + b"x" * size + foot


ID3V1 = b"TAG" + b"x" * 125
LYRICS = b"LYRICSBEGIN" + b"x" * 9000 + b"009011LYRICS200"


def with_size(wav: bytes, size: int) -> bytes:
    return wav[:40] + struct.pack("<I", size) + wav[44:]


def with_total(flac: bytes, n_samples: int, md5: bytes | None = None) -> bytes:
    head = int.from_bytes(flac[18:26], "big") >> 36 << 36 | n_samples
    return flac[:18] + head.to_bytes(8, "big") + (md5 or flac[26:42]) + flac[42:]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("suffix", [*SUFFIXES, "rf64", "24.flac", "8.flac"])
def test_whole_files_are_read_without_a_word(whole, read, suffix):
    assert len(read(whole[suffix], f"a.{suffix}")) == pytest.approx(SECONDS * RATE, abs=1200)


@pytest.mark.parametrize("suffix", ["ogg", "opus"])
@pytest.mark.parametrize("is_missing", [False, True])
def test_a_damaged_ogg_is_refused_with_what_is_lost(whole, read, suffix, is_missing):
    data = bytearray(whole[suffix])
    middle = len(data) // 2
    if is_missing:
        del data[middle : middle + 3000]
    else:
        data[middle] ^= 1
    with pytest.raises(AudioError, match=r"a\.\w+: is damaged: (\d\.\d+) s .*, from \d") as told:
        read(bytes(data), f"a.{suffix}")
    lost, start = (float(word) for word in str(told.value).split() if word[0].isdigit())
    assert 0.5 < lost < SECONDS
    assert start < SECONDS / 2 < start + lost


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("share", [0.5, 0.97])
def test_a_half_copied_file_is_refused(whole, read, suffix, share):
    data = whole[suffix]
    with pytest.raises(AudioError, match=r"cut off|cannot be decoded beyond"):
        read(data[: int(share * len(data))], f"a.{suffix}")


def test_a_cut_wav_says_how_much_is_missing(whole, read):
    with pytest.raises(AudioError, match=r"of 4\.000 s that its header promises, 1\.000 s are"):
        read(whole["wav"][: 44 + 2 * RATE], "a.wav")


@pytest.mark.parametrize("suffix", ["ogg", "opus"])
def test_an_ogg_without_its_last_page_is_read_with_a_warning(whole, read, suffix):
    data = whole[suffix]
    with pytest.warns(RecordingWarning, match=r"a\.\w+: was never finished"):
        samples = read(data[: data.rfind(b"OggS")], f"a.{suffix}")
    assert len(samples) > 0.5 * SECONDS * RATE


def test_a_wav_whose_recorder_was_interrupted_is_read_to_its_end(whole, read):
    expected = read(whole["wav"], "a.wav")
    with pytest.warns(RecordingWarning, match=r"b\.wav: was never finished"):
        samples = read(with_size(whole["wav"], 0), "b.wav")
    np.testing.assert_array_equal(samples, expected)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("size", [2**32 - 1, 0x7FFFFFFF - 36])
def test_a_size_that_could_not_be_known_is_no_damage(whole, read, size):
    assert len(read(with_size(whole["wav"], size), "a.wav")) == SECONDS * RATE


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("end", [b"LIST\4\0\0\0abcd", b"id3 \3\0\0\0abc", bytes(10), b"\0"])
def test_what_follows_the_samples_is_no_damage(whole, read, end):
    assert len(read(whole["wav"] + end, "a.wav")) == SECONDS * RATE


LIST = b"LIST\4\0\0\0abcd"
ODD_LIST = b"LIST\3\0\0\0abc"


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("pad", [b"", b"\0", b"\xff", b"x"])
@pytest.mark.parametrize("end", [b"", LIST, ID3V1, LIST + ID3V1, ODD_LIST + LIST + ID3V1])
def test_neither_padding_nor_the_tag_of_an_mp3_is_damage(whole, read, pad, end):
    odd = with_size(whole["wav"], len(whole["wav"]) - 45)[:-1]
    assert len(read(odd + pad + end, "a.wav")) == SECONDS * RATE - 1
    assert len(read(whole["wav"] + ODD_LIST + pad + end, "a.wav")) == SECONDS * RATE


def test_samples_before_the_tag_of_an_mp3_are_no_chunk(whole, read):
    with pytest.raises(AudioError, match="goes on after the end"):
        read(with_size(whole["wav"], 1000) + ID3V1, "a.wav")


@pytest.mark.filterwarnings("error")
def test_an_odd_size_is_rounded_down_to_whole_samples(whole, read):
    size = len(whole["wav"]) - 44
    assert len(read(with_size(whole["wav"], size - 1), "a.wav")) == SECONDS * RATE - 1


@pytest.mark.filterwarnings("error")
def test_an_empty_wav_is_refused(whole, read):
    with pytest.raises(AudioError, match="holds no samples"):
        read(with_size(whole["wav"], 0)[:44], "a.wav")


def test_a_header_that_counts_too_little_is_refused(whole, read):
    with pytest.raises(AudioError, match=r"goes on after the end .* -ignore_length 1 "):
        read(with_size(whole["wav"], 1000), "a.wav")
    with pytest.raises(AudioError, match="its samples are not those whose MD5"):
        read(with_total(whole["flac"], 10_000), "a.flac")
    with pytest.raises(AudioError, match="more audio follows"):
        read(with_total(whole["flac"], 10_000, bytes(16)), "a.flac")


@pytest.mark.parametrize("suffix", ["flac", "24.flac", "8.flac"])
def test_the_md5_of_a_flac_is_compared(whole, read, suffix):
    data = bytearray(whole[suffix])
    data[30] ^= 1
    with pytest.raises(AudioError, match="is damaged: its samples are not those whose MD5"):
        read(bytes(data), "a.flac")


@pytest.mark.parametrize("suffix", ["flac", "mp3"])
@pytest.mark.parametrize("size", [100, 100_000])
def test_a_tag_with_a_picture_is_passed_over(whole, read, suffix, size):
    expected = read(whole[suffix], f"a.{suffix}")
    samples = read(id3(size) + whole[suffix], f"b.{suffix}")
    np.testing.assert_array_equal(samples, expected)
    with pytest.raises(AudioError, match=r"cut off|is damaged"):
        read(id3(size) + whole[suffix][: len(whole[suffix]) // 2], f"c.{suffix}")


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("suffix", ["flac", "mp3"])
@pytest.mark.parametrize(
    "tags",
    [
        ID3V1,
        ape(50_000),
        ape(50_000, has_head=False) + ID3V1,
        id3(50_000),
        id3(50_000, has_footer=True),
        LYRICS + ID3V1,
    ],
)
def test_tags_at_the_end_are_left_out(whole, read, suffix, tags):
    expected = read(whole[suffix], f"a.{suffix}")
    np.testing.assert_array_equal(read(whole[suffix] + tags, f"b.{suffix}"), expected)
    with pytest.raises(AudioError, match=r"cut off|cannot be decoded beyond"):
        read(whole[suffix][: len(whole[suffix]) // 2] + ID3V1, f"c.{suffix}")


@needs("ffmpeg")
@pytest.mark.parametrize("tag", [b"", ID3V1, ape(50_000)])
def test_a_short_mp3_whose_length_is_guessed_too_small_is_refused(read, tmp_path, tag):
    sound, path = Path(__file__).parents[2] / "samples" / "rms.wav", tmp_path / "a.mp3"
    options = ["-q:a", "4", "-write_xing", "0"]
    subprocess.run([shutil.which("ffmpeg"), "-v", "quiet", "-i", sound, *options, path], check=True)
    with pytest.raises(AudioError, match=r"more audio follows .*, at 4\.\d+ s; convert it to WAV"):
        read(path.read_bytes() + tag, "b.mp3")


@needs("ffmpeg")
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_remedy_works(whole, read, suffix, tmp_path):
    damaged, repaired = tmp_path / f"a.{suffix}", tmp_path / "b.wav"
    with pytest.raises(AudioError, match=r"ffmpeg -i DAMAGED REPAIRED\.wav"):
        read(whole[suffix][: len(whole[suffix]) // 2], damaged.name)
    subprocess.run(
        [shutil.which("ffmpeg"), "-loglevel", "quiet", "-i", damaged, repaired], check=True
    )
    with warnings.catch_warnings(action="error"):
        assert len(read(repaired.read_bytes(), "c.wav")) > RATE
