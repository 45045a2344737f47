"""Entropy coding of codes: a neural n-gram in integers, and the ANS coder of `constriction`.

The n-gram is that of Bengio et al. 2003, *A Neural Probabilistic Language Model*: a row of a table
for each of the codes before, two layers, and a logit for each code that may follow. What a bit
means must not depend on the machine, so all of it is integers, as docs/format.md specifies.
Imports no torch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache, cached_property
from math import isqrt
from typing import Any, NamedTuple

import constriction
import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open

from vqcodec.compilation import compiled
from vqcodec.errors import CheckpointError
from vqcodec.weights import registry

PREFIX = "entropy."
"""Of the names of the tables among a model's tensors."""
DIGEST_LENGTH = 4
TOTAL = 1 << 24
"""Of all frequencies: the coder's, and exact in a float64."""
# Values have so many binary places; a sum of products has those of both its factors.
EMBEDDING_PLACES, CONTEXT_PLACES, WEIGHT_PLACES, UNIT_PLACES = 5, 7, 6, 5
LARGEST_UNIT = 255
LOGIT_PLACES = UNIT_PLACES + WEIGHT_PLACES
POWER_PLACES = 8
_LIMITS = {
    "context": 64,
    "width": 1024,
    "codebook_size": 1 << 16,
    "n_codebooks": 32,
    "contributions": 1 << 26,  # a quarter GiB of int32
    "frequencies": 1 << 17,  # of all codebooks; over a gigabyte for a chunk
}


def _powers() -> npt.NDArray[np.int64]:
    """floor(2^(24 - i / 256)) for i = 0, ..., 255, without a float: eight square roots of 2^n."""
    values = []
    for index in range(1 << POWER_PLACES):
        power = 1 << ((24 << POWER_PLACES) - index)
        for _ in range(POWER_PLACES):
            power = isqrt(power)
        values.append(power)
    return np.array(values, np.int64)


POWERS = _powers()
_AnsCoder = constriction.stream.stack.AnsCoder
_Categorical = constriction.stream.model.Categorical


class _Weights(NamedTuple):
    """`NgramTables` as the compiled functions take them: weights int8, what is summed int32.

    `contribution` is (Q, K + 1, C, H): what each code adds to the sums 1, ..., C places later.
    """

    contribution: np.ndarray
    context_bias: np.ndarray
    hidden: np.ndarray
    hidden_bias: np.ndarray
    output: np.ndarray
    output_bias: np.ndarray


@dataclass(frozen=True, eq=False)
class NgramTables:
    """The integers that say how likely each code is after the C codes before it.

    Codes are counted in time-major order; each of the Q codebooks, of K entries, has its own
    tables.

    Args:
        embedding: int8, (Q, K + 1, D): a row for each code, the last one for "before the chunk".
        context: int8, (Q, C, D, H): what the row of the code 1, ..., C places before adds to the
            units of the first layer.
        context_bias: int16, (Q, H).
        hidden: int8, (Q, H, G), from the first layer to the second.
        hidden_bias: int16, (Q, G).
        output: int8, (Q, G, K), from the second layer to the logits, to base 2.
        output_bias: int16, (Q, K).

    Raises:
        CheckpointError: If the tables do not fit together.
    """

    embedding: npt.NDArray[np.int8]
    context: npt.NDArray[np.int8]
    context_bias: npt.NDArray[np.int16]
    hidden: npt.NDArray[np.int8]
    hidden_bias: npt.NDArray[np.int16]
    output: npt.NDArray[np.int8]
    output_bias: npt.NDArray[np.int16]

    def __post_init__(self) -> None:
        for field in fields(self):
            table = getattr(self, field.name)
            kind = np.int16 if field.name.endswith("bias") else np.int8
            if not isinstance(table, np.ndarray) or table.dtype != kind or table.size == 0:
                raise _misfit(f"{field.name} is not a table of {np.dtype(kind)}")
        if self.embedding.ndim != 3 or self.context.ndim != 4 or self.hidden.ndim != 3:
            raise _misfit("they have another number of dimensions")
        n_codebooks, rows, width = self.embedding.shape
        _, context, _, first = self.context.shape
        second, size = self.hidden.shape[2], rows - 1
        expected = {
            "context": (n_codebooks, context, width, first),
            "context_bias": (n_codebooks, first),
            "hidden": (n_codebooks, first, second),
            "hidden_bias": (n_codebooks, second),
            "output": (n_codebooks, second, size),
            "output_bias": (n_codebooks, size),
        }
        for name, shape in expected.items():
            if getattr(self, name).shape != shape:
                raise _misfit(f"{name} is {getattr(self, name).shape}, not {shape}")
        # Within these no sum exceeds 32 bits, and what `_weights` multiplies out fits in memory.
        if (
            max(width, first, second) > _LIMITS["width"]
            or context > _LIMITS["context"]
            or not 2 <= size <= _LIMITS["codebook_size"]
            or n_codebooks > _LIMITS["n_codebooks"]
            or n_codebooks * rows * context * first > _LIMITS["contributions"]
            or n_codebooks * size > _LIMITS["frequencies"]
        ):
            raise _misfit("they are larger than any that vqcodec makes")

    @property
    def n_codebooks(self) -> int:
        """Q."""
        return self.embedding.shape[0]

    @property
    def codebook_size(self) -> int:
        """K."""
        return self.output.shape[2]

    @cached_property
    def digest(self) -> bytes:
        """4 bytes that name the tables: files of codes that need them say so."""
        digest = hashlib.sha256()
        for name, table in self.to_tensors().items():
            digest.update(f"{name} {list(table.shape)}".encode())
            digest.update(table.astype(table.dtype.newbyteorder("<")).tobytes())
        return digest.digest()[:DIGEST_LENGTH]

    def to_tensors(self) -> dict[str, npt.NDArray[np.integer]]:
        """The tables by their names in a model file."""
        return {PREFIX + name: table for name, table in self.__getstate__().items()}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, npt.NDArray[np.integer]]) -> NgramTables:
        """The opposite of `to_tensors`.

        Raises:
            CheckpointError: If a table is missing, or the tables do not fit together.
        """
        names = {PREFIX + field.name for field in fields(cls)}
        if tensors.keys() != names:
            raise _misfit(f"{', '.join(sorted(tensors.keys() ^ names))} missing or unknown")
        tables: dict[str, Any] = {name.removeprefix(PREFIX): tensors[name] for name in tensors}
        return cls(**tables)

    def costs(self, codes: npt.NDArray[np.uint16]) -> npt.NDArray[np.float32]:
        """What every code would cost at every place, after the codes that stand before it.

        Args:
            codes: (Q, n), below K.

        Returns:
            Bits, (n, Q, K).
        """
        bits = np.log2(TOTAL / (self._frequencies_less_1(_in_order(codes)) + 1))
        return bits.astype(np.float32).reshape(-1, self.n_codebooks, self.codebook_size)

    def encode(self, codes: npt.NDArray[np.uint16]) -> bytes:
        """Encode a chunk.

        Args:
            codes: (Q, n), below K.
        """
        symbols = _in_order(codes)
        frequencies = self._frequencies_less_1(symbols)
        coder = _AnsCoder()
        coder.encode_reverse(symbols.astype(np.int32), _Categorical(perfect=False), frequencies)
        # The coder's last word, and it alone, may begin with zeros.
        return coder.get_compressed().astype("<u4").tobytes().rstrip(b"\0")

    def decode(self, payload: bytes, length: int) -> npt.NDArray[np.uint16]:
        """Decode a chunk.

        Args:
            payload: What `encode` made.
            length: Time steps.

        Returns:
            Codes, (Q, length).

        Raises:
            ValueError: If no codes encode to this payload.
        """
        if payload.endswith(b"\0"):
            raise ValueError("a zero byte at the end of the payload")
        coder = _AnsCoder(
            np.frombuffer(payload + bytes(-len(payload) % 4), "<u4").astype(np.uint32)
        )
        sums, weights = self._start(), self._weights
        frequencies = np.empty(self.codebook_size)
        symbols = np.empty(length * self.n_codebooks, np.uint16)
        for place in range(len(symbols)):
            _predict(weights, sums, place, frequencies)
            symbols[place] = symbol = coder.decode(_Categorical(frequencies, perfect=False))
            _remember(weights, sums, place, symbol)
        if not coder.is_empty():
            raise ValueError("a payload that no codes make")
        return symbols.reshape(length, self.n_codebooks).T

    def _frequencies_less_1(self, symbols: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """Of every code at every place of a chunk, (places, K); the coder adds the 1."""
        frequencies = np.empty((len(symbols), self.codebook_size))
        _predict_all(self._weights, self._start(), symbols, frequencies)
        return frequencies

    def __getstate__(self) -> dict[str, Any]:
        """Without what follows from the tables: a process that gets them makes it itself."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @cached_property
    def _weights(self) -> _Weights:
        n_codebooks, n_context, _, _ = self.context.shape
        # Sums of 1,024 products of bytes are exact in float32, whose matrix products are the
        # fastest.
        rows, kernels = self.embedding.astype(np.float32), self.context.astype(np.float32)
        shape = (n_codebooks, rows.shape[1], n_context, kernels.shape[3])
        contribution = np.empty(shape, np.int32)
        for book in range(n_codebooks):
            for distance in range(n_context):
                kernel = kernels[(book + distance + 1) % n_codebooks, distance]
                contribution[book, :, distance] = rows[book] @ kernel
        return _Weights(
            contribution,
            self.context_bias.astype(np.int32),
            self.hidden,
            self.hidden_bias.astype(np.int32),
            self.output,
            self.output_bias.astype(np.int32),
        )

    def _start(self) -> npt.NDArray[np.int32]:
        """The sums of the first layer at the places 0, ..., C - 1, as far as they are known."""
        n_context = self.context.shape[1]
        sums = np.zeros((n_context, self.context.shape[3]), np.int32)
        for place in range(-n_context, 0):
            _remember(self._weights, sums, place, self.codebook_size)
        return sums


def _in_order(codes: npt.NDArray[np.uint16]) -> npt.NDArray[np.int64]:
    """Codes (Q, n) time-major, (n * Q,)."""
    return np.ascontiguousarray(codes.T).ravel().astype(np.int64)


def _misfit(fault: str) -> CheckpointError:
    return CheckpointError(f"the tables of the entropy coder are damaged: {fault}")


@cache
def packaged() -> dict[bytes, NgramTables]:
    """The tables of the models installed with vqcodec, by the models' fingerprints.

    Raises:
        CheckpointError: If a model file is damaged.
    """
    found = {}
    for path in registry.packaged().values():
        try:
            with safe_open(path, framework="numpy") as file:
                names = [name for name in file.keys() if name.startswith(PREFIX)]  # noqa: SIM118
                tensors = {name: file.get_tensor(name) for name in names}
                if tensors:
                    fingerprint = bytes.fromhex(file.metadata()["fingerprint"])
                    found[fingerprint] = NgramTables.from_tensors(tensors)
        except (SafetensorError, OSError, KeyError, ValueError) as error:
            raise CheckpointError(f"{path}: not a readable model file: {error}") from None
        except CheckpointError as error:
            raise CheckpointError(f"{path}: {error}") from None
    return found


@compiled
def _remember(weights: _Weights, sums: np.ndarray, place: int, symbol: int) -> None:
    """Add a code to the sums of the C places after its own.

    Place p has row p % C of `sums`; when its code is known, the row becomes that of place p + C.
    """
    n_codebooks, _, n_context, n_units = weights.contribution.shape
    contribution = weights.contribution[place % n_codebooks, symbol]
    sums[place % n_context] = weights.context_bias[(place + n_context) % n_codebooks]
    for distance in range(n_context):
        own = sums[(place + distance + 1) % n_context]
        for j in range(n_units):
            own[j] += contribution[distance, j]


@compiled
def _units(sums: np.ndarray, places: int) -> np.ndarray:
    """Sums of so many binary places, rounded to units of a layer."""
    excess = places - UNIT_PLACES
    units = np.empty(len(sums), np.int32)
    for j in range(len(sums)):
        units[j] = min(max((sums[j] + (1 << (excess - 1))) >> excess, 0), LARGEST_UNIT)
    return units


@compiled
def _layer(units: np.ndarray, weights: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """The sums bias + units @ weights, of int8 weights.

    Most units are zero. Of the others four are taken at a time, so that the sums, which a large
    codebook has many of, are read and written a quarter as often.
    """
    sums = bias.copy()
    rows = np.flatnonzero(units)
    n_fours = len(rows) // 4
    for four in range(n_fours):
        a, b, c, d = rows[4 * four : 4 * four + 4]
        for j in range(len(sums)):
            sums[j] += (
                units[a] * np.int32(weights[a, j])
                + units[b] * np.int32(weights[b, j])
                + units[c] * np.int32(weights[c, j])
                + units[d] * np.int32(weights[d, j])
            )
    for a in rows[4 * n_fours :]:
        for j in range(len(sums)):
            sums[j] += units[a] * np.int32(weights[a, j])
    return sums


@compiled
def _frequencies(logits: np.ndarray, out: np.ndarray) -> None:
    """Write the frequencies, less 1, of all codes, TOTAL - K in all, in proportion to 2^logit."""
    best = np.argmax(logits)
    powers = np.empty(len(logits), np.int64)
    for code in range(len(logits)):
        below = (logits[best] - logits[code]) >> (LOGIT_PLACES - POWER_PLACES)
        whole, part = below >> POWER_PLACES, below & ((1 << POWER_PLACES) - 1)
        powers[code] = POWERS[part] >> min(whole, 31)
    left = TOTAL - len(logits)
    # A division for each code would take longer than the layers.
    scale = (left << 32) // powers.sum()
    for code in range(len(logits)):
        frequency = (powers[code] * scale) >> 32
        out[code] = frequency
        left -= frequency
    out[best] += left


@compiled
def _predict(weights: _Weights, sums: np.ndarray, place: int, out: np.ndarray) -> None:
    """Write the frequencies of the codes at a place whose sums are complete."""
    n_codebooks, _, n_context, _ = weights.contribution.shape
    book = place % n_codebooks
    first = _units(sums[place % n_context], EMBEDDING_PLACES + CONTEXT_PLACES)
    second = _units(_layer(first, weights.hidden[book], weights.hidden_bias[book]), LOGIT_PLACES)
    _frequencies(_layer(second, weights.output[book], weights.output_bias[book]), out)


@compiled
def _predict_all(weights: _Weights, sums: np.ndarray, symbols: np.ndarray, out: np.ndarray) -> None:
    """Write the frequencies at every place of a chunk, (places, K)."""
    for place in range(len(symbols)):
        _predict(weights, sums, place, out[place])
        _remember(weights, sums, place, symbols[place])
