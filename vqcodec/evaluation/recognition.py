"""The words of a recording that a speech recogniser gets wrong. Needs the extra `eval`.

Every recogniser errs on undisturbed speech as well: a word error rate says something only beside
that of the original recording.
"""

from __future__ import annotations

import unicodedata
from typing import NamedTuple

import numpy as np

from vqcodec.evaluation.quality import UndefinedMetricError
from vqcodec.evaluation.recognizers import Recognizer
from vqcodec.extras import library

_APOSTROPHES = "'\u2018\u2019\u02bc"
_ABBREVIATIONS = {"mr": "mister", "mrs": "missus", "dr": "doctor"}  # which corpora spell out


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
