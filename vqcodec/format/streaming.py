"""Codes of an ongoing recording, and the streamed layout of docs/format.md. Imports no torch."""

from __future__ import annotations

import struct
from collections.abc import Generator, Iterator
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from vqcodec.errors import CodesError
from vqcodec.format.bit_packing import pack, unpack
from vqcodec.format.fields import crc32, damaged
from vqcodec.format.header import (
    CHUNK_LENGTH,
    LIMITS,
    FixedPart,
    StreamMetadata,
    count_codes,
    pack_header,
    unpack_stream_header,
)
from vqcodec.format.stream_records import CodeBlock, split

Blocks = Generator[CodeBlock, None, int]
"""Yields codes and symbols; returns the samples of the recording."""

_LENGTH, _END = struct.Struct("<H"), struct.Struct("<HQ")


def metadata_of(codes: StreamMetadata | CodesStream) -> StreamMetadata:
    """What is known of codes, whole or as they come."""
    return codes.metadata if isinstance(codes, CodesStream) else codes


class CodesStream:
    """Codes as they come. Iterate over it once: it yields them, uint16, (n_codebooks, n).

    Attributes:
        metadata: What is known beforehand.
        n_samples: Of the recording, per channel, at its own rate; None until the iteration ends.
    """

    def __init__(self, metadata: StreamMetadata, blocks: Blocks) -> None:
        self.metadata = metadata
        self.n_samples: int | None = None
        self._blocks: Blocks | None = blocks

    def __iter__(self) -> Iterator[npt.NDArray[np.uint16]]:
        return (block.codes for block in self.blocks())

    def blocks(self) -> Iterator[CodeBlock]:
        """The codes with what the streams have beside them, once.

        Raises CodesError if the stream was iterated over before, and whatever it raises.
        """
        if self._blocks is None:
            raise CodesError("a stream can be iterated over once; Codes.collect keeps its codes")
        blocks, self._blocks = self._blocks, None
        self.n_samples = yield from blocks

    def write(self, file: BinaryIO) -> None:
        """Write the streamed layout, every block as soon as it is there.

        Raises CodesError if the stream was iterated over before, OSError if the file cannot be
        written.
        """
        header = pack_header(self.metadata, n_samples=0)
        file.write(header)
        file.flush()
        # Each chunk names the one before it, and the first the header.
        last, position = header[-4:], 0
        for block in self.blocks():
            for part in split(block, self.metadata.streams, position, CHUNK_LENGTH):
                chunk = _LENGTH.pack(part.codes.shape[1]) + pack(part, self.metadata)
                last = crc32(last, chunk)
                file.write(chunk + last)
            position += block.codes.shape[1]
            file.flush()
        end = _END.pack(0, self.n_samples)
        file.write(end + crc32(last, end))
        file.flush()


def read_stream(file: BinaryIO, fixed: FixedPart, name: str) -> CodesStream:
    """Read the streamed layout after its fixed part, never more of it than the next chunk.

    Raises CodesError, which names the file, if the header or, while iterating, a chunk is not as
    docs/format.md demands.
    """
    metadata, header_crc = unpack_stream_header(file, fixed, name)
    return CodesStream(metadata, _chunks(file, metadata, fixed, header_crc, name))


def _chunks(
    file: BinaryIO, metadata: StreamMetadata, fixed: FixedPart, last: bytes, name: str
) -> Blocks:
    number, n_codes = 0, 0
    while True:
        start = _read(file, _LENGTH.size, name)
        (length,) = _LENGTH.unpack(start)
        if length > fixed.chunk_length:
            raise damaged(name, f"is damaged: chunk {number} claims {length} time steps")
        end = n_codes + length
        payload = _read(file, metadata.payload_size(n_codes, end) if length else 8, name)
        found = _read(file, len(last), name)
        before = number.to_bytes(8, "little") if fixed.version == 1 else last
        if found != crc32(before, start, payload):
            raise damaged(name, f"is damaged: the CRC of chunk {number} differs")
        if not length:
            break
        yield unpack(payload, n_codes, end, metadata, name=name, number=number)
        last, number, n_codes = found, number + 1, end
    n_samples = int.from_bytes(payload, "little")
    low, high = LIMITS["n_samples"]
    if not low <= n_samples <= high or count_codes(metadata, n_samples) != n_codes:
        raise damaged(name, f"has {n_codes} time steps, which {n_samples} samples do not make")
    return n_samples


def _read(file: BinaryIO, size: int, name: str) -> bytes:
    data = file.read(size)
    if len(data) < size:
        raise CodesError(
            f"{name}: is cut short: the recording's end is missing; copy it again, or decode what "
            "there is: vqcodec decode - - < FILE > out.wav"
        )
    return data
