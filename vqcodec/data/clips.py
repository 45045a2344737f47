"""Recordings as trainings read them: 16-bit audio end to end, and where each lies in it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field

from vqcodec.errors import DataError


@dataclass(frozen=True)
class Clip:
    """One recording in the prepared audio.

    Attributes:
        name: Of the utterance, as are `speaker`, `split` and `text`.
        start: Where it begins in the audio, in samples.
        n_samples: Its length.
        gain: Its level over the level that models hear; audio / gain is loudness-normalised.
    """

    name: str
    speaker: str
    split: str
    start: int
    n_samples: Annotated[int, Field(gt=0)]
    gain: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    text: str


class AudioClips:
    """Recordings of one sample rate.

    Attributes:
        root: Where they come from.
        sample_rate: Of the audio, in Hz.
        corpus: What the audio was made from.
        clips: All clips, in the order of the audio.
        audio: (n_samples,) int16, all clips end to end.
    """

    def __init__(
        self, root: Path, sample_rate: int, corpus: str, clips: list[Clip], audio: np.ndarray
    ) -> None:
        self.root, self.sample_rate, self.corpus = root, sample_rate, corpus
        self.clips, self.audio = clips, audio

    def check_rate(self, sample_rate: int, whose: str) -> None:
        """Raise a DataError unless the audio has the rate in Hz that somebody wants."""
        if self.sample_rate != sample_rate:
            raise DataError(
                f"{self.root}: prepared at {self.sample_rate} Hz, {whose} wants {sample_rate} Hz: "
                f"prepare again with --sample-rate {sample_rate}, into another folder"
            )

    @property
    def digest(self) -> str:
        """SHA-256, hexadecimal, that tells these recordings from others, wherever they lie."""
        return hashlib.sha256(
            json.dumps([asdict(clip) for clip in self.clips]).encode()
        ).hexdigest()

    def split(self, name: str) -> list[Clip]:
        """Return the clips of a split, in order; none if there are none."""
        return [clip for clip in self.clips if clip.split == name]

    def read(self, clip: Clip, start: int = 0, length: int | None = None) -> np.ndarray:
        """Read a clip, or so many samples from `start` on, (n,) float32 at normalised level."""
        assert start >= 0
        end = clip.n_samples if length is None else min(start + length, clip.n_samples)
        samples = self.audio[clip.start + start : clip.start + end]
        return samples.astype(np.float32) / np.float32(32768 * clip.gain)


def duration(seconds: float) -> str:
    """A length of time in the unit that suits it."""
    for unit, length in (("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.2f} {unit}"
    return f"{seconds:.1f} s"
