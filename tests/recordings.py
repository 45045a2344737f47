"""Speech to test with: what the synthesizers say in samples/, whole or cut."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr

SAMPLES = Path(__file__).parents[1] / "samples"
RATE = 16000
# What rms says first, and until when, the pause behind it included.
SAID, SAID_S = "A quick recording becomes a short string of numbers", 3.62


@cache
def _whole(voice: str) -> np.ndarray:
    samples, sample_rate = soundfile.read(SAMPLES / f"{voice}.wav", dtype="float32")
    return soxr.resample(samples, sample_rate, RATE)


def spoken(voice: str, start_s: float = 0.0, stop_s: float | None = None) -> np.ndarray:
    """(T,) float32 at 16 kHz of slt (a woman), rms (a man) or espeak (a machine)."""
    stop = None if stop_s is None else round(stop_s * RATE)
    return _whole(voice)[round(start_s * RATE) : stop].copy()


def said() -> np.ndarray:
    """What rms says first, and silence, 4.6 s in all.

    DNSMOS repeats what is shorter than 9 s until it is longer: of this it hears one window.
    """
    speech = spoken("rms", 0.0, SAID_S)
    return np.pad(speech, (0, round(4.6 * RATE) - len(speech)))


def slower(samples: np.ndarray, ratio: float) -> np.ndarray:
    """As from a tape, in another voice: deeper, or, where the ratio is below 1, higher."""
    return soxr.resample(samples, RATE, RATE * ratio)


def write(path: Path, samples: np.ndarray, sample_rate: int = RATE, subtype: str = "") -> Path:
    """A sound file of the format that its name tells, and its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, sample_rate, subtype or None)
    return path


def write_corpus(root: Path, clips: Mapping[str, tuple[Any, ...]]) -> Path:
    """A folder with a manifest: name -> speaker, samples or None, split (test) and text (none)."""
    lines = ["path,speaker,split,text"]
    for name, (speaker, samples, *more) in clips.items():
        split, text = (*more, *("test", "")[len(more) :])
        write(root / f"{name}.wav", np.zeros(0) if samples is None else samples)
        lines.append(f"{name}.wav,{speaker},{split},{text}")
    (root / "manifest.csv").write_text("\n".join(lines) + "\n")
    return root
