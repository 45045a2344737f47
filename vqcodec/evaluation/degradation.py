"""Conditions that a codec meets in use: noises, a room, a telephone, faults of level.

All are synthesized here, apart from any training, and drawn anew for every recording by its name:

    noise-DB    pink noise (every octave is as loud), DB below the recording by mean powers
    babble-DB   six recordings of other people in the same split at a time, DB below likewise
    room        a room of half a second's reverberation, as loud as the direct sound
    telephone   300 to 3400 Hz at 8 kHz, in the 8 bits of mu-law (ITU-T G.711, as the curve)
    dc          a tenth of full scale added
    quiet       40 dB softer, rounded to 16 bits; what is decoded of it is turned up again

Waveforms are float arrays of shape (T,), full scale 1, at `SAMPLE_RATE`.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence

import numpy as np
import soxr

from vqcodec.errors import VqcodecError
from vqcodec.evaluation.quality import SAMPLE_RATE
from vqcodec.extras import library

CLEAN = "clean"
N_BABBLERS = 6

_FIXED = ("room", "telephone", "dc", "quiet")
_WITH_RATIO = ("noise", "babble")
_OFFSET, _QUIET_DB = 0.1, 40.0
_REVERBERATION_S, _FIRST_REFLECTION_S = 0.5, 0.003
_TELEPHONE_RATE, _TELEPHONE_BAND = 8000, (300.0, 3400.0)


def check_condition(name: str) -> None:
    """Raise a VqcodecError, which names the conditions that there are, for any other."""
    kind, _, ratio = name.partition("-")
    is_number = ratio.removeprefix("-").isdecimal()
    if not (name in _FIXED or (kind in _WITH_RATIO and is_number)):
        raise VqcodecError(
            f"{name}: no such condition; use noise-DB or babble-DB with a signal-to-noise ratio, "
            f"such as noise-10, or {', '.join(_FIXED)}"
        )


def needs_babblers(condition: str) -> bool:
    """Whether it is made of other recordings."""
    return condition.startswith("babble-")


def degrade(
    waveform: np.ndarray, condition: str, seed: str, babblers: Sequence[np.ndarray] = ()
) -> np.ndarray:
    """A recording (T,), T > 0, as it is in a condition: (T,) float32.

    The draw depends on `seed` and the condition. Only babble uses `babblers`, one or more, (any,)
    each.
    """
    rng = np.random.default_rng(zlib.crc32(f"{condition} {seed}".encode()))
    kind, _, ratio = condition.partition("-")
    match kind:
        case "noise":
            degraded = _mix(waveform, _pink_noise(len(waveform), rng), float(ratio))
        case "babble":
            degraded = _mix(waveform, _babble(len(waveform), babblers, rng), float(ratio))
        case "room":
            degraded = _in_a_room(waveform, rng)
        case "telephone":
            degraded = _by_telephone(waveform)
        case "dc":
            degraded = np.clip(waveform + _OFFSET, -1, 1)
        case _:
            degraded = np.round(waveform * 10 ** (-_QUIET_DB / 20) * 32768) / 32768
    return degraded.astype(np.float32)


def turned_up(waveform: np.ndarray, condition: str) -> np.ndarray:
    """What is decoded of a recording in a condition, at the level of the recording before it."""
    return waveform * np.float32(10 ** (_QUIET_DB / 20)) if condition == "quiet" else waveform


def _mix(waveform: np.ndarray, noise: np.ndarray, ratio_db: float) -> np.ndarray:
    """Both, the noise that much below the waveform by their mean powers."""
    power, noise_power = (float(np.square(x, dtype=np.float64).mean()) for x in (waveform, noise))
    if not noise_power:
        return waveform
    return waveform + noise * math.sqrt(power / noise_power) * 10 ** (-ratio_db / 20)


def _pink_noise(n_samples: int, rng: np.random.Generator) -> np.ndarray:
    spectrum = np.fft.rfft(rng.standard_normal(n_samples))
    frequencies = np.fft.rfftfreq(n_samples, 1 / SAMPLE_RATE)
    return np.fft.irfft(spectrum / np.sqrt(np.maximum(frequencies, 20.0)), n_samples)


def _babble(n_samples: int, babblers: Sequence[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """Each repeats itself from anywhere on, all as loud."""
    total = np.zeros(n_samples)
    for voice in babblers:
        start = int(rng.integers(len(voice)))
        said = np.resize(np.roll(voice, -start), n_samples)
        total += said / max(float(np.sqrt(np.square(said).mean())), 1e-9)
    return total


def _in_a_room(waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Reflections as noise that decays by 60 dB in half a second (Polack 1988, thesis, Le Mans)."""
    times = np.arange(round(_REVERBERATION_S * SAMPLE_RATE)) / SAMPLE_RATE
    response = rng.standard_normal(len(times)) * 10 ** (-3 * times / _REVERBERATION_S)
    response[times < _FIRST_REFLECTION_S] = 0
    response /= np.sqrt(np.square(response).sum())
    response[0] = 1  # the direct sound
    n = len(waveform) + len(response) - 1
    return np.fft.irfft(np.fft.rfft(waveform, n) * np.fft.rfft(response, n), n)[: len(waveform)]


def _by_telephone(waveform: np.ndarray) -> np.ndarray:
    narrow = soxr.resample(waveform.astype(np.float32), SAMPLE_RATE, _TELEPHONE_RATE)
    spectrum = np.fft.rfft(narrow)
    frequencies = np.fft.rfftfreq(len(narrow), 1 / _TELEPHONE_RATE)
    low, high = _TELEPHONE_BAND
    spectrum[(frequencies < low) | (frequencies > high)] = 0
    band = np.clip(np.fft.irfft(spectrum, len(narrow)), -1, 1)
    librosa = library("librosa")
    levels = np.round(librosa.mu_compress(band, quantize=False) * 127) / 127
    expanded = librosa.mu_expand(levels, quantize=False)
    wide = soxr.resample(expanded.astype(np.float32), _TELEPHONE_RATE, SAMPLE_RATE)
    return np.pad(wide, (0, max(0, len(waveform) - len(wide))))[: len(waveform)]
