"""What is done to a recording before it is measured: a condition, a codec, and how often.

Waveforms are float arrays of shape (T,), full scale 1, at `SAMPLE_RATE`.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import numpy as np

from vqcodec.audio import load
from vqcodec.data.corpora import Utterance
from vqcodec.errors import DataError
from vqcodec.evaluation.baselines import Coded, baseline, external_codec
from vqcodec.evaluation.cache import Setup, cache_stem
from vqcodec.evaluation.degradation import CLEAN, N_BABBLERS, degrade, needs_babblers, turned_up
from vqcodec.evaluation.quality import SAMPLE_RATE
from vqcodec.files import file_digest
from vqcodec.format.codes import Codes
from vqcodec.models import DecoderName

ORIGINAL = "original"


class Treatment(NamedTuple):
    """What is done to a recording.

    Attributes:
        codec: `ORIGINAL`, one of `our_label`, or a reference codec.
        condition: that the recording is brought into first; see `degradation`.
        generation: how often the codec is used, each time on what it decoded before.
    """

    codec: str
    condition: str = CLEAN
    generation: int = 1

    @property
    def title(self) -> str:
        """What tables call it; the condition has a column of its own."""
        title = codec_title(self.codec)
        return title if self.generation == 1 else f"{title}, generation {self.generation}"


class Treated(NamedTuple):
    """What came of it.

    Attributes:
        coded: the waveform and its bytes, of the last generation.
        codes: (Q, N), of our codec alone.
        codes_kept: the share of the first generation's codes that the last one has in their
            places, in [0, 1]; None for the first generation and for other codecs.
    """

    coded: Coded
    codes: np.ndarray | None = None
    codes_kept: float | None = None


def codec_title(codec: str) -> str:
    """What tables call a codec, which may be the user's NAME=ACTION."""
    return codec.partition("=")[0].strip()


def our_label(decoder: DecoderName, *, refined: bool = False) -> str:
    """Our name in the tables."""
    return f"vqcodec ({decoder}, refined)" if refined else f"vqcodec ({decoder})"


def all_treatments(
    codecs: Sequence[str], ours: str, *, conditions: Sequence[str], generations: int
) -> tuple[Treatment, ...]:
    """Every codec on clean recordings, ours over and over, and every codec in every condition."""
    return (
        *map(Treatment, codecs),
        *(Treatment(ours, generation=n) for n in range(2, generations + 1)),
        *(Treatment(codec, each) for each in dict.fromkeys(conditions) for codec in codecs),
    )


def babblers(utterance: Utterance, everybody: Sequence[Utterance]) -> tuple[Utterance, ...]:
    """The recordings of other people that babble behind one is made of, drawn by its name.

    Raises DataError if there are fewer than `N_BABBLERS`.
    """
    others = [each for each in everybody if each.speaker != utterance.speaker]
    if len(others) < N_BABBLERS:
        raise DataError(
            f"{utterance.name}: babble takes {N_BABBLERS} recordings of other speakers, and the "
            f"split has {len(others)}; choose another split or condition"
        )
    drawn = sorted(others, key=lambda each: zlib.crc32(f"{utterance.name} {each.name}".encode()))
    return tuple(drawn[:N_BABBLERS])


class Recording:
    """One recording and what is done to it; what several treatments share is done once.

    Those of `behind` babble, if a treatment needs it.

    Attributes:
        in_condition: a condition -> the recording in it, (T,); it is not to be written to.
    """

    def __init__(self, setup: Setup, utterance: Utterance, behind: Sequence[Utterance]) -> None:
        self._setup, self._utterance, self._behind = setup, utterance, behind
        self.in_condition, self._coded = cache(self._degrade), cache(self._code)

    def treat(self, treatment: Treatment) -> Treated:
        """Bring it into a condition, and code and decode it.

        Raises AudioError if a recording cannot be read, VqcodecError if a reference codec fails.
        """
        codec, condition, generation = treatment
        if not self._is_ours(codec):
            waveform = self.in_condition(condition)
            coded = Coded(waveform, 2 * len(waveform))
            if codec != ORIGINAL:  # which may write into what it is given
                coded = baseline(codec)(waveform.copy())
            return Treated(coded._replace(waveform=turned_up(coded.waveform, condition)))
        codes, waveform = self._coded(treatment)
        first, _ = self._coded(treatment._replace(generation=1))
        kept = _share_kept(first.codes, codes.codes) if generation > 1 else None
        coded = Coded(turned_up(waveform, condition), len(codes.to_bytes()))
        return Treated(coded, codes.codes, kept)

    def stem(self, treatment: Treatment) -> str:
        """Name the file in which the result of a treatment is kept."""
        what = treatment.title
        made_by = external_codec(treatment.codec).digest() if "=" in treatment.codec else ""
        if treatment.condition != CLEAN:
            what = f"{what}, {treatment.condition}"
        if needs_babblers(treatment.condition):
            made_by += "".join(file_digest(each.path) for each in self._behind)
        is_ours = self._is_ours(treatment.codec)
        return cache_stem(self._setup, self._utterance, what, is_by_model=is_ours, made_by=made_by)

    def _is_ours(self, codec: str) -> bool:
        return codec in (our_label(self._setup.decoder, refined=flag) for flag in (False, True))

    def _degrade(self, condition: str) -> np.ndarray:
        waveform = load(self._utterance.path, SAMPLE_RATE)
        if condition == CLEAN:
            return waveform
        voices = [
            load(each.path, SAMPLE_RATE) for each in self._behind if needs_babblers(condition)
        ]
        return degrade(waveform, condition, self._utterance.name, voices)

    def _code(self, treatment: Treatment) -> tuple[Codes, np.ndarray]:
        """Our codec's codes, and what is decoded of them."""
        codec, condition, generation = treatment
        heard = None
        if generation > 1:
            _, heard = self._coded(treatment._replace(generation=generation - 1))
        elif condition != CLEAN:
            heard = self.in_condition(condition)
        is_refined = codec == our_label(self._setup.decoder, refined=True)
        codes = self._setup.encode(self._utterance, refine=is_refined, heard=heard)
        return codes, self._setup.decode(codes)


def _share_kept(first: np.ndarray, last: np.ndarray) -> float:
    n_codes = min(first.shape[1], last.shape[1])  # where a rate does not divide another
    return float((first[:, :n_codes] == last[:, :n_codes]).mean())
