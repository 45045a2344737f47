"""Corpora that people have, on trees of their real layout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from lhotse import CutSet, MonoCut, Recording, SupervisionSegment
from recordings import spoken, write
from scale_data import sound_bytes

from vqcodec.data import corpora
from vqcodec.data.prepared import prepare
from vqcodec.errors import DataError
from vqcodec.scale.utterances import source_utterances

CLIP = spoken("slt", 0.0, 0.4)


def listed(found: list[corpora.Utterance]) -> list[tuple[str, str, str, str]]:
    return [(one.name, one.speaker, one.split, one.text) for one in found]


@pytest.mark.parametrize("given", ["LibriTTS", ".", "LibriTTS/dev-clean"])
def test_libritts(given: str, tmp_path: Path) -> None:
    for subset, name in (("train-clean-100", "19_198_000000_000002"), ("dev-clean", "84_1_0_0")):
        speaker, chapter, *_ = name.split("_")
        path = tmp_path / "LibriTTS" / subset / speaker / chapter / f"{name}.wav"
        write(path, CLIP, 24000)
        path.with_suffix(".normalized.txt").write_text("It was said.\n")
        path.with_suffix(".original.txt").write_text("It was 'said'.\n")
    (tmp_path / "LibriTTS" / "dev-clean" / "84" / "1" / "._84_1_0_0.wav").touch()
    expected = [
        ("ls19/19_198_000000_000002", "ls19", "train", "It was said."),
        ("ls84/84_1_0_0", "ls84", "valid", "It was said."),
    ]
    assert listed(corpora.libritts(tmp_path / given)) == expected[given.endswith("clean") :]
    assert corpora.utterances(tmp_path / given) == corpora.libritts(tmp_path / given)


@pytest.mark.parametrize("given", ["LJSpeech-1.1", "."])
def test_ljspeech(given: str, tmp_path: Path) -> None:
    root = tmp_path / "LJSpeech-1.1"
    write(root / "wavs" / "LJ001-0001.wav", CLIP, 22050)
    lines = 'LJ001-0001|Printed in 1455, "so"|Printed in fourteen fifty-five, "so"\n'
    (root / "metadata.csv").write_text(lines)
    text = 'Printed in fourteen fifty-five, "so"'
    assert listed(corpora.ljspeech(tmp_path / given)) == [("lj/LJ001-0001", "lj", "train", text)]
    (root / "metadata.csv").write_text(lines + "LJ001-0002|a|a\n")
    with pytest.raises(DataError, match=r"LJ001-0002\.wav: is listed in metadata\.csv, but not"):
        corpora.ljspeech(tmp_path / given)


def test_common_voice(tmp_path: Path) -> None:
    root = tmp_path / "cv-corpus-21.0-2025-03-14" / "cy"
    head = "client_id\tpath\tsentence_id\tsentence\tsentence_domain\tup_votes\tgender\tlocale\n"
    for number, (subset, gender) in enumerate(
        {"train": "female_feminine", "dev": "", "test": "male_masculine"}.items()
    ):
        name = f"common_voice_cy_{number}.mp3"
        write(root / "clips" / name, CLIP)
        line = f'{number}{"ab" * 63}\t{name}\t9\tDywedodd "ie\t\t2\t{gender}\tcy\n'
        gone = f"{'c' * 128}\tgone.mp3\t9\tNid yma\t\t2\t\tcy\n"
        (root / f"{subset}.tsv").write_text(head + line + gone, encoding="utf-8")
    found = corpora.common_voice(root)
    assert [(one.split, one.sex) for one in found] == [
        ("train", "female"),
        ("valid", ""),
        ("test_unseen", "male"),
    ]
    assert found[0].name == "cv0abababababa/common_voice_cy_0"
    assert (found[0].language, found[0].text) == ("cy", 'Dywedodd "ie')
    data = prepare(found, tmp_path / "prepared", corpus="commonvoice")
    assert (len(data.clips), data.failures) == (3, [])


@pytest.mark.parametrize("reader", [corpora.libritts, corpora.ljspeech, corpora.common_voice])
def test_what_is_not_there_is_told(reader: Any, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"(recording|LJSpeech|Common Voice) found; expected"):
        reader(tmp_path)


def test_cuts_are_prepared_as_they_are_cut(tmp_path: Path) -> None:
    speech = spoken("slt", 0.0, 2.0)
    recording = Recording.from_file(write(tmp_path / "long.wav", speech))
    cuts = [
        MonoCut(f"c{number}", start, 0.8, 0, [said], recording=recording)
        for number, start in enumerate((0.25, 1.0))
        for said in [SupervisionSegment("s", recording.id, 0, 0.8, text="so", speaker="anna")]
    ]
    CutSet.from_cuts(cuts).to_file(tmp_path / "cuts.jsonl.gz")
    found = source_utterances(tmp_path / "cuts.jsonl.gz")
    assert listed(found) == [(f"c{number}", "anna", "train", "so") for number in (0, 1)]
    data = prepare(found, tmp_path / "out", corpus="lhotse", jobs=2)
    rounded = np.round(speech * 32768).astype(np.int16)
    for clip, start in zip(data.clips, (4000, 16000), strict=True):
        own = data.audio[clip.start : clip.start + clip.n_samples]
        np.testing.assert_allclose(own, rounded[start : start + 12800], atol=8)


def test_folders_of_datasets_have_splits(tmp_path: Path) -> None:
    def rows(*numbers: int) -> datasets.Dataset:
        audio = [
            {"bytes": sound_bytes(CLIP * (number + 1) / 8), "path": None} for number in numbers
        ]
        columns = {"audio": audio, "text": [f"t{number}" for number in numbers]}
        columns["id"] = [f"u{number}" for number in numbers]
        return datasets.Dataset.from_dict(columns).cast_column(
            "audio", datasets.Audio(decode=False)
        )

    both = datasets.DatasetDict(train=rows(0, 1, 2), validation=rows(3))
    both.save_to_disk(tmp_path / "disk")
    found = source_utterances(tmp_path / "disk")
    assert listed(found) == [
        ("u0", "u0", "train", "t0"),
        ("u1", "u1", "train", "t1"),
        ("u2", "u2", "train", "t2"),
        ("u3", "u3", "valid", "t3"),
    ]
    data = prepare(found, tmp_path / "out", corpus="datasets")
    assert [clip.n_samples for clip in data.clips] == [len(CLIP)] * 4
    peaks = [int(np.abs(data.audio[c.start : c.start + c.n_samples]).max()) for c in data.clips]
    assert peaks == sorted(peaks)
    assert peaks[0] < peaks[-1]


def test_recordings_of_one_name_are_told_apart_by_speaker(tmp_path: Path) -> None:
    def table(speakers: list[str]) -> Path:
        audio = [
            {"bytes": sound_bytes(CLIP), "path": f"take{n}.wav"} for _ in speakers for n in range(2)
        ]
        columns = {"audio": audio, "speaker": [who for who in speakers for _ in range(2)]}
        path = tmp_path / f"{'-'.join(speakers)}.parquet"
        datasets.Dataset.from_dict(columns).to_parquet(path)
        return path

    found = source_utterances(table(["anna", "bob"]))
    names = ["anna/take0", "anna/take1", "bob/take0", "bob/take1"]
    assert [one.name for one in found] == names

    def interrupted(n_done: int, n_all: int) -> None:
        if n_done == n_all - 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(found, tmp_path / "out", corpus="datasets", on_progress=interrupted)
    data = prepare(found, tmp_path / "out", corpus="datasets")
    assert [clip.name for clip in data.clips] == names
    for speakers in (["anna", "anna"], ["", ""]):
        with pytest.raises(DataError, match=r"2 recordings are called .*take0; give them names"):
            source_utterances(table(speakers))
