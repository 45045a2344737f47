from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from command_line import Run
from recordings import SAID, SAID_S, spoken, write

from vqcodec.data import labels
from vqcodec.errors import DataError
from vqcodec.format.textgrid import Interval, textgrid

AH = [Interval(0, 0.25, "pau"), Interval(0.25, 0.5, "AH0"), Interval(0.5, 1, "")]
SHORT_TEXTGRID = """File type = "ooTextFile"
Object class = "TextGrid"

0
1
<exists>
3
"IntervalTier"
"words"
0
1
1
0
1
"say ""a"" 3 times"
"TextTier"
"clicks"
0
1
1
0.5
"click"
"IntervalTier"
"anna - phones"
0
1
3
0
0.25
"pau"
0.25
0.5
"AH0"
0.5
1
""
"""


def read(tmp_path: Path, name: str, text: str, encoding: str = "utf-8") -> list[Interval]:
    path = tmp_path / name
    path.write_text(text, encoding=encoding)
    (found,) = labels.read_labels(path).values()
    return found


@pytest.mark.parametrize(
    ("label", "phone"),
    [
        ("AH0", "AH"),
        ("ah1", "ah"),
        ("AH0_B", "AH"),
        ("ae", "ae"),
        ("x^sil-hh+ax=l@1_2/A:0_0_0", "hh"),
        ("s-ih+t", "ih"),
        ("2:", "2:"),
        ("S", "S"),
        ("ng1", "ng1"),
        ("ai2", "ai2"),
        *((name, "sil") for name in ("", "SIL", "sp", "spn", "pau", "#", "h#", "<sil>", "+NSN+")),
        *((name, "sil") for name in ("silB", "silE", "epi", "SIL_S", "silence")),
        ("x^aa-pau+b=c@1", "sil"),
    ],
)
def test_labels_become_phone_classes(label: str, phone: str) -> None:
    assert labels.phone_classes([label]) == {label: phone}


def test_digits_are_stress_or_tones_in_a_whole_corpus() -> None:
    stressed = ["AO1", "ER0", "IY2", "t"]
    assert labels.phone_classes(stressed) == {"AO1": "AO", "ER0": "ER", "IY2": "IY", "t": "t"}
    tonal = ["a1", "a4", "ai1", "ai4", "ao1", "ao3_B", "er2", "silB"]
    expected = ["a1", "a4", "ai1", "ai4", "ao1", "ao3", "er2", "sil"]
    assert labels.phone_classes(tonal) == dict(zip(tonal, expected, strict=True))


def test_htk_times_are_100_ns_and_others_seconds(tmp_path: Path) -> None:
    expected = [Interval(0, 0.25, "pau"), Interval(0.25, 0.5, "AH0")]
    assert read(tmp_path, "a.lab", "0 2500000 pau\n2500000 5000000 AH0 -42.5 word\n\n") == expected
    assert read(tmp_path, "a.lab", "0 0.25 pau\n0.25 0.5 AH0\n") == expected


def test_timits_times_are_samples(tmp_path: Path) -> None:
    expected = [Interval(0, 0.25, "h#"), Interval(0.25, 0.5, "sh")]
    assert read(tmp_path, "SA1.PHN", "0 4000 h#\n4000 8000 sh\n") == expected


@pytest.mark.parametrize("end", [0.0244, 17.1, 15270])
def test_labels_of_another_length_than_their_recording_are_refused(end: float) -> None:
    labels.check_span("a", [Interval(0, 1, "a"), Interval(1, 3.5, "b")], 2.0)
    labels.check_span("a", [Interval(0, 0.4, "a")], 15.0)
    fault = rf"a: its labels end at {end:.4g} s, and the recording at 15.0?\d* s; write the times"
    with pytest.raises(DataError, match=fault.replace("+", r"\+")):
        labels.check_span("a", [Interval(0, end, "a")], 15.05)


def test_textgrids_are_read_in_every_form(tmp_path: Path) -> None:
    assert read(tmp_path, "long.TextGrid", textgrid(AH, tier="anything")) == AH
    assert read(tmp_path, "short.TextGrid", SHORT_TEXTGRID) == AH
    assert read(tmp_path, "a.textgrid", SHORT_TEXTGRID.replace("AH0", "ə"), "utf-16")[1] == (
        *(0.25, 0.5),
        "ə",
    )
    # Praat quotes by doubling, and its header may say "short".
    quoted = textgrid([Interval(0, 1, '"a" 3')], tier="x").replace("ooTextFile", "ooTextFile short")
    assert read(tmp_path, "quoted.TextGrid", quoted) == [Interval(0, 1, '"a" 3')]


def test_a_ctm_is_about_many_recordings(tmp_path: Path) -> None:
    path = tmp_path / "all.ctm"
    path.write_text(";; comment\na 1 0.00 0.25 SIL\nb 1 0.1 0.2 T_B 0.9\na 1 0.25 0.5 AH0_I 1\n")
    found = labels.read_labels(path)
    assert list(found) == ["a", "b"]
    assert found["a"] == [Interval(0, 0.25, "SIL"), Interval(0.25, 0.75, "AH0_I")]


@pytest.mark.parametrize(
    ("name", "text", "fault"),
    [
        ("a.lab", "0 10\n", r"a\.lab, line 1: '0 10' is not START END PHONE"),
        ("a.lab", "0 1 a\nb c d\n", r"a\.lab, line 2: 'b c d' is not"),
        ("a.lab", "", r"a\.lab: holds no label"),
        (
            "a.lab",
            "0 2000000 a\n1000000 3000000 b\n",
            "label .a. at 0 s ends after the next begins",
        ),
        ("a.lab", "2000000 1000000 a\n", "ends after the next begins"),
        ("a.ctm", "a 1 0.0 x AH\n", r"a\.ctm, line 1: 'a 1 0.0 x AH' is not RECORDING CHANNEL"),
        ("a.TextGrid", "no grid", r"a\.TextGrid: not a TextGrid as Praat saves it"),
        ("a.TextGrid", SHORT_TEXTGRID[:230], "not a TextGrid as Praat saves it"),
        (
            "a.TextGrid",
            SHORT_TEXTGRID.replace("anna - phones", "sounds"),
            "has the interval tiers words, sounds; name the phones' one, and no other, phones",
        ),
        (
            "a.TextGrid",
            SHORT_TEXTGRID.replace("words", "phones"),
            "has the interval tiers phones, anna - phones; name",
        ),
        (
            "a.TextGrid",
            SHORT_TEXTGRID.replace("words", "phones").replace("anna - phones", "phones"),
            "has the interval tiers phones, phones; name",
        ),
    ],
)
def test_what_is_no_label_file_is_refused(tmp_path: Path, name: str, text: str, fault: str) -> None:
    with pytest.raises(DataError, match=fault):
        read(tmp_path, name, text)


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.lab"
    path.write_bytes(b"\x80\x81\x82")
    with pytest.raises(DataError, match=r"a\.lab: cannot be read \(.*save it as UTF-8"):
        labels.read_labels(path)


def test_each_time_gets_the_phone_that_is_there() -> None:
    intervals = [Interval(0.1, 0.2, "AH"), Interval(0.2, 0.3, "sil"), Interval(0.5, 0.6, "AH")]
    classes: dict[str, int] = {}
    times = np.array([0.05, 0.1, 0.19, 0.2, 0.3, 0.4, 0.55, 0.6, 7])
    found = labels.labels_at(intervals, times, classes)
    assert classes == {"AH": 0, "sil": 1}
    nothing = labels.UNLABELLED
    assert found.tolist() == [nothing, 0, 0, 1, nothing, nothing, 0, nothing, nothing]


def make_corpus(root: Path, splits: dict[str, str] | None, names: list[str]) -> Path:
    for name in names:
        path = root / f"{name}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    if splits:
        lines = [f"{name}.wav,{Path(name).parent},{splits[name]}" for name in names]
        (root / "manifest.csv").write_text("\n".join(["path,speaker,split", *lines]))
    return root


def label(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / f"{name}.lab"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("0 5000000 a\n")


def test_a_manifest_says_what_is_learnt_from(tmp_path: Path) -> None:
    splits = {"anna/1": "train", "anna/2": "test", "ben/3": "test_unseen", "ben/4": "train"}
    corpus = make_corpus(tmp_path / "corpus", splits, list(splits))
    # Mirrored or by stem alone.
    label(tmp_path / "labels", "anna/1", "2", "other/3", "missing")
    found = labels.read_labelled_corpus(tmp_path / "labels", corpus)
    assert [(clip.utterance.name, clip.is_training) for clip in found.clips] == [
        ("anna/1", True),
        ("anna/2", False),
        ("ben/3", False),
    ]
    assert found.unused == ["missing"]


def test_without_splits_every_other_recording_is_learnt_from(tmp_path: Path) -> None:
    names = ["anna/1", "anna/2", "ben/1", "ben/2"]
    corpus = make_corpus(tmp_path, None, names)
    label(corpus, *names)
    found = labels.read_labelled_corpus(corpus, corpus)
    assert [clip.utterance.speaker for clip in found.clips] == ["anna", "anna", "ben", "ben"]
    assert [clip.is_training for clip in found.clips] == [True, False, True, False]


def test_labels_without_recordings_are_refused(tmp_path: Path) -> None:
    corpus = make_corpus(tmp_path / "corpus", None, ["anna/1", "ben/1"])
    label(tmp_path / "labels", "x", "1")
    fault = r"labels: 0 of 2 label files have a recording in .*such as anna/1\.lab"
    with pytest.raises(DataError, match=fault):
        labels.read_labelled_corpus(tmp_path / "labels", corpus)
    with pytest.raises(DataError, match="corpus: holds no label file"):
        labels.read_labelled_corpus(corpus, corpus)
    (tmp_path / "labels" / "1.TextGrid").write_text(textgrid(AH, tier="phones"))
    with pytest.raises(DataError, match=r"1\.lab: 1 has labels already"):
        labels.read_folder(tmp_path / "labels")


def test_a_corpus_is_labelled_by_forced_alignment(run_script: Run, tmp_path: Path) -> None:
    texts = {"good": SAID, "odd": SAID.replace("quick", "xyzzyq"), "silent": ""}
    root = tmp_path / "corpus"
    for name in texts:
        write(root / f"{name}.wav", spoken("rms", 0.0, SAID_S))
    with (root / "manifest.csv").open("w", newline="") as file:
        rows = [[f"{name}.wav", "slt", "test", text] for name, text in texts.items()]
        csv.writer(file).writerows([["path", "speaker", "split", "text"], *rows])
    done = run_script("tools/label_corpus.py", root, tmp_path / "labels", "--splits", "test")
    assert done.stdout == "test: 1 labelled, 1 with a word not in the dictionary\n"
    (name,) = found = labels.read_folder(tmp_path / "labels")
    assert name == "good"
    phones = [interval.label for interval in found[name]]
    assert "S T R IH NG" in " ".join(phones)
    assert phones[0] == phones[-1] == labels.SILENCE
