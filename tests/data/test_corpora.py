from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from vqcodec.data import corpora
from vqcodec.data.corpora import Utterance
from vqcodec.errors import DataError


def touch(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"What {path.stem} says.\n" if path.suffix == ".txt" else "")


def summary(utterances: list[Utterance], root: Path) -> list[tuple[str, str, str, str]]:
    return [(u.name, u.speaker, u.path.relative_to(root).as_posix(), u.text) for u in utterances]


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


def test_import_needs_no_torch() -> None:
    code = "import sys, vqcodec.data.corpora, vqcodec.data.prepared; print('torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout == "False\n"
