"""Other melodies for the encoder to hear, while the decoder is told the true one.

So codes have no reason to keep the pitch (as the information perturbation of Choi et al. 2021,
NANSY, arXiv 2110.14513, section 3.1).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from vqcodec.data.data_config import PerturbationConfig
from vqcodec.models.pitch import CENT, UNVOICED

DRIFT_TERMS = 5  # half waves in a segment
EQUALIZER_TERMS = 6
LARGEST_SHIFT = 14.0  # semitones

_SEMITONE = 100 * CENT


def pitch_shifts(
    contours: npt.NDArray[np.float32],
    semitones: npt.NDArray[np.float32],
    config: PerturbationConfig,
    generators: Sequence[np.random.Generator],
    n_frames: int,
) -> npt.NDArray[np.float32]:
    """By how much the pitch of segments is shifted, from moment to moment: (B, F) semitones.

    Args:
        contours: (B, N) log F0.
        semitones: (B,) the shifts where the mean pitch is not given.
        config: `mean_hz`, `contour_scale` and `drift_semitones` are looked at.
        generators: one for each segment.
        n_frames: F, evenly spaced over the segments.
    """
    rows = zip(contours, semitones, generators, strict=True)
    return np.stack([_shifts(*row, config, n_frames) for row in rows]).astype(np.float32)


def _shifts(
    contour: npt.NDArray[np.float32],
    shift: float,
    rng: np.random.Generator,
    config: PerturbationConfig,
    n_frames: int,
) -> npt.NDArray[np.float64]:
    places, voiced = np.arange(len(contour)), contour != UNVOICED
    own = np.interp(places, places[voiced], contour[voiced]) if voiced.any() else contour * 0.0
    scale = rng.uniform(*config.contour_scale)
    if config.mean_hz is not None and voiced.any():
        low, high = map(math.log, config.mean_hz)
        shift = (rng.uniform(low, high) - own.mean()) / _SEMITONE
    at = np.arange(n_frames) * (len(contour) / n_frames)
    movement = np.interp(at, places, (own - own.mean()) / _SEMITONE)
    return (shift + (scale - 1) * movement + _drift(rng, config, n_frames)).clip(
        -LARGEST_SHIFT, LARGEST_SHIFT
    )


def _drift(
    rng: np.random.Generator, config: PerturbationConfig, n_frames: int
) -> npt.NDArray[np.float64]:
    """(F,) a random slow contour, of `drift_semitones` root mean square."""
    amplitudes = rng.standard_normal(DRIFT_TERMS) * config.drift_semitones
    waves = np.cos(np.pi * np.outer(np.arange(1, DRIFT_TERMS + 1), np.linspace(0, 1, n_frames)))
    drift: npt.NDArray[np.float64] = (2 / DRIFT_TERMS) ** 0.5 * amplitudes @ waves
    return drift


def equalizers(
    config: PerturbationConfig, generators: Sequence[np.random.Generator]
) -> npt.NDArray[np.float32] | None:
    """(B, K) random colours for `perturb`, of `equalizer_db` root mean square; None for none."""
    if not config.equalizer_db:
        return None
    nepers = config.equalizer_db * (2 / EQUALIZER_TERMS) ** 0.5 * math.log(10) / 20
    rows = [nepers * rng.standard_normal(EQUALIZER_TERMS) for rng in generators]
    return np.stack(rows).astype(np.float32)
