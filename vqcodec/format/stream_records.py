"""Streams beside the codes, as the header of a .codes file has them. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from vqcodec.errors import CodesError
from vqcodec.format.fields import (
    HeaderField,
    Number,
    damaged,
    layout,
    limits,
    pack_fields,
    set_normal,
    set_whole_numbers,
    unpack_fields,
)

STREAM_KINDS = {1: "pitch"}
MOST_STREAMS = 8

STREAM_FIELDS = (
    HeaderField("kind", "B", (1, len(STREAM_KINDS)), "1: pitch"),
    HeaderField(*("codes_per_symbol", "B", (1, 255)), "time steps that a symbol stands for"),
    HeaderField("alphabet_size", "H", (2, 65_536), "symbols that there are", less=1),
    HeaderField("step", "H", (1, 65_535), "from a symbol to the next; pitch: cents"),
    HeaderField(
        "reference", "f", "normal, > 0", "of the recording; pitch: the speaker's mean F0 in Hz"
    ),
)
"""The record of a stream, as `FIELDS`."""

RECORD = layout(STREAM_FIELDS)
_LIMITS = {name: allowed for name, allowed in limits(STREAM_FIELDS).items() if name != "kind"}
_NUMBERS = {name: number for number, name in STREAM_KINDS.items()}


@dataclass(frozen=True, kw_only=True)
class StreamRecord:
    """What a file says of a stream; `STREAM_FIELDS` has the meaning and limits of every field.

    Args:
        kind: A name of `STREAM_KINDS`.

    Raises:
        CodesError: If a field has another type or is out of range.
    """

    kind: str
    codes_per_symbol: int
    alphabet_size: int
    step: int
    reference: float

    def __post_init__(self) -> None:
        if self.kind not in STREAM_KINDS.values():
            known = ", ".join(STREAM_KINDS.values())
            raise CodesError(f"kind of stream must be one of {known}, not {self.kind!r}")
        set_whole_numbers(self, _LIMITS)
        set_normal(self, "reference")

    @property
    def bits_per_symbol(self) -> int:
        """Bits of one packed symbol: ceil(log2(alphabet_size))."""
        return (self.alphabet_size - 1).bit_length()

    def n_symbols(self, start: Number, end: Number) -> Number:
        """Symbols whose last time step is one of `start` up to `end`."""
        return end // self.codes_per_symbol - start // self.codes_per_symbol


class CodeBlock(NamedTuple):
    """Codes of some time steps, and what the streams have beside them.

    Attributes:
        codes: uint16, shape (n_codebooks, n).
        symbols: Of each stream, by its kind, those whose last time step is one of these: uint16,
            shape (m,).
    """

    codes: npt.NDArray[np.uint16]
    symbols: Mapping[str, npt.NDArray[np.uint16]] = MappingProxyType({})


def split(
    block: CodeBlock, streams: tuple[StreamRecord, ...], position: int, length: int
) -> Iterator[CodeBlock]:
    """Cut a block, whose first time step is `position`, into ones of `length` or fewer."""
    n_codes = block.codes.shape[1]
    for start in range(0, n_codes, length):
        end = min(start + length, n_codes)
        symbols = {}
        for one in streams:
            first = one.n_symbols(position, position + start)
            n_symbols = one.n_symbols(position + start, position + end)
            symbols[one.kind] = block.symbols[one.kind][first : first + n_symbols]
        yield CodeBlock(block.codes[:, start:end], symbols)


def joined(blocks: Iterable[CodeBlock]) -> CodeBlock:
    """One or more blocks, which follow each other, as one."""
    parts = list(blocks)
    symbols = {
        kind: np.concatenate([part.symbols[kind] for part in parts]) for kind in parts[0].symbols
    }
    return CodeBlock(np.concatenate([part.codes for part in parts], axis=1), symbols)


def checked_symbols(
    symbols: Mapping[str, npt.NDArray[Any]], streams: tuple[StreamRecord, ...], n_codes: int
) -> dict[str, npt.NDArray[np.uint16]]:
    """Symbols as a file has them beside `n_codes` time steps.

    Raises CodesError if they are not those of the streams, or are of another type, number or range.
    """
    kinds = [one.kind for one in streams]
    if symbols.keys() != set(kinds):
        raise CodesError(f"symbols must be of the streams {kinds}, not of {list(symbols)}")
    checked = {}
    for one in streams:
        own, shape = symbols[one.kind], (one.n_symbols(0, n_codes),)
        if not isinstance(own, np.ndarray) or own.dtype.kind not in "iu" or own.shape != shape:
            raise CodesError(f"{one.kind} symbols must be a NumPy array of integers, {shape}")
        if own.min(initial=0) < 0 or own.max(initial=0) >= one.alphabet_size:
            raise CodesError(
                f"{one.kind} symbols must be below {one.alphabet_size} and not negative, "
                f"not {own.min()}..{own.max()}"
            )
        checked[one.kind] = own.astype(np.uint16)
    return checked


def pack_streams(records: tuple[StreamRecord, ...]) -> bytes:
    """Their part of a header: nothing where there are none."""
    if not records:
        return b""
    values = [vars(record) | {"kind": _NUMBERS[record.kind]} for record in records]
    packed = [RECORD.pack(*pack_fields(STREAM_FIELDS, one)) for one in values]
    return bytes([len(records)]) + b"".join(packed)


def unpack_streams(data: bytes, name: str) -> tuple[StreamRecord, ...]:
    """The opposite of `pack_streams`, of as many bytes as the first one says, or none.

    The CRC-32 of the header is right, and errors name the file. Raises CodesError if the records
    are not as docs/format.md demands.
    """
    if not data:
        return ()
    if not 1 <= data[0] <= MOST_STREAMS:
        raise damaged(name, f"has {data[0]} streams, not 1 to {MOST_STREAMS}")
    records = []
    for stored in RECORD.iter_unpack(data[1:]):
        values = unpack_fields(STREAM_FIELDS, stored)
        number = values.pop("kind")
        if number not in STREAM_KINDS:
            raise CodesError(f"{name}: has a stream of the unknown kind {number}; upgrade vqcodec")
        try:
            records.append(StreamRecord(kind=STREAM_KINDS[number], **values))
        except CodesError as error:
            raise damaged(name, f"has a stream whose {error}") from error
    return tuple(records)
