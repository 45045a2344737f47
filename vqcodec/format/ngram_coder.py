"""Entropy coding of codes: a neural n-gram model in integers, and the ANS coder of `constriction`.

The model is that of Bengio et al. 2003, *A Neural Probabilistic Language Model*: an embedding of
each of the codes before, two layers, and a logit for each code that may follow. What a bit means
must not depend on the machine, so all of it is integers, as docs/format.md specifies. Imports no
torch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from math import isqrt, prod
from types import MappingProxyType
from typing import Any

import constriction
import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view
from safetensors import SafetensorError, safe_open
from threadpoolctl import ThreadpoolController

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
# floor(POWERS[i % 256] / 2^(i // 256)), which is 0 at the end.
_SHIFTED = (POWERS >> np.arange(26)[:, None]).ravel()
_AnsCoder = constriction.stream.stack.AnsCoder
_Categorical = constriction.stream.model.Categorical


_ROWS = 64  # positions whose frequencies are made at a time: what they take on the way is large


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
        """Encode a chunk, and read it back.

        Args:
            chunk: codes (Q, n) below K, and symbols.

        Raises:
            ValueError: If something else was read.
        """
        coder, written = _AnsCoder(), []
        # What is pushed last is popped first.
        for kind, symbols in reversed(list(chunk.symbols.items())):
            written.append(self.streams[kind]._push(coder, symbols[None]))
        written.append(self._push(coder, chunk.codes))
        words = coder.get_compressed()
        reader = _AnsCoder(words)
        for pushed, frequencies in reversed(written):
            read = reader.decode(_Categorical(perfect=False), frequencies)
            if not np.array_equal(read, pushed):
                raise ValueError("other codes were read than written")
        # The coder's last word, and it alone, may begin with zeros.
        return words.astype("<u4").tobytes().rstrip(b"\0")

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

    def _push(
        self, coder: Any, codes: npt.NDArray[np.uint16]
    ) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float64]]:
        """Push codes (Q, n); returns them, (n * Q,), and their frequencies, less 1."""
        symbols = _time_major(codes)
        frequencies = self._frequencies_less_1(symbols)
        coder.encode_reverse(symbols, _Categorical(perfect=False), frequencies)
        return symbols, frequencies

    def _pop(self, coder: Any, length: int) -> npt.NDArray[np.uint16]:
        """Codes (Q, length)."""
        n_context, n_symbols = self.context.shape[1], length * self.n_codebooks
        known = self._known(n_symbols)
        frequencies = np.empty((1, self.codebook_size))
        symbols = np.empty(n_symbols, np.uint16)
        with _blas().limit(limits=1):
            for position in range(n_symbols):
                book = position % self.n_codebooks
                before = known[position : position + n_context].reshape(1, -1)
                self._predict(book, before, frequencies)
                symbol = coder.decode(_Categorical(frequencies[0], perfect=False))
                symbols[position] = symbol
                known[n_context + position] = self.embedding[book, symbol]
        return symbols.reshape(length, self.n_codebooks).T

    def _frequencies_less_1(self, symbols: npt.NDArray[np.int32]) -> npt.NDArray[np.float64]:
        """Of every code at every position of a chunk, (positions, K); the coder adds the 1."""
        known, n_codebooks = self._known(len(symbols)), self.n_codebooks
        books = np.arange(len(symbols)) % n_codebooks
        known[len(known) - len(symbols) :] = self.embedding[books, symbols]
        windows = sliding_window_view(known, (self.context.shape[1], known.shape[1]))[:, 0]
        frequencies = np.empty((len(symbols), self.codebook_size))
        with _blas().limit(limits=1):
            for book in range(n_codebooks):
                for start in range(book, len(symbols), n_codebooks * _ROWS):
                    some = slice(start, min(start + n_codebooks * _ROWS, len(symbols)), n_codebooks)
                    before = windows[some]
                    self._predict(book, before.reshape(len(before), -1), frequencies[some])
        return frequencies

    def _known(self, n_symbols: int) -> npt.NDArray[np.floating]:
        """Room for the embeddings of a chunk's codes, (C + positions, D), after those before it."""
        n_context = self.context.shape[1]
        known = np.zeros((n_context + n_symbols, self.embedding.shape[2]), self._context.dtype)
        known[:n_context] = self.embedding[np.arange(-n_context, 0) % self.n_codebooks, -1]
        return known

    def _predict(
        self, book: int, before: npt.NDArray[np.floating], out: npt.NDArray[np.float64]
    ) -> None:
        """Write the frequencies, less 1, of the codes at some positions of one codebook.

        Args:
            book: the codebook.
            before: (n, C * D), the embeddings of the codes before each position.
            out: (n, K).
        """
        sums = _layer(before, self._context[book], self.context_bias[book])
        units = _units(sums, EMBEDDING_PLACES + CONTEXT_PLACES)
        units = _units(_layer(units, self._hidden[book], self.hidden_bias[book]), LOGIT_PLACES)
        _frequencies(_layer(units, self._output[book], self.output_bias[book]), out)

    def __getstate__(self) -> dict[str, Any]:
        """The fields alone: a process that gets the model makes what follows from them itself."""
        return {name: getattr(self, name) for name in (*_SHAPES, "streams")}

    @cached_property
    def _context(self) -> npt.NDArray[np.floating]:
        """(Q, C * D, H), the oldest code first."""
        n_codebooks, _, _, n_units = self.context.shape
        return _exact(self.context[:, ::-1].reshape(n_codebooks, -1, n_units), 128)

    @cached_property
    def _hidden(self) -> npt.NDArray[np.floating]:
        return _exact(self.hidden, LARGEST_UNIT)

    @cached_property
    def _output(self) -> npt.NDArray[np.floating]:
        return _exact(self.output, LARGEST_UNIT)


def _time_major(codes: npt.NDArray[np.uint16]) -> npt.NDArray[np.int32]:
    """Codes (Q, n) as (n * Q,)."""
    return np.ascontiguousarray(codes.T).ravel().astype(np.int32)


@cache
def _blas() -> ThreadpoolController:
    """What bounds the threads of BLAS, which for products like ours take more than they give."""
    return ThreadpoolController()


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


def _exact(weights: npt.NDArray[np.int8], largest: int) -> npt.NDArray[np.floating]:
    """Weights (Q, inputs, outputs) as floats: products with integer inputs add up exactly.

    Args:
        weights: of a layer.
        largest: magnitude of its inputs.
    """
    is_small = weights.shape[1] * largest * 128 <= 1 << 24
    return weights.astype(np.float32 if is_small else np.float64)


def _units(sums: npt.NDArray[np.int32], places: int) -> npt.NDArray[np.int32]:
    """Sums of so many binary places, rounded to units of a layer."""
    excess = places - UNIT_PLACES
    return np.minimum(np.maximum((sums + (1 << (excess - 1))) >> excess, 0), LARGEST_UNIT)


def _layer(
    inputs: np.ndarray, weights: npt.NDArray[np.floating], bias: npt.NDArray[np.int16]
) -> npt.NDArray[np.int32]:
    """The sums bias + inputs @ weights, (n, outputs)."""
    return (inputs.astype(weights.dtype, copy=False) @ weights).astype(np.int32) + bias


def _frequencies(logits: npt.NDArray[np.int32], out: npt.NDArray[np.float64]) -> None:
    """Write the frequencies, less 1, of all codes, TOTAL - K in all, in proportion to 2^logit."""
    every, best = np.arange(len(logits)), logits.argmax(axis=1)
    below = (logits[every, best][:, None] - logits) >> (LOGIT_PLACES - POWER_PLACES)
    powers = _SHIFTED.take(below, mode="clip")
    left = TOTAL - logits.shape[1]
    powers *= (left << 32) // powers.sum(axis=1, keepdims=True)
    powers >>= 32
    out[:] = powers
    out[every, best] += left - powers.sum(axis=1)
