from __future__ import annotations

import csv
import importlib.metadata
from collections import Counter
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from recordings import SAID, SAID_S, spoken, write, write_corpus

from vqcodec.data.corpora import Utterance
from vqcodec.errors import DataError, VqcodecError
from vqcodec.evaluation import (
    bootstrap,
    cache,
    comparison,
    conversion,
    recognition,
    report,
    treatments,
)
from vqcodec.evaluation.baselines import Coded
from vqcodec.evaluation.page import Example, Player, page
from vqcodec.evaluation.quality import METRICS, SAMPLE_RATE, UndefinedMetricError
from vqcodec.evaluation.recognition import Recognizer
from vqcodec.evaluation.report import WORD_ERROR_RATE
from vqcodec.evaluation.treatments import Treatment


def utterance(path: Path, name: str = "a", speaker: str = "anna", text: str = "") -> Utterance:
    return Utterance(path, name, speaker, "test", text)


@pytest.fixture(scope="module")
def waveform() -> np.ndarray:
    return spoken("rms", 0.0, SAID_S)


# What is recognised


def test_case_and_punctuation_do_not_matter() -> None:
    text = "  Don\u2019t stop\u2014it's a WELL-known \u201ctrick\u201d, isn't_it?\n"
    assert recognition.normalized(text) == "dont stop its a well known trick isnt it"


def test_a_recording_is_understood_and_its_silence_is_not(waveform: np.ndarray) -> None:
    errors, words, _ = recognition.word_errors(SAID.upper(), waveform, Recognizer())
    assert words == 9
    assert errors <= 2
    silence = np.zeros_like(waveform)
    assert recognition.word_errors(SAID, silence, Recognizer()) == (9, 9, 0)
    assert recognition.word_errors(SAID, waveform[:100], Recognizer()) == (9, 9, 0)


def test_what_was_recognised_before_does_not_matter(waveform: np.ndarray) -> None:
    hiss = 0.3 * np.random.default_rng(0).standard_normal(SAMPLE_RATE)
    first = Recognizer().transcribe(waveform[:SAMPLE_RATE])
    Recognizer().transcribe(hiss)
    assert Recognizer().transcribe(waveform[:SAMPLE_RATE]) == first


def test_a_library_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.metadata.version

    def version(name: str) -> str:
        if name == "jiwer":
            raise importlib.metadata.PackageNotFoundError
        return real(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    with pytest.raises(VqcodecError, match=r"^jiwer: not installed; pip install 'vqcodec\[eval\]'"):
        cache.library_versions()


# What tables are made of


def row(**values: Any) -> dict[str, Any]:
    scores = {metric.name: 0.5 for metric in METRICS}
    words = {"words": 1, "word errors": 0, "words put in": 0}
    return {"codec": "x", "kbit/s": 1.0, **scores, **words, **values}


def test_word_errors_are_summed_before_they_are_divided() -> None:
    rows = [row(**{"word errors": 1, "words": 1}), row(**{"word errors": 0, "words": 9})]
    assert report.word_error_rate(rows)[:2] == (10.0, 2)


def test_word_errors_stand_beside_those_of_the_same_originals() -> None:
    ratio = bootstrap.ratio([3, 5, 9, None], [1, 3, 2, None])
    assert ratio[:2] == (pytest.approx(17 / 6), 3)
    assert ratio.interval is not None
    assert 5 / 3 <= ratio.interval.low < 17 / 6 < ratio.interval.high <= 9 / 2
    assert bootstrap.ratio([3, 5], [0, 0])[:3] == (None, 0, None)


def test_words_put_in_stand_apart() -> None:
    rows = [row(**{"word errors": 4, "words put in": 3, "words": 10})]
    table = report.table_row("x", report.summarise(rows, rows))
    assert table["WER (%) ↓"] == "40.0"
    assert table["words put in (%) ↓"] == "30.0"


def test_measures_that_were_trained_on_are_marked() -> None:
    table = report.table_row("x", report.summarise([row()], [row()]))
    marked = {name.split(" †")[0] for name in table if "†" in name}
    assert marked == {
        *("STOI", "F0 correlation", "F0 error (cents)", "voicing error", "mel distance"),
    }
    assert "loss" in report.TRAINED_ON_NOTE


def test_a_mean_over_some_files_says_so() -> None:
    rows = [
        row(STOI=0.25),
        row(STOI=None, **{"word errors": None, "words": None, "words put in": None}),
        row(STOI=0.75, **{"PESQ-WB": None}),
    ]
    rows = [{**one, "DNSMOS": None} for one in rows]
    table = report.table_row("x", report.summarise(rows, rows))
    assert table["STOI † ↑"] == "0.500 [0.250, 0.750] (2 of 3 files)"
    assert table["PESQ-WB ↑"] == "0.500 (2 of 3 files)"
    assert table["ESTOI ↑"] == "0.500"
    assert table["DNSMOS ↑"] == "-"
    assert table[f"{WORD_ERROR_RATE} ↓"] == "0.0 (2 of 3 files)"


def test_clips_are_chosen_by_split_speaker_and_number(tmp_path: Path) -> None:
    clips = {"b": ("p225", None), "a": ("anna", None), "c": ("x", None, "train")}
    write_corpus(tmp_path, clips)
    assert [clip.name for clip in report.clips(tmp_path, "test")] == ["a", "b"]
    manifest = tmp_path / "manifest.csv"
    assert [clip.name for clip in report.clips(manifest, "test")] == ["a", "b"]
    assert [clip.name for clip in report.clips(tmp_path, "test", speaker="p225")] == ["b"]
    with pytest.raises(DataError, match=r"no recording of x in split test \(1 in train\)"):
        report.clips(tmp_path, "test", speaker="x")
    with pytest.raises(DataError, match=r"in split valid \(2 in test, 1 in train\); choose"):
        report.clips(tmp_path, "valid")
    with pytest.raises(DataError, match=r"a\.wav: not a corpus"):
        report.clips(tmp_path / "a.wav", "test")


def test_items_are_spread_from_the_first_to_the_last() -> None:
    assert report.spread(range(9), 3) == [0, 4, 8]
    assert report.spread("abc", 5) == ["a", "b", "c"]


def test_examples_are_of_as_many_speakers_as_may_be() -> None:
    def speakers(numbers: dict[str, int]) -> Counter[str]:
        clips = [
            utterance(Path(), f"{speaker}/{index}", speaker)
            for speaker, number in numbers.items()
            for index in range(number)
        ]
        return Counter(clip.speaker for clip in comparison._played(clips))

    assert speakers({"anna": 20, "ben": 1, "carl": 2}) == {"anna": 5, "ben": 1, "carl": 2}
    many = speakers({f"s{index:02}": 3 for index in range(20)})
    assert len(many) == comparison.N_EXAMPLES
    assert "s19" in many


def test_voices_are_those_with_enough_recordings(tmp_path: Path) -> None:
    numbers = {"anna": 6, "ben": 5, "carl": 7, "stranger": 9}
    clips = {f"{name}{i}": (name, None) for name, n in numbers.items() for i in range(n)}
    write_corpus(tmp_path, clips)
    found = conversion._voices(tmp_path, "test", ["carl", "ben", "anna", "dora"])
    assert found == ["carl", "anna"]
    with pytest.raises(DataError, match="1 voices of the model have 6 recordings or more in split"):
        conversion._voices(tmp_path, "test", ["ben", "anna"])


@pytest.mark.parametrize(
    ("similarities", "reached", "nearer"),
    [
        ([(0.9, 0.1), (0.4, 0.5), (0.4, 0.5)], "yes", "1 of 3"),
        ([(0.1, 0.9), (0.5, 0.4), (0.5, 0.4)], "no", "2 of 3"),
    ],
)
def test_a_voice_is_reached_in_the_mean(
    similarities: list[tuple[float, float]], reached: str, nearer: str
) -> None:
    measures = (*conversion._AGAINST_SOURCE, conversion._PITCH_DISTANCE)
    same = dict.fromkeys(["original to target", *measures], 0.5)
    errors = {f"word errors{of}": 0 for of in ("", " of reconstruction", " of original")}
    names = {"source": "p225", "target": "anna", "words": 1, "words put in": 0}
    table = conversion._pair(
        [
            {**names, **same, **errors, "to target": target, "to source": source}
            for target, source in similarities
        ]
    )
    assert (table["target > source"], table["nearer to target"]) == (reached, nearer)


def test_recordings_beyond_the_limit_still_say_what_a_voice_is_like(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    voices = {"a0": (1, 0), "a1": (0, 1), "p0": (1, 0), "p1": (1, 0)}
    clips = {name: ("anna" if name < "b" else "p225", None) for name in voices}
    write_corpus(tmp_path, clips)

    def found(task: conversion._Task) -> conversion._Found:
        undefined = dict.fromkeys([*conversion._AGAINST_SOURCE, "mean pitch", "WER"])
        record = {"embedding": voices[task.utterance.name], **undefined, "undefined": ""}
        return conversion._Found(record, record, record, dict.fromkeys(task.targets, record))

    monkeypatch.setattr(
        conversion, "map_in_processes", lambda _, tasks, **__: [found(t) for t in tasks]
    )
    options = {"speakers": ["anna", "p225"], "model": str(tiny_model), "limit": 1}
    options["recognizer"] = "pocketsphinx"
    conversion.convert_pairs(tmp_path, tmp_path / "report", **options)
    rows = list(csv.DictReader((tmp_path / "report" / "conversion.csv").read_text().splitlines()))
    assert [row["file"] for row in rows] == ["a0", "p0"]
    assert [float(row["original to target"]) for row in rows] == pytest.approx([1, 0.5**0.5], 1e-5)


# The page


class Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.sources: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.sources += [value or "" for name, value in attrs if name in ("src", "href")]


def test_names_and_texts_cannot_break_the_page() -> None:
    player = Player("<b>codec</b>", 'x"?#%.wav', "x y.png", ["1 < 2"])
    example = Example("<script>alert(1)</script>", "R&B", "<img src=x>", [player])
    text = page(["a & b"], [{"codec": "<i>"}], [example])
    links = Links()
    links.feed(text)
    assert links.tags["script"] == links.tags["b"] == links.tags["i"] == 0
    assert links.sources == ["rate.png", "x%20y.png", "x%22%3F%23%25.wav"]
    assert "R&amp;B" in text


# How recordings are worked through


@pytest.fixture
def row_of(
    setting: cache.Setup, waveform: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Coded], dict[str, Any]]:
    """Measures what a codec might have made of the waveform."""
    path = write(tmp_path / "a.wav", waveform)

    def row_of(coded: Coded) -> dict[str, Any]:
        monkeypatch.setattr(treatments, "baseline", lambda name: lambda reference: coded)
        task = comparison._Task(utterance(path, text=SAID), setting, (), (), tmp_path, False)
        found = comparison._measure_treated(task, task.recording(), Treatment("any"), [])
        row: dict[str, Any] = found["row"]
        return row

    return row_of


def test_a_codecs_delay_is_no_fault_and_each_of_its_bytes_counts(
    waveform: np.ndarray, row_of: Callable[[Coded], dict[str, Any]]
) -> None:
    row = row_of(Coded(np.pad(waveform, (SAMPLE_RATE // 50, 0)), 1000))
    assert row["lag (ms)"] == 20
    assert row["STOI"] == pytest.approx(1)
    assert row["kbit/s"] == pytest.approx(8 * SAMPLE_RATE / len(waveform))


def test_it_is_the_codecs_silence_that_cannot_be_measured(
    waveform: np.ndarray, row_of: Callable[[Coded], dict[str, Any]]
) -> None:
    row = row_of(Coded(np.zeros_like(waveform), 0))
    reasons = [f"{metric.name}: the decoded recording is silent" for metric in METRICS]
    assert row["undefined"].split("; ") == reasons
    assert (row["word errors"], row["words"], row["words put in"]) == (9, 9, 0)


def test_no_word_is_misheard_in_a_recording_that_holds_none(
    setting: cache.Setup, waveform: np.ndarray
) -> None:
    said = utterance(Path(), text=SAID)
    silence = np.zeros_like(waveform)
    assert setting.listen(said, waveform, silence) == (9, 9, 0)  # the codec lost them
    for original, reason in ((silence, "the original is silent"), (waveform[:320], "less than 64")):
        with pytest.raises(UndefinedMetricError, match=reason):
            setting.listen(said, original, original)
