from __future__ import annotations

import json
import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from vqcodec.data import corpora
from vqcodec.data.corpora import Utterance
from vqcodec.data.prepared import PreparedData, prepare
from vqcodec.errors import DataError

RATE = 16000


def touch(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"What {path.stem} says.\n" if path.suffix == ".txt" else "")


def summary(utterances: list[Utterance], root: Path) -> list[tuple[str, str, str, str]]:
    return [(u.name, u.speaker, u.path.relative_to(root).as_posix(), u.text) for u in utterances]


# --- corpora ---------------------------------------------------------------------------------


@pytest.mark.parametrize("given", ["VCTK-Corpus", "."])
def test_vctk_080(tmp_path: Path, given: str) -> None:
    touch(
        tmp_path / "VCTK-Corpus",
        "wav48/p226/p226_002.wav",
        "wav48/p225/p225_001.wav",
        "wav48/p315/p315_001.wav",
        "txt/p225/p225_001.txt",
        "txt/p226/p226_002.txt",
    )
    assert summary(corpora.vctk(tmp_path / given), tmp_path / "VCTK-Corpus") == [
        ("p225/p225_001", "p225", "wav48/p225/p225_001.wav", "What p225_001 says."),
        ("p226/p226_002", "p226", "wav48/p226/p226_002.wav", "What p226_002 says."),
        ("p315/p315_001", "p315", "wav48/p315/p315_001.wav", ""),
    ]


@pytest.mark.parametrize("given", ["VCTK-Corpus-0.92", "."])
def test_vctk_092_takes_mic2_or_else_mic1(tmp_path: Path, given: str) -> None:
    touch(
        tmp_path / "VCTK-Corpus-0.92",
        "wav48_silence_trimmed/p280/p280_001_mic1.flac",
        "wav48_silence_trimmed/p225/p225_001_mic1.flac",
        "wav48_silence_trimmed/p225/p225_001_mic2.flac",
        "wav48_silence_trimmed/s5/s5_001_mic2.flac",
        "wav48_silence_trimmed/p315/p315_001_mic1.flac",
        "wav48_silence_trimmed/p315/p315_001_mic2.flac",
        "txt/p225/p225_001.txt",
        "txt/p280/p280_001.txt",
        "txt/s5/s5_001.txt",
    )
    folder = "wav48_silence_trimmed"
    assert summary(corpora.vctk(tmp_path / given), tmp_path / "VCTK-Corpus-0.92") == [
        ("p225/p225_001", "p225", f"{folder}/p225/p225_001_mic2.flac", "What p225_001 says."),
        ("p280/p280_001", "p280", f"{folder}/p280/p280_001_mic1.flac", "What p280_001 says."),
        ("p315/p315_001", "p315", f"{folder}/p315/p315_001_mic2.flac", ""),
        ("s5/s5_001", "s5", f"{folder}/s5/s5_001_mic2.flac", "What s5_001 says."),
    ]


def test_splits_are_small_the_same_in_both_releases_and_spare_short_speakers(
    tmp_path: Path,
) -> None:
    names = [f"{s}/{s}_{i:03d}" for s in ("p225", "p226", "p227") for i in range(300)]
    names += [f"p228/p228_{i:03d}" for i in range(9)]
    touch(tmp_path / "old", *[f"wav48/{name}.wav" for name in names])
    touch(tmp_path / "new", *[f"wav48_silence_trimmed/{name}_mic2.flac" for name in names])
    splits = {u.name: u.split for u in corpora.vctk(tmp_path / "old")}
    assert splits == {u.name: u.split for u in corpora.vctk(tmp_path / "new")}
    assert {splits[name] for name in names if name.startswith("p228")} == {"train"}
    for split in ("valid", "test"):
        assert 9 <= sum(s == split for s in splits.values()) <= 27  # 2 % of 900 is 18
    # Frozen: another hash would move clips that models were trained on into the test split.
    tests = sorted(name for name in names if splits[name] == "test")
    assert tests[:3] == ["p225/p225_012", "p225/p225_093", "p225/p225_100"]


def test_librispeech(tmp_path: Path) -> None:
    root = tmp_path / "LibriSpeech"
    train = [f"train-clean-100/19/198/19-198-{i:04d}.flac" for i in range(200)]
    touch(
        root,
        *train,
        "dev-clean/84/121123/84-121123-0000.flac",
        "test-other/367/130732/367-130732-0000.flac",
        "BOOKS.TXT",
    )
    (root / "dev-clean/84/121123/84-121123.trans.txt").write_text("84-121123-0000 GO DO\n")
    utterances = corpora.librispeech(tmp_path)
    assert utterances == corpora.librispeech(root)
    assert len(utterances) == 202
    by_name = {u.name: u for u in utterances}
    assert by_name["ls84/84-121123-0000"] == Utterance(
        root / "dev-clean/84/121123/84-121123-0000.flac",
        "ls84/84-121123-0000",
        "ls84",
        "valid",
        "GO DO",
    )
    assert by_name["ls367/367-130732-0000"].split == "test_unseen"
    of_train = [u.split for u in utterances if u.speaker == "ls19"]
    assert set(of_train) == {"train", "valid", "test"}
    assert of_train.count("train") > 180


def test_what_is_evaluated_is_split_as_the_training_was(tmp_path: Path) -> None:
    vctk, librispeech = tmp_path / "VCTK-Corpus-0.92", tmp_path / "LibriSpeech"
    names = [f"wav48_silence_trimmed/p225/p225_{i:03d}_mic2.flac" for i in range(300)]
    touch(vctk, *names)
    touch(librispeech, *(f"train-clean-100/19/198/19-198-{i:04d}.flac" for i in range(200)))
    touch(librispeech, "test-clean/61/70968/61-70968-0000.flac")
    for root in (tmp_path / "VCTK-Corpus-0.92", vctk / "wav48_silence_trimmed"):
        assert corpora.utterances(root) == corpora.vctk(vctk)
    for root in (librispeech, librispeech / "train-clean-100"):
        known = [u for u in corpora.librispeech(librispeech) if root in u.path.parents]
        assert corpora.utterances(root) == known
    (tests,) = corpora.utterances(librispeech / "test-clean")
    assert (tests.speaker, tests.split) == ("ls61", "test_unseen")
    (librispeech / "manifest.csv").write_text(
        "path,speaker,split\ntest-clean/61/70968/61-70968-0000.flac,me,test\n"
    )
    (mine,) = corpora.utterances(librispeech)
    assert (mine.speaker, mine.split) == ("me", "test")


def test_folder_of_speakers(tmp_path: Path) -> None:
    touch(
        tmp_path,
        "zoe/b.wav",
        "adam/day 1/a.FLAC",
        "adam/a.mp3",
        "adam/._a.mp3",
        "adam/notes.txt",
        "stray.wav",
    )
    assert summary(corpora.folder(tmp_path), tmp_path) == [
        ("adam/a", "adam", "adam/a.mp3", ""),
        ("adam/day 1/a", "adam", "adam/day 1/a.FLAC", ""),
        ("zoe/b", "zoe", "zoe/b.wav", ""),
    ]


def test_folder_with_two_files_of_one_name(tmp_path: Path) -> None:
    touch(tmp_path, "adam/a.wav", "adam/a.flac")
    with pytest.raises(DataError, match=r"a\.\w+: has the same name as .*a\.\w+; rename or remove"):
        corpora.folder(tmp_path)


def test_manifest_decides(tmp_path: Path) -> None:
    touch(tmp_path, "x/1.wav", "x/2.opus", "x/3.wav")
    (tmp_path / "manifest.csv").write_text(
        "path,age,speaker,sex,split,text,language\n"
        "x/2.opus,9,eva,F,test_unseen,,\nx/1.wav,8,bob,male,train,Été,fr\n",
        encoding="utf-8-sig",
    )
    assert corpora.folder(tmp_path) == [
        Utterance(tmp_path / "x/1.wav", "x/1", "bob", "train", "Été", "fr", "male"),
        Utterance(tmp_path / "x/2.opus", "x/2", "eva", "test_unseen", "", "en", "female"),
    ]


@pytest.mark.parametrize(
    ("manifest", "message"),
    [
        ("path,speaker\n1.wav,bob\n", r"manifest\.csv, line 1: no column split; "),
        ("", r"line 1: no column path, speaker, split; "),
        (
            "path,speaker,split\n1.wav,bob,train\n9.wav,bob,test\n",
            r"manifest\.csv, line 3: no file 9\.wav; ",
        ),
        ("path,speaker,split\n1.wav,bob\n", r"line 2: no split; "),
        ("path,speaker,split\n1.wav,bob,dev\n", r"line 2: unknown split 'dev'; use one of train"),
        ("path,speaker,split\n", r"manifest\.csv: lists no recording; "),
        ("path,speaker,split\n1.wav,J\xf6rg,train\n", r"manifest\.csv: not a CSV file in UTF-8"),
    ],
)
def test_bad_manifest(tmp_path: Path, manifest: str, message: str) -> None:
    touch(tmp_path, "1.wav")
    (tmp_path / "manifest.csv").write_text(manifest, encoding="latin-1")
    with pytest.raises(DataError, match=message):
        corpora.folder(tmp_path)


@pytest.mark.parametrize(
    ("corpus", "layout"),
    [
        ("vctk", r"wav48/p225/p225_001\.wav or wav48_silence_trimmed/p225/p225_001_mic2\.flac"),
        ("librispeech", r"LibriSpeech/train-clean-100/19/198/19-198-0001\.flac"),
        ("folder", r"SPEAKER/NAME\.wav .*manifest\.csv with columns path,speaker,split"),
    ],
)
def test_nothing_found_tells_the_layout(tmp_path: Path, corpus: str, layout: str) -> None:
    touch(tmp_path, "stray.wav")
    with pytest.raises(DataError, match=rf"{tmp_path.name}: no .*recording found; .*{layout}"):
        corpora.CORPORA[corpus](tmp_path)


def test_the_folder_that_one_is_in_has_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=rf"expected {tmp_path.name}/SPEAKER/NAME.wav"):
        corpora.folder(".")


def test_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match="folder: nothing to download; only vctk and librispeech"):
        corpora.download("folder", tmp_path)

    def unreachable(root: str, url: str = "", *, download: bool) -> None:
        assert Path(root).is_dir()
        assert download
        raise OSError(f"no route to {url or 'VCTK'}\nsecond line")

    monkeypatch.setattr("torchaudio.datasets.VCTK_092", unreachable)
    monkeypatch.setattr("torchaudio.datasets.LIBRISPEECH", unreachable)
    with pytest.raises(DataError, match=r"download of vctk failed \(no route to VCTK\); try"):
        corpora.download("vctk", tmp_path / "a")
    with pytest.raises(DataError, match=r"failed \(no route to train-clean-100\); try"):
        corpora.download("librispeech", tmp_path / "b")


# --- prepared data ---------------------------------------------------------------------------


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


def test_import_needs_no_torch() -> None:
    code = "import sys, vqcodec.data.corpora, vqcodec.data.prepared; print('torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout == "False\n"
