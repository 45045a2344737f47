"""Asymmetric numeral systems: a stack of symbols that takes the bits their frequencies ask for.

Duda 2013, arXiv 1311.2540, in the variant that docs/format.md specifies.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

PRECISION = 24
TOTAL = 1 << PRECISION
"""Sum of the frequencies of all symbols."""


class AnsCoder:
    """A stack of symbols: what is pushed last is popped first.

    Args:
        words: of 32 bits, what `words` gave; the last one, if any, is not 0.
    """

    def __init__(self, words: Iterable[int] = ()) -> None:
        self._words, self._state = list(words), 0
        self._fill()
        self._fill()

    def push(self, start: int, end: int) -> None:
        """Push a symbol whose interval of [0, TOTAL] is from `start` to `end`."""
        frequency = end - start
        if self._state >= frequency << (64 - PRECISION):
            self._words.append(self._state & 0xFFFFFFFF)
            self._state >>= 32
        quotient, rest = divmod(self._state, frequency)
        self._state = (quotient << PRECISION) + rest + start

    def pop(self, bounds: npt.NDArray[np.int32]) -> int:
        """Pop a symbol, the i-th of which has its interval from `bounds[i]` to `bounds[i + 1]`."""
        place = self._state % TOTAL
        # Of another type than the bounds it would have them all converted.
        symbol = int(bounds.searchsorted(bounds.dtype.type(place), "right")) - 1
        start, end = bounds[symbol : symbol + 2].tolist()
        self._state = (self._state >> PRECISION) * (end - start) + place - start
        self._fill()
        return symbol

    def words(self) -> list[int]:
        """All that is on the stack, which is empty where there are no words."""
        words, state = self._words.copy(), self._state
        while state:
            words.append(state & 0xFFFFFFFF)
            state >>= 32
        return words

    def _fill(self) -> None:
        if self._state < 1 << 32 and self._words:
            self._state = self._state << 32 | self._words.pop()
