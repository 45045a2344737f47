"""What a speech recogniser understands of a recording. Needs the extra `eval`.

The recogniser is the small one of pocketsphinx, which errs on undisturbed speech as well: a word
error rate says something only beside that of the original recording.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from vqcodec.audio.writing import to_int16
from vqcodec.evaluation.quality import SAMPLE_RATE, UndefinedMetricError
from vqcodec.extras import library

_APOSTROPHES = re.compile("['\u2018\u2019]")
_PUNCTUATION = re.compile(r"[^\w\s]|_")


class WordErrors(NamedTuple):
    """What was misheard; rates over several recordings are total errors over total words.

    Attributes:
        errors: words substituted, left out and put in.
        words: of the text.
    """

    errors: int
    words: int


def word_errors(text: str, waveform: np.ndarray) -> WordErrors:
    """Count the words that a recogniser gets wrong; case and punctuation do not matter.

    Args:
        text: what is said, in English.
        waveform: (T,), full scale 1, at 16 kHz.

    Raises:
        UndefinedMetricError: the text has no words.
    """
    expected = normalized(text)
    if not expected:
        raise UndefinedMetricError("the corpus does not tell what is said")
    found = library("jiwer").process_words(expected, normalized(transcribe(waveform)))
    errors = found.substitutions + found.deletions + found.insertions
    return WordErrors(errors, found.hits + found.substitutions + found.deletions)


def transcribe(waveform: np.ndarray) -> str:
    """What pocketsphinx hears, in lower case, without punctuation.

    Its US English models, trigrams and 130 thousand words. A recording's words do not depend on
    what was recognised before it.

    Source: Huggins-Daines et al. 2006, PocketSphinx, ICASSP.

    Args:
        waveform: (T,), full scale 1, at 16 kHz.
    """
    recogniser = _recogniser()
    # Else it would go on from the spectral mean of the recording before.
    recogniser.reinit_feat()
    recogniser.start_utt()
    recogniser.process_raw(to_int16(waveform).tobytes(), full_utt=True)
    recogniser.end_utt()
    found = recogniser.hyp()
    return found.hypstr if found else ""


def normalized(text: str) -> str:
    """A text as words in lower case with single spaces; "It's well-known" is "its well known"."""
    joined = _APOSTROPHES.sub("", text.lower())
    return " ".join(_PUNCTUATION.sub(" ", joined).split())


@cache
def _recogniser() -> Any:
    return library("pocketsphinx").Decoder(samprate=SAMPLE_RATE, loglevel="FATAL")
