"""Entropy coding of codes: a neural n-gram model in integers tells the ANS coder what is likely.

The model is that of Bengio et al. 2003, *A Neural Probabilistic Language Model*: an embedding of
each of the codes before, two layers, and a logit for each code that may follow. What a bit means
must not depend on the machine, so all of it is integers, as docs/format.md specifies. Imports no
torch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view
from safetensors import SafetensorError, safe_open
from threadpoolctl import ThreadpoolController

from vqcodec.errors import CheckpointError
from vqcodec.format.ans_coder import TOTAL, AnsCoder
from vqcodec.format.chunks import Payload
from vqcodec.format.header import NGRAM_DIGEST_LENGTH
from vqcodec.format.ngram_layers import (
    CONTEXT_PLACES,
    EMBEDDING_PLACES,
    LARGEST_UNIT,
    LOGIT_PLACES,
    POWER_PLACES,
    UNIT_PLACES,
    Layer,
    write_bounds,
)
from vqcodec.format.stream_records import CodeBlock
from vqcodec.weights import registry

PREFIX = "entropy."
"""Of the names of its tensors in a model file."""
# Sizes by their letters in docs/format.md; R is K + 1.
_SHAPES = {"embedding": "QRD", "context": "QCDH", "context_bias": "QH", "hidden": "QHG",
           "hidden_bias": "QG", "output": "QGK", "output_bias": "QK"}  # fmt: skip
# Within these no sum exceeds 32 bits, and what is multiplied out fits in memory: as many
# contributions as make a quarter GiB, and over half a gigabyte of bounds for a chunk.
_LIMITS = {"C": 64, "D": 1024, "H": 1024, "G": 1024, "K": 1 << 16, "Q": 32}
_MOST_CONTRIBUTIONS, _MOST_FREQUENCIES = 1 << 26, 1 << 17


_ROWS = 64  # positions whose frequencies are made at a time: what they take on the way is large
_CHUNKS = 32  # that are decoded side by side


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
        bits = np.log2(TOTAL / np.diff(self._bounds(_time_major(codes))))
        return bits.astype(np.float32).reshape(-1, self.n_codebooks, self.codebook_size)

    def encode(self, chunk: CodeBlock) -> bytes:
        """Encode a chunk, and read it back.

        Args:
            chunk: codes (Q, n) below K, and symbols.

        Raises:
            ValueError: If something else was read.
        """
        coder, written = AnsCoder(), []
        # What is pushed last is popped first.
        for kind, symbols in reversed(list(chunk.symbols.items())):
            written.append(self.streams[kind]._push(coder, symbols[None]))
        written.append(self._push(coder, chunk.codes))
        words = coder.words()
        reader = AnsCoder(words)
        for pushed, bounds in reversed(written):
            if [reader.pop(row) for row in bounds] != pushed.tolist():
                raise ValueError("other codes were read than written")
        # The coder's last word, and it alone, may begin with zeros.
        return np.array(words, "<u4").tobytes().rstrip(b"\0")

    def decode(self, chunks: Sequence[Payload]) -> list[CodeBlock | ValueError]:
        """Decode what `encode` made of chunks; many side by side are faster than one by one.

        Returns:
            Of each chunk what it holds, or the error that no codes encode to its payload.
        """
        found: list[CodeBlock | ValueError] = []
        for start in range(0, len(chunks), _CHUNKS):
            found += self._decoded(chunks[start : start + _CHUNKS])
        return found

    def _decoded(self, chunks: Sequence[Payload]) -> Iterator[CodeBlock | ValueError]:
        padded = [chunk.data + bytes(-len(chunk.data) % 4) for chunk in chunks]
        coders = [AnsCoder(np.frombuffer(data, "<u4").tolist()) for data in padded]
        codes = self._pop(coders, [chunk.length for chunk in chunks])
        symbols = {
            kind: self.streams[kind]._pop(coders, [chunk.n_symbols[kind] for chunk in chunks])
            for kind in chunks[0].n_symbols
        }
        for place, (chunk, coder) in enumerate(zip(chunks, coders, strict=True)):
            if chunk.data.endswith(b"\0"):
                yield ValueError("a zero byte at the end of the payload")
            elif coder.words():
                yield ValueError("a payload that no codes make")
            else:
                beside = {kind: rows[place][0] for kind, rows in symbols.items()}
                yield CodeBlock(codes[place], beside)

    def _push(
        self, coder: AnsCoder, codes: npt.NDArray[np.uint16]
    ) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
        """Push codes (Q, n), the last first; returns them, (n * Q,), and all codes' bounds."""
        symbols = _time_major(codes)
        bounds = self._bounds(symbols)
        every = np.arange(len(symbols))
        intervals = np.stack([bounds[every, symbols], bounds[every, symbols + 1]], axis=1)
        for start, end in intervals[::-1].tolist():
            coder.push(start, end)
        return symbols, bounds

    def _pop(
        self, coders: Sequence[AnsCoder], lengths: Sequence[int]
    ) -> list[npt.NDArray[np.uint16]]:
        """Codes (Q, length) from each coder."""
        order = sorted(range(len(coders)), key=lambda place: -lengths[place])
        ends = [lengths[place] * self.n_codebooks for place in order]
        n_context, n_rows = self.context.shape[1], len(order)
        known = np.repeat(self._known(ends[0])[None], n_rows, axis=0)
        symbols = np.empty((n_rows, ends[0]), np.uint16)
        bounds = np.zeros((n_rows, self.codebook_size + 1), np.int32)
        with _blas().limit(limits=1):
            for position in range(ends[0]):
                while ends[n_rows - 1] <= position:
                    n_rows -= 1
                book = position % self.n_codebooks
                before = known[:n_rows, position : position + n_context]
                self._predict(book, before.reshape(n_rows, -1), bounds[:n_rows])
                for row in range(n_rows):
                    symbols[row, position] = coders[order[row]].pop(bounds[row])
                own = symbols[:n_rows, position]
                known[:n_rows, n_context + position] = self.embedding[book, own]
        return [
            symbols[order.index(place), : length * self.n_codebooks]
            .reshape(length, self.n_codebooks)
            .T
            for place, length in enumerate(lengths)
        ]

    def _bounds(self, symbols: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
        """Of every code's interval at every position of a chunk, (positions, K + 1)."""
        known, n_codebooks = self._known(len(symbols)), self.n_codebooks
        books = np.arange(len(symbols)) % n_codebooks
        known[len(known) - len(symbols) :] = self.embedding[books, symbols]
        windows = sliding_window_view(known, (self.context.shape[1], known.shape[1]))[:, 0]
        bounds = np.zeros((len(symbols), self.codebook_size + 1), np.int32)
        with _blas().limit(limits=1):
            for book in range(n_codebooks):
                for start in range(book, len(symbols), n_codebooks * _ROWS):
                    some = slice(start, min(start + n_codebooks * _ROWS, len(symbols)), n_codebooks)
                    before = windows[some]
                    self._predict(book, before.reshape(len(before), -1), bounds[some])
        return bounds

    def _known(self, n_symbols: int) -> npt.NDArray[np.floating]:
        """Room for the embeddings of a chunk's codes, (C + positions, D), after those before it."""
        n_context = self.context.shape[1]
        known = np.zeros((n_context + n_symbols, self.embedding.shape[2]), self._layers[0].dtype)
        known[:n_context] = self.embedding[np.arange(-n_context, 0) % self.n_codebooks, -1]
        return known

    def _predict(
        self, book: int, before: npt.NDArray[np.floating], out: npt.NDArray[np.int32]
    ) -> None:
        """Write the bounds of the codes' intervals at some positions of one codebook.

        Args:
            book: the codebook.
            before: (n, C * D), the embeddings of the codes before each position.
            out: (n, K + 1), of which the first stay 0.
        """
        units = before
        *hidden, output = self._layers
        for layer in hidden:
            units = layer.sums(book, units)
            np.floor(units, out=units)
            np.minimum(np.maximum(units, 0, out=units), LARGEST_UNIT, out=units)
        write_bounds(output.sums(book, units), out)

    def __getstate__(self) -> dict[str, Any]:
        """The fields alone: a process that gets the model makes what follows from them itself."""
        return {name: getattr(self, name) for name in (*_SHAPES, "streams")}

    @cached_property
    def _layers(self) -> list[Layer]:
        """They give units before the fraction is cut off, and logits in steps of `POWERS`."""
        n_codebooks, _, _, n_units = self.context.shape
        context = self.context[:, ::-1].reshape(n_codebooks, -1, n_units)  # the oldest code first
        places = EMBEDDING_PLACES + CONTEXT_PLACES - UNIT_PLACES
        return [
            Layer(context, self.context_bias, 128, places, 0.5),
            Layer(self.hidden, self.hidden_bias, LARGEST_UNIT, LOGIT_PLACES - UNIT_PLACES, 0.5),
            Layer(self.output, self.output_bias, LARGEST_UNIT, LOGIT_PLACES - POWER_PLACES, 0.0),
        ]


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
