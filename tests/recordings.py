"""Speech to test with: what the synthesizers say in samples/, whole or cut."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import soundfile
import soxr

SAMPLES = Path(__file__).parents[1] / "samples"
RATE = 16000
# What slt says in the first seconds, which are the fixture `speech`.
SPEECH_S, SAID = 2.27, "The codes hold what is said, and a separate vector"


@cache
def _whole(voice: str) -> np.ndarray:
    samples, sample_rate = soundfile.read(SAMPLES / f"{voice}.wav", dtype="float32")
    return soxr.resample(samples, sample_rate, RATE)


def spoken(voice: str, start_s: float = 0.0, stop_s: float | None = None) -> np.ndarray:
    """(T,) float32 at 16 kHz of slt (a woman), rms (a man) or espeak (a machine)."""
    stop = None if stop_s is None else round(stop_s * RATE)
    return _whole(voice)[round(start_s * RATE) : stop].copy()


def write(path: Path, samples: np.ndarray, sample_rate: int = RATE, subtype: str = "") -> Path:
    """A sound file of the format that its name tells, and its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, sample_rate, subtype or None)
    return path
