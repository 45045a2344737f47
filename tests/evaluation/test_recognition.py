"""Who listens, and what is made of the words; Whisper itself is a stand-in but for one test."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jiwer
import numpy as np
import pytest
from recordings import SAID, SAID_S, spoken

from vqcodec.errors import VqcodecError
from vqcodec.evaluation import recognition
from vqcodec.evaluation.quality import SAMPLE_RATE, UndefinedMetricError
from vqcodec.evaluation.recognition import Recognizer, find_recognizer

WHISPER = os.environ.get("VQCODEC_TEST_WHISPER", "")


class Model:
    """Hears one text, and remembers how it was made and asked."""

    made: list[Any]
    asked: list[Any]
    says = " A quick recording,"
    supported_languages = ("en", "de")

    def __init__(self, folder: str, **options: Any) -> None:
        Model.made.append((folder, options))

    def transcribe(self, waveform: np.ndarray, **options: Any) -> tuple[Any, None]:
        Model.asked.append((waveform.dtype, options))
        return (SimpleNamespace(text=text) for text in (self.says, " and more.")), None


@pytest.fixture
def whisper(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> SimpleNamespace:
    """A faster-whisper that fetches `base` into a folder, and knows no other weights."""
    kept, fetched = tmp_path / "hub", list[str]()

    def download_model(name: str, local_files_only: bool = False) -> str:
        if not (kept / name).is_dir():
            if local_files_only or name not in ("base", "me/mine"):
                raise RuntimeError("no\nroute to host")
            fetched.append(name)
            (kept / name).mkdir(parents=True)
            (kept / name / "model.bin").write_bytes(name.encode())
        return str(kept / name)

    Model.made, Model.asked = [], []
    module = SimpleNamespace(
        WhisperModel=Model,
        available_models=lambda: ["tiny", "base"],
        download_model=download_model,
        fetched=fetched,
    )
    real = recognition.library
    monkeypatch.setattr(
        recognition, "library", lambda name: module if name == "faster_whisper" else real(name)
    )
    monkeypatch.setattr(recognition, "_versions", lambda *names: tuple(f"{n} 1" for n in names))
    recognition._whisper.cache_clear()
    return module


@pytest.fixture(scope="module")
def waveform() -> np.ndarray:
    return spoken("rms", 0.0, SAID_S)


# Who listens


def test_whisper_base_is_fetched_once_and_says_so(whisper: SimpleNamespace) -> None:
    told: list[str] = []
    first = find_recognizer(on_wait=told.append)
    assert (first.name, first.remark) == ("Whisper base", "")
    assert find_recognizer("base", told.append) == first
    assert whisper.fetched == ["base"]
    assert told == ["the weights of Whisper base, from Hugging Face"]
    assert "faster-whisper 1, ctranslate2 1, weights " in first.about()
    assert first.digest != find_recognizer("me/mine").digest


def test_a_folder_is_a_recogniser_wherever_it_lies(
    whisper: SimpleNamespace, tmp_path: Path
) -> None:
    (tmp_path / "small.de").mkdir()
    with pytest.raises(VqcodecError, match=r"small\.de: has no model\.bin; give a Whisper made"):
        find_recognizer(str(tmp_path / "small.de"))
    (tmp_path / "small.de" / "model.bin").write_bytes(b"1")
    found = find_recognizer(str(tmp_path / "small.de"))
    assert (found.name, whisper.fetched) == ("Whisper small.de", [])


def test_without_weights_pocketsphinx_listens_unless_another_was_asked_for(
    whisper: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recognition, "DEFAULT", "tiny")
    found = find_recognizer()
    assert (found.name, found.folder) == ("pocketsphinx", None)
    reason = "its weights cannot be fetched (no route to host); give a folder that"
    assert f"Not Whisper tiny: {reason}" in found.about()
    with pytest.raises(
        VqcodecError, match=r"its weights cannot be fetched .* or use pocketsphinx$"
    ):
        find_recognizer("tiny")
    assert find_recognizer("pocketsphinx").remark == ""
    with pytest.raises(VqcodecError, match="huge: no such recogniser; use pocketsphinx, a Whisper"):
        find_recognizer("huge")


def test_without_its_library_pocketsphinx_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    def library(name: str) -> None:
        if name == "faster_whisper":
            raise VqcodecError("faster_whisper: cannot be imported; pip install 'vqcodec[asr]'")

    monkeypatch.setattr(recognition, "library", library)
    assert "pip install 'vqcodec[asr]'" in find_recognizer().about()


def test_whisper_searches_greedily_and_forgets_what_was_before(
    whisper: SimpleNamespace, waveform: np.ndarray
) -> None:
    found = find_recognizer()
    assert found.transcribe(waveform.astype(np.float64), "de-AT").split()[:2] == ["A", "quick"]
    assert found.transcribe(waveform[:320]) == ""  # 20 ms
    ((folder, made),) = Model.made
    assert folder == found.folder
    assert made == {"device": "cpu", "compute_type": "float32", "cpu_threads": 1}
    ((kind, asked),) = Model.asked
    assert kind == np.float32
    assert asked == {
        "language": "de",
        "beam_size": 1,
        "best_of": 1,
        "temperature": 0.0,
        "condition_on_previous_text": False,
    }


def test_a_language_that_it_does_not_know_gives_no_number(
    whisper: SimpleNamespace, waveform: np.ndarray
) -> None:
    for found in (find_recognizer(), Recognizer()):
        with pytest.raises(UndefinedMetricError, match=f"{found.name} knows no language 'xx'"):
            recognition.word_errors("text", waveform, found, "xx")


@pytest.mark.optional
@pytest.mark.skipif(not WHISPER, reason="VQCODEC_TEST_WHISPER names no Whisper to listen with")
def test_whisper_hears_what_is_said_and_nothing_in_silence(waveform: np.ndarray) -> None:
    found = find_recognizer(WHISPER)
    assert recognition.word_errors(SAID, waveform, found) == (0, 9, 0)
    for silence in (np.zeros_like(waveform), waveform[:320], waveform[:0]):
        assert recognition.word_errors(SAID, silence, found) == (9, 9, 0)


# What is made of the words


class Fixed(Recognizer):
    """Hears always the same."""

    def transcribe(self, waveform: np.ndarray, language: str = "en") -> str:
        return self.name


def errors(said: str, heard: str) -> recognition.WordErrors:
    return recognition.word_errors(said, np.zeros(SAMPLE_RATE, np.float32), Fixed(heard))


def test_substitutions_deletions_and_insertions_are_errors_and_the_last_stand_apart() -> None:
    assert errors("one two three", "one too three") == (1, 3, 0)
    assert errors("one two three", "one three") == (1, 3, 0)
    assert errors("one two three", "so one two three four") == (2, 3, 2)
    assert errors("one", "") == (1, 1, 0)


@pytest.mark.parametrize("text", ["", " -- !", "\t\n"])
def test_a_text_without_words_has_no_rate_where_jiwer_has_a_count(text: str) -> None:
    assert jiwer.wer("", "two words") == 2
    with pytest.raises(UndefinedMetricError, match="the corpus does not tell what is said"):
        errors(text, "two words")


def test_tabs_and_line_ends_part_words_where_they_do_not_for_jiwer() -> None:
    assert jiwer.wer("one\ttwo", "one two") > 0
    assert errors("one\ttwo\r\nthree\u00a0four", "one two three four") == (0, 4, 0)


def test_how_a_letter_is_composed_or_a_title_spelt_does_not_matter() -> None:
    assert errors("cafe\u0301 n\u0303", "Caf\u00e9, \u00d1") == (0, 2, 0)
    assert errors("MISSUS AND DOCTOR", "Mrs. and Dr.") == (0, 3, 0)
    vowels = "\u0939\u093f\u0928\u094d\u0926\u0940"  # whose vowel signs are no letters to `re`
    assert recognition.normalized(vowels) == vowels
