"""How much a decoder leans on the codes: what it makes of wrong ones, and of wrong voices."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

import numpy as np

from vqcodec.audio import load
from vqcodec.codec import Codec
from vqcodec.data.corpora import Utterance
from vqcodec.errors import DataError
from vqcodec.evaluation.bootstrap import Mean, ratio
from vqcodec.evaluation.quality import SAMPLE_RATE, UndefinedMetricError, mel_distance
from vqcodec.evaluation.recognition import Recognizer, WordErrors, word_errors
from vqcodec.format.codes import Codes


@dataclass(frozen=True)
class Measurement:
    """One line of the report.

    Attributes:
        target, given: what is told (the speaker, the pitch, the original's spectrogram), from what.
        measure: `accuracy` or `R²`, higher is more leakage, or `mel distance` in nepers.
        found: its value over recordings.
        n_test, n_train: recordings, windows or frames that the probe is scored on, and fitted to.
        chance: what knowing nothing gives; None where that has no meaning.
        more: how much more it is than that of the right codes and voice, over the same recordings.
    """

    target: str
    given: str
    measure: str
    found: Mean
    n_test: int
    chance: float | None = None
    n_train: int | None = None
    more: Mean | None = None

    def row(self) -> dict[str, object]:
        """A row of the CSV file."""
        row = vars(self).copy()
        for name, prefix in (("found", ""), ("more", "more ")):
            value, _, interval, _ = row.pop(name) or Mean(None, 0)
            row[f"{prefix}value"] = value
            row[f"{prefix}low"], row[f"{prefix}high"] = interval or (None, None)
        return row


def measure_reliance(
    codec: Codec, split: Sequence[tuple[Utterance, Codes]], recognizer: Recognizer | None = None
) -> tuple[list[Measurement], list[Measurement]]:
    """Mel distances with the right and the wrong codes and voices, the right ones first.

    Beside them the percentages of words wrong, if there is a recogniser and there are texts.
    """
    rng = np.random.default_rng(0)
    distances: dict[str, list[float]] = {}
    misheard: dict[str, list[WordErrors]] = {}
    for index, (utterance, codes) in enumerate(split):
        rotated = [*split[index + 1 :], *split[:index]]
        other = next((codes for who, codes in rotated if who.speaker != utterance.speaker), None)
        assert other is not None  # there are two speakers
        variants = _variants(codes, other, rng)
        reference = load(utterance.path, SAMPLE_RATE)
        decoded = {
            name: codec.decode(variant, sample_rate=SAMPLE_RATE)
            for name, variant in variants.items()
        }
        with suppress(UndefinedMetricError):
            own = {name: mel_distance(reference, one) for name, one in decoded.items()}
            for name, distance in own.items():
                distances.setdefault(name, []).append(distance)
        if recognizer is None:
            continue
        text, language = utterance.text, utterance.language
        with suppress(UndefinedMetricError):
            for name, one in decoded.items():
                errors = word_errors(text, one, recognizer, language)
                misheard.setdefault(name, []).append(errors)
    if not distances:
        raise DataError(
            f"split {split[0][0].split}: all its recordings are silent or far too short; "
            "give recordings of speech"
        )
    right = next(iter(distances.values()))
    measured, counted = [], []
    for name, found in distances.items():
        more = ratio(np.subtract(found, right))
        measured.append(
            Measurement("original", name, "mel distance", ratio(found), len(found), more=more)
        )
    for name, wrong in misheard.items():
        rate = ratio([one.errors for one in wrong], [one.words for one in wrong])
        counted.append(Measurement("words", name, "WER", rate.in_percent(), len(wrong)))
    return measured, counted


def _variants(codes: Codes, other: Codes, rng: np.random.Generator) -> dict[str, Codes]:
    """The right codes and voice, and wrong ones by another recording."""
    n_codes = codes.n_codes
    shuffled = replace(codes, codes=codes.codes[:, rng.permutation(n_codes)])
    foreign = replace(codes, codes=other.codes[:, np.arange(n_codes) % other.n_codes])
    return {
        "true codes, own voice": codes,
        "true codes, another's voice": replace(codes, speaker=other.speaker),
        "codes shuffled in time, own voice": shuffled,
        "another recording's codes, own voice": foreign,
        "another recording's codes and voice": replace(foreign, speaker=other.speaker),
    }
