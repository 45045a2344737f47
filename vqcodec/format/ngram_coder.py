"""Entropy coding of codes: a neural n-gram model in integers, and the ANS coder of `constriction`.

The model is that of Bengio et al. 2003, *A Neural Probabilistic Language Model*: an embedding of
each of the codes before, two layers, and a logit for each code that may follow. What a bit means
must not depend on the machine, so all of it is integers, as docs/format.md specifies. Imports no
torch.
"""

from __future__ import annotations

import hashlib
from collections import namedtuple
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from math import isqrt, prod
from types import MappingProxyType
from typing import Any

import constriction
import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open

from vqcodec.compilation import compiled
from vqcodec.errors import CheckpointError
from vqcodec.format.header import NGRAM_DIGEST_LENGTH
from vqcodec.format.stream_records import CodeBlock
from vqcodec.weights import registry

PREFIX = "entropy."
"""Of the names of its tensors in a model file."""
TOTAL = 1 << 24
"""Sum of the frequencies of all codes: what the coder takes, and exact in a float64."""
# Fixed-point numbers with so many binary places; a sum of products has those of both its factors.
EMBEDDING_PLACES, CONTEXT_PLACES, WEIGHT_PLACES, UNIT_PLACES = 5, 7, 6, 5
LARGEST_UNIT = 255
LOGIT_PLACES = UNIT_PLACES + WEIGHT_PLACES
POWER_PLACES = 8
# Sizes by their letters in docs/format.md; R is K + 1.
_SHAPES = {"embedding": "QRD", "context": "QCDH", "context_bias": "QH", "hidden": "QHG",
           "hidden_bias": "QG", "output": "QGK", "output_bias": "QK"}  # fmt: skip
# Within these no sum exceeds 32 bits, and what is multiplied out fits in memory: as many
# contributions as make a quarter GiB, and over a gigabyte of frequencies for a chunk.
_LIMITS = {"C": 64, "D": 1024, "H": 1024, "G": 1024, "K": 1 << 16, "Q": 32}
_MOST_CONTRIBUTIONS, _MOST_FREQUENCIES = 1 << 26, 1 << 17


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


_Weights = namedtuple(
    "_Weights", "contribution, context_bias, hidden, hidden_bias, output, output_bias"
)
"""`NgramModel` as the compiled functions take it: weights int8, what is summed int32.

`contribution` is (Q, K + 1, C, H): what each code adds to the sums 1, ..., C positions later.
"""


@dataclass(frozen=True, eq=False)
class NgramModel:
    """How likely each code is after the C codes before it.

    Codes are counted in time-major order; each of the Q codebooks, of K entries, has weights of
    its own.

    Args:
        embedding: int8, (Q, K + 1, D): a row for each code, the last one for "before the chunk".
        context: int8, (Q, C, D, H): what the row of the code 1, ..., C positions before adds to
            the units of the first layer.
        context_bias: int16, (Q, H).
        hidden: int8, (Q, H, G), from the first layer to the second.
        hidden_bias: int16, (Q, G).
        output: int8, (Q, G, K), from the second layer to the logits, to base 2.
        output_bias: int16, (Q, K).
        streams: Of the streams beside the codes, by their kinds: each a model of its symbols, as
            of the codes of one codebook.

    Raises:
        CheckpointError: If the arrays do not fit together.
    """

    embedding: npt.NDArray[np.int8]
    context: npt.NDArray[np.int8]
    context_bias: npt.NDArray[np.int16]
    hidden: npt.NDArray[np.int8]
    hidden_bias: npt.NDArray[np.int16]
    output: npt.NDArray[np.int8]
    output_bias: npt.NDArray[np.int16]
    streams: Mapping[str, NgramModel] = field(default_factory=dict)

    def __post_init__(self) -> None:
        sizes: dict[str, int] = {}
        for name, letters in _SHAPES.items():
            array = getattr(self, name)
            kind = np.int16 if name.endswith("bias") else np.int8
            if not isinstance(array, np.ndarray) or array.dtype != kind or array.size == 0:
                raise _misfit(f"{name} is not a table of {np.dtype(kind)}")
            if array.ndim != len(letters):
                raise _misfit("they have another number of dimensions")
            expected = tuple(map(sizes.setdefault, letters, array.shape))
            if array.shape != expected:
                raise _misfit(f"{name} is {array.shape}, not {expected}")
            sizes["K"] = sizes["R"] - 1
        if (
            sizes["K"] < 2
            or any(sizes[letter] > limit for letter, limit in _LIMITS.items())
            or prod(sizes[letter] for letter in "QRCH") > _MOST_CONTRIBUTIONS
            or sizes["Q"] * sizes["K"] > _MOST_FREQUENCIES
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
        """4 bytes that name the model in the code files that need it, if those have no streams."""
        return self.digest_with(())

    def digest_with(self, kinds: Iterable[str]) -> bytes:
        """4 bytes that name the model in the code files of some kinds of streams."""
        digest = hashlib.sha256()
        parts = [self._named(PREFIX), *(self.streams[k]._named(f"{PREFIX}{k}.") for k in kinds)]
        for name, array in (pair for part in parts for pair in part.items()):
            digest.update(f"{name} {list(array.shape)}".encode())
            digest.update(array.astype(array.dtype.newbyteorder("<")).tobytes())
        return digest.digest()[:NGRAM_DIGEST_LENGTH]

    def to_tensors(self) -> dict[str, npt.NDArray[np.integer]]:
        """The arrays, those of streams included, by their names in a model file."""
        tensors = self._named(PREFIX)
        for kind, own in self.streams.items():
            tensors |= own._named(f"{PREFIX}{kind}.")
        return tensors

    def _named(self, prefix: str) -> dict[str, npt.NDArray[np.integer]]:
        return {prefix + name: getattr(self, name) for name in _SHAPES}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, npt.NDArray[np.integer]]) -> NgramModel:
        """The opposite of `to_tensors`.

        Raises:
            CheckpointError: If an array is missing, or they do not fit together.
        """
        parts: dict[str, dict[str, Any]] = {"": {}}
        for name, array in tensors.items():
            kind, _, own = name.removeprefix(PREFIX).rpartition(".")
            parts.setdefault(kind, {})[own] = array
        for kind, arrays in parts.items():
            if odd := sorted(arrays.keys() ^ _SHAPES.keys()):
                prefix = PREFIX + kind + "." * bool(kind)
                raise _misfit(f"{', '.join(prefix + name for name in odd)} missing or unknown")
        codes = parts.pop("")
        return cls(**codes, streams={kind: cls(**arrays) for kind, arrays in parts.items()})

    def costs(self, codes: npt.NDArray[np.uint16]) -> npt.NDArray[np.float32]:
        """Bits (n, Q, K) of every code at every position, after the `codes` (Q, n) before it."""
        bits = np.log2(TOTAL / (self._frequencies_less_1(_time_major(codes)) + 1))
        return bits.astype(np.float32).reshape(-1, self.n_codebooks, self.codebook_size)

    def encode(self, chunk: CodeBlock) -> bytes:
        """Encode a chunk: codes (Q, n) below K, and symbols."""
        coder = _AnsCoder()
        # What is pushed last is popped first.
        for kind, symbols in reversed(list(chunk.symbols.items())):
            self.streams[kind]._push(coder, symbols[None])
        self._push(coder, chunk.codes)
        # The coder's last word, and it alone, may begin with zeros.
        return coder.get_compressed().astype("<u4").tobytes().rstrip(b"\0")

    def decode(
        self, payload: bytes, length: int, n_symbols: Mapping[str, int] = MappingProxyType({})
    ) -> CodeBlock:
        """Decode what `encode` made of a chunk.

        Args:
            payload: Of the chunk.
            length: Time steps.
            n_symbols: Of each stream, in their order.

        Raises:
            ValueError: If no codes encode to this payload.
        """
        if payload.endswith(b"\0"):
            raise ValueError("a zero byte at the end of the payload")
        words = np.frombuffer(payload + bytes(-len(payload) % 4), "<u4").astype(np.uint32)
        coder = _AnsCoder(words)
        codes = self._pop(coder, length)
        symbols = {kind: self.streams[kind]._pop(coder, n)[0] for kind, n in n_symbols.items()}
        if not coder.is_empty():
            raise ValueError("a payload that no codes make")
        return CodeBlock(codes, symbols)

    def _push(self, coder: Any, codes: npt.NDArray[np.uint16]) -> None:
        symbols = _time_major(codes)
        frequencies = self._frequencies_less_1(symbols)
        coder.encode_reverse(symbols.astype(np.int32), _Categorical(perfect=False), frequencies)

    def _pop(self, coder: Any, length: int) -> npt.NDArray[np.uint16]:
        """Codes (Q, length)."""
        sums, weights, frequencies = self._start(), self._weights, np.empty(self.codebook_size)
        symbols = np.empty(length * self.n_codebooks, np.uint16)
        for position in range(len(symbols)):
            _predict(weights, sums, position, frequencies)
            symbols[position] = symbol = coder.decode(_Categorical(frequencies, perfect=False))
            _add_context(weights, sums, position, symbol)
        return symbols.reshape(length, self.n_codebooks).T

    def _frequencies_less_1(self, symbols: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """Of every code at every position of a chunk, (positions, K); the coder adds the 1."""
        frequencies = np.empty((len(symbols), self.codebook_size))
        _predict_all(self._weights, self._start(), symbols, frequencies)
        return frequencies

    def __getstate__(self) -> dict[str, Any]:
        """The fields alone: a process that gets the model makes what follows from them itself."""
        return {name: getattr(self, name) for name in (*_SHAPES, "streams")}

    @cached_property
    def _weights(self) -> _Weights:
        n_codebooks, n_context, _, n_units = self.context.shape
        # Sums of 1,024 products of bytes are exact in float32, whose matrix products are the
        # fastest.
        rows, kernels = self.embedding.astype(np.float32), self.context.astype(np.float32)
        contribution = np.empty((n_codebooks, rows.shape[1], n_context, n_units), np.int32)
        for book, distance in np.ndindex(n_codebooks, n_context):
            kernel = kernels[(book + distance + 1) % n_codebooks, distance]
            contribution[book, :, distance] = rows[book] @ kernel
        biases = (self.context_bias, self.hidden_bias, self.output_bias)
        context_bias, hidden_bias, output_bias = (bias.astype(np.int32) for bias in biases)
        return _Weights(
            contribution, context_bias, self.hidden, hidden_bias, self.output, output_bias
        )

    def _start(self) -> npt.NDArray[np.int32]:
        """The sums of the first layer at the positions 0, ..., C - 1, as far as they are known."""
        n_context = self.context.shape[1]
        sums = np.zeros((n_context, self.context.shape[3]), np.int32)
        for position in range(-n_context, 0):
            _add_context(self._weights, sums, position, self.codebook_size)
        return sums


def _time_major(codes: npt.NDArray[np.uint16]) -> npt.NDArray[np.int64]:
    """Codes (Q, n) as (n * Q,)."""
    return np.ascontiguousarray(codes.T).ravel().astype(np.int64)


def _misfit(fault: str) -> CheckpointError:
    return CheckpointError(f"the tables of the entropy coder are damaged: {fault}")


@cache
def packaged() -> dict[bytes, NgramModel]:
    """Those of the models installed with vqcodec, by the models' fingerprints.

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
                    found[fingerprint] = NgramModel.from_tensors(tensors)
        except (SafetensorError, OSError, KeyError, ValueError) as error:
            raise CheckpointError(f"{path}: not a readable model file: {error}") from None
        except CheckpointError as error:
            raise CheckpointError(f"{path}: {error}") from None
    return found


@compiled
def _add_context(weights: _Weights, sums: np.ndarray, position: int, symbol: int) -> None:
    """Add a code to the sums of the C positions after its own.

    Position p has row p % C of `sums`; once its code is known, the row is that of p + C.
    """
    n_codebooks, _, n_context, n_units = weights.contribution.shape
    contribution = weights.contribution[position % n_codebooks, symbol]
    sums[position % n_context] = weights.context_bias[(position + n_context) % n_codebooks]
    for distance in range(n_context):
        own = sums[(position + distance + 1) % n_context]
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
def _predict(weights: _Weights, sums: np.ndarray, position: int, out: np.ndarray) -> None:
    """Write the frequencies of the codes at a position whose sums are complete."""
    n_codebooks, _, n_context, _ = weights.contribution.shape
    book = position % n_codebooks
    first = _units(sums[position % n_context], EMBEDDING_PLACES + CONTEXT_PLACES)
    second = _units(_layer(first, weights.hidden[book], weights.hidden_bias[book]), LOGIT_PLACES)
    _frequencies(_layer(second, weights.output[book], weights.output_bias[book]), out)


@compiled
def _predict_all(weights: _Weights, sums: np.ndarray, symbols: np.ndarray, out: np.ndarray) -> None:
    """Write the frequencies at every position of a chunk, (positions, K)."""
    for position in range(len(symbols)):
        _predict(weights, sums, position, out[position])
        _add_context(weights, sums, position, symbols[position])
