"""Prepared folders: what is written, continued, refused and read."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pytest
import soundfile

from vqcodec.data import corpora
from vqcodec.data.clips import duration
from vqcodec.data.corpora import Utterance
from vqcodec.data.prepared import PreparedData, prepare
from vqcodec.errors import DataError

RATE = 16000


def tone(amplitude: float, seconds: float, rate: int = RATE) -> np.ndarray:
    n = round(seconds * rate)
    return (amplitude * np.sin(2 * np.pi * 440 * np.arange(n) / rate)).astype(np.float32)


@pytest.fixture
def utterances(tmp_path: Path) -> list[Utterance]:
    """Six recordings, of which the third and the last are no audio."""
    root = tmp_path / "corpus" / "eva"
    root.mkdir(parents=True)
    for i, rate in enumerate((16000, 48000, 0, 16000, 22050, 0)):
        path = root / f"{i}.wav"
        if rate:
            soundfile.write(path, tone(0.1 * (i + 1), 0.1 * (i + 1), rate), rate)
        else:
            path.write_bytes(b"not audio")
    return corpora.folder(root.parent)


def content(root: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in root.iterdir()}


def test_prepared_audio_is_the_recording_at_one_level(
    tmp_path: Path, utterances: list[Utterance]
) -> None:
    data = prepare(utterances, tmp_path / "out", corpus="folder")
    assert data.sample_rate == RATE
    assert data.corpus == "folder"
    assert [clip.name for clip in data.clips] == ["eva/0", "eva/1", "eva/3", "eva/4"]
    assert [clip.n_samples for clip in data.clips] == [1600, 3200, 6400, 8000]
    assert data.clips == data.split("train")
    assert data.split("test") == []
    # A clip at the native rate is stored exactly: soundfile wrote the same 16 bits.
    raw, _ = soundfile.read(utterances[3].path, dtype="int16")
    third = data.clips[2]
    assert np.array_equal(data.audio[third.start : third.start + third.n_samples], raw)
    for clip in data.clips:
        samples = data.read(clip)
        assert samples.dtype == np.float32
        assert np.sqrt(np.mean(samples**2)) == pytest.approx(0.06, rel=0.02)
    assert np.allclose(data.read(third) * third.gain, raw / 32768, atol=1e-6)


def test_read_stays_inside_the_clip(tmp_path: Path, utterances: list[Utterance]) -> None:
    data = prepare(utterances, tmp_path / "out", corpus="folder")
    first = data.clips[0]
    assert np.array_equal(data.read(first, 100, 50), data.read(first)[100:150])
    assert np.array_equal(data.read(first, 1500, 500), data.read(first)[1500:])
    assert len(data.read(first, 1600, 10)) == 0


def test_samples_beyond_full_scale_saturate(tmp_path: Path) -> None:
    path = tmp_path / "loud.wav"
    soundfile.write(path, tone(1.5, 0.1), RATE, subtype="FLOAT")
    data = prepare([Utterance(path, "loud", "eva", "train", "")], tmp_path / "out", corpus="x")
    assert (data.audio.min(), data.audio.max()) == (-32768, 32767)
    assert np.array_equal(data.audio > 0, tone(1.5, 0.1) > 1 / 65536)


def test_bytes_do_not_depend_on_jobs(tmp_path: Path, utterances: list[Utterance]) -> None:
    progress: list[tuple[int, int]] = []
    prepare(utterances, tmp_path / "one", corpus="folder")
    prepare(
        utterances,
        tmp_path / "two",
        corpus="folder",
        jobs=2,
        on_progress=lambda done, total: progress.append((done, total)),
    )
    assert content(tmp_path / "one") == content(tmp_path / "two")
    assert progress == [(i, 6) for i in range(1, 7)]


def test_broken_recordings_are_reported(
    tmp_path: Path, utterances: list[Utterance], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        data = prepare(utterances, tmp_path / "out", corpus="folder")
    assert [failure.name for failure in data.failures] == ["eva/2", "eva/5"]
    assert "2.wav" in data.failures[0].reason
    assert "2.wav" in caplog.text
    assert "2 of 6 recordings were left out" in caplog.text
    assert PreparedData(tmp_path / "out").failures == data.failures


def test_nothing_but_broken_recordings(tmp_path: Path, utterances: list[Utterance]) -> None:
    with pytest.raises(DataError, match=r"out: no recording could be read; the first: .*2\.wav"):
        prepare([utterances[2], utterances[5]], tmp_path / "out", corpus="folder")


def interrupt(utterances: list[Utterance], output: Path, after: int) -> None:
    def stop(done: int, total: int) -> None:
        if done == after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(utterances, output, corpus="folder", on_progress=stop)


@pytest.mark.parametrize("after", range(1, 7))
@pytest.mark.parametrize("damage", ["none", "half a clip", "half a line", "lost audio"])
def test_interrupted_preparation_resumes_to_the_same_bytes(
    tmp_path: Path, utterances: list[Utterance], after: int, damage: str
) -> None:
    prepare(utterances, tmp_path / "whole", corpus="folder")
    out = tmp_path / "out"
    interrupt(utterances, out, after)
    with pytest.raises(DataError, match="out: its preparation is not finished; run vqcodec prep"):
        PreparedData(out)
    if damage == "half a clip":
        with (out / "audio.i16").open("ab") as file:
            file.write(b"\x01\x02\x03")
    elif damage == "half a line":
        with (out / "clips.jsonl").open("ab") as file:
            file.write(b'{"name": "ev')
    elif damage == "lost audio":
        samples = (out / "audio.i16").read_bytes()
        (out / "audio.i16").write_bytes(samples[:-1])
    progress: list[int] = []
    prepare(utterances, out, corpus="folder", on_progress=lambda done, _: progress.append(done))
    assert content(out) == content(tmp_path / "whole")
    if damage != "lost audio":
        # Everything up to the last clip that was read is not read again.
        assert progress[:1] == [max(i for i in (1, 2, 4, 5) if i <= after) + 1]


def test_complete_preparation_returns_at_once(tmp_path: Path, utterances: list[Utterance]) -> None:
    first = prepare(utterances, tmp_path / "out", corpus="folder")
    for utterance in utterances:
        utterance.path.unlink()
    again = prepare(utterances, tmp_path / "out", corpus="folder")
    assert (again.clips, again.failures) == (first.clips, first.failures)


@pytest.mark.parametrize("complete", [True, False])
def test_folder_with_other_data_is_refused(
    tmp_path: Path, utterances: list[Utterance], complete: bool
) -> None:
    out = tmp_path / "out"
    if complete:
        prepare(utterances, out, corpus="folder")
    else:
        interrupt(utterances, out, 2)
    before = content(out)
    refusal = "out: holds data prepared from another corpus or at another sample rate; choose"
    with pytest.raises(DataError, match=refusal):
        prepare(utterances[:5], out, corpus="folder")
    with pytest.raises(DataError, match=refusal):
        prepare(utterances, out, corpus="folder", sample_rate=8000)
    assert content(out) == before


def test_output_that_cannot_be_written(tmp_path: Path, utterances: list[Utterance]) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"file/out: cannot be written \(Not a directory\)"):
        prepare(utterances, tmp_path / "file" / "out", corpus="folder")


def test_not_a_prepared_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere: no such folder; run vqcodec prepare"):
        PreparedData(tmp_path / "nowhere")
    with pytest.raises(DataError, match=f"{tmp_path.name}: not a prepared folder; run vqcodec pr"):
        PreparedData(tmp_path)


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("audio.i16", None, b"\0\0", r"audio\.i16: damaged \(2 bytes, where dataset.json says 38"),
        ("clips.jsonl", b"6400", b"6401", r"clips\.jsonl: damaged \(eva/4 does not start at 1120"),
        ("clips.jsonl", b'"gain"', b'"pain"', r"clips\.jsonl: damaged \(line 1: gain Field requ"),
        ("clips.jsonl", b"}\n", b"}", r"clips\.jsonl: damaged \(its last line is incomplete\)"),
        ("clips.jsonl", None, b"", r"clips\.jsonl: damaged \(0 clips of 0 samples, where"),
        ("dataset.json", b"{", b"", r"dataset\.json: damaged \(Invalid JSON"),
        ("dataset.json", b"-prepared", b"", r"dataset\.json: damaged \(its format is 'vqcodec', "),
        ("dataset.json", b'"version": 1', b'"version": 2', r"version 2, newer than 1; update vqc"),
    ],
)
def test_damage_is_named(
    tmp_path: Path,
    utterances: list[Utterance],
    name: str,
    old: bytes | None,
    new: bytes,
    message: str,
) -> None:
    prepare(utterances, tmp_path / "out", corpus="folder")
    path = tmp_path / "out" / name
    before = path.read_bytes()
    path.write_bytes(new if old is None else before.replace(old, new, 1 if old != b"}\n" else -1))
    assert path.read_bytes() != before
    with pytest.raises(DataError, match=message) as refusal:
        PreparedData(tmp_path / "out")
    assert "run vqcodec prepare" in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_prepared_format(tmp_path: Path, utterances: list[Utterance]) -> None:
    prepare(utterances[:1], tmp_path / "out", corpus="folder")
    dataset = json.loads((tmp_path / "out" / "dataset.json").read_text())
    del dataset["utterances"]
    assert dataset == {
        "format": "vqcodec-prepared",
        "version": 1,
        "sample_rate": 16000,
        "n_samples": 1600,
        "n_clips": 1,
        "corpus": "folder",
    }
    (line,) = (tmp_path / "out" / "clips.jsonl").read_text().splitlines()
    clip = json.loads(line)
    assert clip.pop("gain") == pytest.approx(0.1 / np.sqrt(2) / 0.06, rel=0.02)
    assert clip == {
        "name": "eva/0",
        "speaker": "eva",
        "split": "train",
        "start": 0,
        "n_samples": 1600,
        "text": "",
    }


@pytest.mark.parametrize(
    ("seconds", "told"), [(0.25, "0.2 s"), (90.0, "1.50 min"), (5400.0, "1.50 h")]
)
def test_a_length_is_told_in_a_unit_that_suits_it(seconds: float, told: str) -> None:
    assert duration(seconds) == told
