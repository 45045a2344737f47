"""The pitch of a voice beside its codes: voicing, and log F0 about the speaker's mean.

A contour is (N,) float32, one value for each code, at its middle: the natural logarithm of F0 in
Hz, or `UNVOICED`. Quantised about the speaker's mean, as in Polyak et al. 2021 (arXiv 2104.00355,
section 2), it tells how a voice rises and falls, and not whose it is. Knows no torch.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from vqcodec.models.config import PitchConfig

UNVOICED = 0.0
# Of voices, where nothing is voiced that would tell: there is a mean all the same.
USUAL_HZ = 150.0
CENT = math.log(2) / 1200
# The decoder is told absolute log F0, in bins from the lowest voices to the highest.
N_BINS, LOWEST_HZ, HIGHEST_HZ = 64, 52.0, 550.0
SAMPLE_RATE = 16_000  # at which it is tracked

Contour = npt.NDArray[np.float32]


class PitchQuantizer:
    """Contours to symbols and back, as docs/format.md defines them.

    A symbol stands for r codes, and 0 is unvoiced; `step` is from a symbol to the next, in cents.
    """

    def __init__(self, codes_per_symbol: int, alphabet_size: int, step: int) -> None:
        self.codes_per_symbol, self.alphabet_size = codes_per_symbol, alphabet_size
        self.step, self.middle = step * CENT, alphabet_size // 2

    def encode(self, contour: Contour, mean: float) -> npt.NDArray[np.uint16]:
        """Quantise a contour (N,) about the log F0 of the speaker: (N // r,) symbols.

        They are voiced if half of their codes or more are, and then at their mean; held at the ends
        of the alphabet.
        """
        r = self.codes_per_symbol
        n_symbols = len(contour) // r
        frames = contour[: n_symbols * r].astype(np.float64).reshape(n_symbols, r)
        is_voiced = frames != UNVOICED
        n_voiced = is_voiced.sum(1)
        pooled = np.where(is_voiced, frames, 0).sum(1) / np.maximum(n_voiced, 1)
        symbols = np.rint((pooled - mean) / self.step) + self.middle
        symbols = symbols.clip(1, self.alphabet_size - 1)
        return np.where(2 * n_voiced >= r, symbols, 0).astype(np.uint16)

    def decode(self, symbols: npt.NDArray[np.uint16], mean: float, n_codes: int) -> Contour:
        """The contour (n_codes,) of symbols (M,), on lines between the middles of voiced ones.

        Codes after the last symbol are as it says; all are unvoiced where there is no symbol.
        """
        if not len(symbols):
            return np.full(n_codes, UNVOICED, np.float32)
        r, last, code = self.codes_per_symbol, len(symbols) - 1, np.arange(n_codes)
        value = (symbols.astype(np.float64) - self.middle) * self.step + mean
        voiced = (symbols > 0).astype(np.float64)
        place = (code + 0.5) / r - 0.5
        left = np.floor(place).astype(int)
        part = place - left
        before, after = left.clip(0, last), (left + 1).clip(0, last)
        weights = (1 - part) * voiced[before], part * voiced[after]
        total = np.maximum(weights[0] + weights[1], 1e-6)
        line = (weights[0] * value[before] + weights[1] * value[after]) / total
        is_voiced = voiced[(code // r).clip(max=last)] > 0
        return np.where(is_voiced, line, UNVOICED).astype(np.float32)

    def n_settled(self, n_symbols: int) -> int:
        """Codes whose part of the contour no later symbol changes."""
        return max(0, math.ceil((n_symbols - 0.5) * self.codes_per_symbol - 0.5))


class PitchStream:
    """What a decoder is told of the pitch; see `Stream`."""

    channels = N_BINS + 1

    def __init__(self, config: PitchConfig) -> None:
        self.quantizer = PitchQuantizer(
            config.codes_per_symbol, config.alphabet_size, config.step_cents
        )

    def stored(self, contour: Contour) -> Contour:
        """What is left of the contour of a whole recording when it has been quantised."""
        mean = mean_log_f0(contour)
        return self.quantizer.decode(self.quantizer.encode(contour, mean), mean, len(contour))

    @staticmethod
    def features(contour: Contour) -> npt.NDArray[np.float32]:
        """Triangular bins that sum to 1 where a contour is voiced; elsewhere the last channel is 1.

        From (..., N) to (..., C, N).
        """
        centres = np.linspace(math.log(LOWEST_HZ), math.log(HIGHEST_HZ), N_BINS, dtype=np.float32)
        spacing = np.float32(math.log(HIGHEST_HZ / LOWEST_HZ) / (N_BINS - 1))
        log_f0 = contour.astype(np.float32)[..., None, :]
        is_voiced = log_f0 != UNVOICED
        distance = np.abs(log_f0.clip(centres[0], centres[-1]) - centres[:, None]) / spacing
        bins = np.maximum(1 - distance, 0) * is_voiced
        return np.concatenate([bins, ~is_voiced], axis=-2, dtype=np.float32)


def mean_log_f0(contour: Contour) -> float:
    """Of what is voiced of a contour (N,), or of `USUAL_HZ`."""
    voiced = contour[contour != UNVOICED]
    return float(voiced.mean(dtype=np.float64)) if len(voiced) else math.log(USUAL_HZ)


def bent(contour: Contour, mean: float, new_mean: float, stretch: float = 1.0) -> Contour:
    """A contour about another mean log F0, what it does about it multiplied; unvoiced stays so."""
    bends = np.float32(new_mean) + np.float32(stretch) * (contour - np.float32(mean))
    return np.where(contour != UNVOICED, bends, np.float32(UNVOICED))
