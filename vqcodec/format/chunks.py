"""The chunks of a .codes file, as docs/format.md has them, and what they hold."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

from vqcodec.format.bit_packing import unpack
from vqcodec.format.fields import crc32, damaged
from vqcodec.format.header import Header
from vqcodec.format.stream_records import CodeBlock, joined

if TYPE_CHECKING:
    from vqcodec.format.ngram_coder import NgramModel


class Payload(NamedTuple):
    """A chunk as it is stored.

    Attributes:
        data: what it was encoded to.
        length: time steps.
        n_symbols: of each stream, in their order.
    """

    data: bytes
    length: int
    n_symbols: Mapping[str, int] = MappingProxyType({})


class CodedChunks(NamedTuple):
    """The entropy-coded chunks of a file, what they are coded with, and the name of the file."""

    chunks: list[Payload]
    model: NgramModel
    name: str

    def joined(self, found: Iterable[CodeBlock | ValueError]) -> CodeBlock:
        """What the chunks hold, from what was found in each."""
        blocks = []
        for number, block in enumerate(found):
            if isinstance(block, ValueError):
                raise damaged(self.name, f"has {block} in chunk {number}") from block
            blocks.append(block)
        return joined(blocks)


def read_payloads(file: BinaryIO, header: Header, name: str) -> list[bytes]:
    """The payloads after a header, checked to be those that were written."""
    payloads = []
    for number, size in enumerate(header.chunk_sizes.tolist()):
        payload = file.read(size)
        written = header.chunk_crcs[number] if header.chunk_crcs else file.read(4)
        if written != crc32(number.to_bytes(8, "little"), payload):
            raise damaged(name, f"is damaged: the CRC of chunk {number} differs")
        payloads.append(payload)
    return payloads


def unpacked(payloads: list[bytes], header: Header, name: str) -> CodeBlock:
    """What chunks of packed bits hold."""
    return joined(
        [
            unpack(payload, *_span(number, header), header, name=name, number=number)
            for number, payload in enumerate(payloads)
        ]
    )


def coded_payloads(payloads: list[bytes], header: Header) -> list[Payload]:
    """Entropy-coded chunks, and how long each is."""
    chunks = []
    for number, payload in enumerate(payloads):
        start, end = _span(number, header)
        n_symbols = {one.kind: one.n_symbols(start, end) for one in header.streams}
        chunks.append(Payload(payload, end - start, n_symbols))
    return chunks


def _span(number: int, header: Header) -> tuple[int, int]:
    """The first time step of a chunk, and the one after its last."""
    start = number * header.chunk_length
    return start, min(start + header.chunk_length, header.n_codes)
