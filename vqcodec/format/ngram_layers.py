"""The n-gram model's arithmetic: integers, as docs/format.md has them, in floats that hold them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from vqcodec.format.ans_coder import TOTAL

# Fixed-point numbers with so many binary places; a sum of products has those of both its factors.
EMBEDDING_PLACES, CONTEXT_PLACES, WEIGHT_PLACES, UNIT_PLACES = 5, 7, 6, 5
LARGEST_UNIT = 255
LOGIT_PLACES = UNIT_PLACES + WEIGHT_PLACES
POWER_PLACES = 8

# floor(2^(24 - i / 256)): none lies within 2e-5 of an integer, and doubles are 1e-8 off at most.
POWERS = np.array([int(2 ** (24 - i / 256)) for i in range(1 << POWER_PLACES)], np.int64)
# floor(POWERS[i % 256] / 2^(i // 256)), which is 0 at the end.
_SHIFTED = (POWERS >> np.arange(26)[:, None]).ravel()


class Layer:
    """A layer of integers in floats: products with integer inputs add up exactly, in any order.

    Args:
        weights: (Q, inputs, outputs).
        bias: (Q, outputs).
        largest: magnitude of its inputs.
        places: binary ones of the sums that lie behind the point.
        rounding: is added to the sums.
    """

    def __init__(
        self,
        weights: npt.NDArray[np.int8],
        bias: npt.NDArray[np.int16],
        largest: int,
        places: int,
        rounding: float,
    ) -> None:
        is_small = weights.shape[1] * largest * 128 + (1 << 16) <= 1 << 24
        self.dtype, unit = np.dtype(np.float32 if is_small else np.float64), 0.5**places
        self._weights = weights.astype(self.dtype) * self.dtype.type(unit)
        self._bias = (bias * unit + rounding).astype(self.dtype)

    def sums(self, book: int, inputs: np.ndarray) -> npt.NDArray[np.floating]:
        """Inputs (n, inputs) -> (n, outputs)."""
        sums = inputs.astype(self.dtype, copy=False) @ self._weights[book]
        sums += self._bias[book]
        return sums


def write_bounds(logits: npt.NDArray[np.floating], out: npt.NDArray[np.int32]) -> None:
    """Write where the codes' intervals end, whose lengths are their frequencies, TOTAL in all.

    Each is 1, and a share of the rest in proportion to 2^logit.

    Args:
        logits: (n, K), in steps of `POWERS`; they are overwritten.
        out: (n, K + 1), of which the first stay 0.
    """
    every, best = np.arange(len(logits)), logits.argmax(axis=1)
    np.subtract(logits[every, best][:, None], logits, out=logits)
    powers = _SHIFTED.take(logits.astype(np.intp), mode="clip")
    left = TOTAL - logits.shape[1]
    powers *= (left << 32) // powers.sum(axis=1, keepdims=True)
    powers >>= 32
    powers += 1
    powers[every, best] += TOTAL - powers.sum(axis=1)
    powers.cumsum(axis=1, out=out[:, 1:])
