"""Speech recognisers, and the words of a recording that they get wrong. Needs the extra `eval`.

They are Whisper by faster-whisper (extra `asr`), or the small one of pocketsphinx. Each errs on
undisturbed speech as well: a word error rate says something only beside that of the original.
Waveforms are float arrays of shape (T,), full scale 1, at `SAMPLE_RATE`. What is heard depends on
no recording before it, and not on how many processes listen.
"""

from __future__ import annotations

import importlib.metadata
import textwrap
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vqcodec.audio.writing import to_int16
from vqcodec.errors import VqcodecError
from vqcodec.evaluation.quality import SAMPLE_RATE, UndefinedMetricError
from vqcodec.extras import library
from vqcodec.files import file_digest

DEFAULT, FALLBACK = "base", "pocketsphinx"

_APOSTROPHES = "'\u2018\u2019\u02bc"
_ABBREVIATIONS = {"mr": "mister", "mrs": "missus", "dr": "doctor"}  # which corpora spell out
_WEIGHTS = "model.bin"
_MIN_SAMPLES = 400  # the window of Whisper's spectrogram


@dataclass(frozen=True)
class Recognizer:
    """Who writes down what is said.

    Attributes:
        name: as reports call it.
        folder, digest: of Whisper's weights, and their SHA-256; None and "" for pocketsphinx.
        versions: of its libraries.
        remark: why it is not the default, where nobody asked for it; else empty.
    """

    name: str = FALLBACK
    folder: str | None = None
    digest: str = ""
    versions: tuple[str, ...] = ()
    remark: str = ""

    def about(self) -> str:
        """Which one it is, in a line."""
        weights = f", weights {self.digest[:12]}" if self.digest else ""
        remark = f" Not Whisper {DEFAULT}: {self.remark}." if self.remark else ""
        return f"Recogniser: {self.name} ({', '.join(self.versions)}{weights}).{remark}"

    def transcribe(self, waveform: np.ndarray, language: str = "en") -> str:
        """Write down a waveform (T,) in a language, ISO 639-1 with or without a region.

        Raises UndefinedMetricError if it does not know the language.
        """
        language = language.split("-")[0].lower()
        if self.folder is None:
            if language != "en":
                raise UndefinedMetricError(f"{self.name} knows no language {language!r}")
            return _hear_by_pocketsphinx(waveform)
        if language not in _whisper(self.folder).supported_languages:
            raise UndefinedMetricError(f"{self.name} knows no language {language!r}")
        return _hear_by_whisper(self.folder, waveform, language)


class WordErrors(NamedTuple):
    """What was misheard; rates over several recordings are total errors over total words.

    Attributes:
        errors: words substituted, left out and put in.
        words: of the text.
        insertions: of the errors, the words put in, as Whisper does in noise.
    """

    errors: int
    words: int
    insertions: int


def word_errors(
    text: str, waveform: np.ndarray, recognizer: Recognizer, language: str = "en"
) -> WordErrors:
    """Count the words that a recogniser gets wrong; case and punctuation do not matter.

    Args:
        text: what is said.
        waveform: (T,), full scale 1, at 16 kHz.
        recognizer: who listens.
        language: of the text.

    Raises:
        UndefinedMetricError: the text has no words, or the recogniser does not know the language.
    """
    expected = normalized(text)
    if not expected:  # of which jiwer's rate would be the number of words put in
        raise UndefinedMetricError("the corpus does not tell what is said")
    heard = normalized(recognizer.transcribe(waveform, language))
    found = library("jiwer").process_words(expected, heard)
    errors = found.substitutions + found.deletions + found.insertions
    words = found.hits + found.substitutions + found.deletions
    return WordErrors(errors, words, found.insertions)


def normalized(text: str) -> str:
    """A text as words in lower case with single spaces; "It's well-known" is "its well known".

    jiwer parts words at spaces alone: tabs and line ends, which become spaces here, would join
    them.
    """
    composed = unicodedata.normalize("NFKC", text.lower())
    kept = (
        character if unicodedata.category(character)[0] in "LMN" else " "
        for character in composed
        if character not in _APOSTROPHES
    )
    return " ".join(_ABBREVIATIONS.get(word, word) for word in "".join(kept).split())


def find_recognizer(
    name: str | None = None, on_wait: Callable[[str], None] | None = None
) -> Recognizer:
    """Find a recogniser, and fetch its weights if need be.

    Args:
        name: `pocketsphinx`, or Whisper as faster-whisper names it: a size, a folder with weights
            for CTranslate2, or a repository of Hugging Face. When None, Whisper base, and
            pocketsphinx where that cannot be had.
        on_wait: told what takes long.

    Raises:
        VqcodecError: there is none, its weights cannot be fetched, or its library is missing.
    """
    if name is None:
        try:
            return _whisper_recognizer(DEFAULT, on_wait)
        except VqcodecError as error:
            return _pocketsphinx_recognizer(str(error).removeprefix(f"Whisper {DEFAULT}: "))
    return _pocketsphinx_recognizer() if name == FALLBACK else _whisper_recognizer(name, on_wait)


def _pocketsphinx_recognizer(remark: str = "") -> Recognizer:
    library("pocketsphinx")
    return Recognizer(versions=_versions("pocketsphinx"), remark=remark)


def _whisper_recognizer(name: str, on_wait: Callable[[str], None] | None) -> Recognizer:
    folder = _weights_folder(name, on_wait)
    versions = _versions("faster-whisper", "ctranslate2")
    title = Path(name).resolve().name if Path(name).is_dir() else name
    return Recognizer(f"Whisper {title}", str(folder), file_digest(folder / _WEIGHTS), versions)


def _weights_folder(name: str, on_wait: Callable[[str], None] | None) -> Path:
    """The folder of a Whisper, which is fetched unless it is there."""
    whisper = library("faster_whisper")
    is_size = name in whisper.available_models()
    if Path(name).is_dir() and not is_size:
        if not (Path(name) / _WEIGHTS).is_file():
            raise VqcodecError(f"{name}: has no {_WEIGHTS}; give a Whisper made for CTranslate2")
        return Path(name).resolve()
    if not is_size and name.count("/") != 1:
        raise VqcodecError(
            f"{name}: no such recogniser; use {FALLBACK}, a Whisper of "
            f"{' '.join(whisper.available_models())}, a folder, or OWNER/NAME of Hugging Face"
        )
    try:
        return Path(whisper.download_model(name, local_files_only=True))
    except Exception:  # of several libraries, none of which says them all
        if on_wait is not None:
            on_wait(f"the weights of Whisper {name}, from Hugging Face")
    try:
        return Path(whisper.download_model(name))
    except Exception as error:
        reason = textwrap.shorten(str(error), 120, placeholder=" ...")
        raise VqcodecError(
            f"Whisper {name}: its weights cannot be fetched ({reason}); give a folder that has "
            f"them, or use {FALLBACK}"
        ) from error


def _versions(*names: str) -> tuple[str, ...]:
    return tuple(f"{name} {importlib.metadata.version(name)}" for name in names)


def _hear_by_whisper(folder: str, waveform: np.ndarray, language: str) -> str:
    """Greedy search without retries at a higher temperature (Radford et al. 2022, Whisper)."""
    if len(waveform) < _MIN_SAMPLES:
        return ""
    segments, _ = _whisper(folder).transcribe(
        waveform.astype(np.float32),
        language=language,
        beam_size=1,
        best_of=1,
        temperature=0.0,
        condition_on_previous_text=False,
    )
    return " ".join(segment.text for segment in segments)


def _hear_by_pocketsphinx(waveform: np.ndarray) -> str:
    """US English by trigrams of 130 thousand words (Huggins-Daines et al. 2006, ICASSP)."""
    decoder = _sphinx()
    # Else it would go on from the spectral mean of the recording before.
    decoder.reinit_feat()
    decoder.start_utt()
    decoder.process_raw(to_int16(waveform).tobytes(), full_utt=True)
    decoder.end_utt()
    found = decoder.hyp()
    return found.hypstr if found else ""


@cache
def _sphinx() -> Any:
    return library("pocketsphinx").Decoder(samprate=SAMPLE_RATE, loglevel="FATAL")


@cache
def _whisper(folder: str) -> Any:
    # One thread, as each process has. In int8 it would hear other words on processors without VNNI,
    # where sums of products saturate.
    return library("faster_whisper").WhisperModel(
        folder, device="cpu", compute_type="float32", cpu_threads=1
    )
