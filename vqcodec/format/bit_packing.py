"""Method 0 of docs/format.md: codes in as many bits as the codebook needs. Imports no torch."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from vqcodec.format.fields import damaged
from vqcodec.format.header import StreamMetadata
from vqcodec.format.stream_records import CodeBlock


def pack(block: CodeBlock, metadata: StreamMetadata) -> bytes:
    """Codes, time-major, then symbols, each most significant bit first, padded with zeros."""
    parts = [_bits(block.codes.T, metadata.bits_per_code)]
    parts += [_bits(block.symbols[one.kind], one.bits_per_symbol) for one in metadata.streams]
    return np.packbits(np.concatenate(parts)).tobytes()


def unpack(
    payload: bytes, start: int, end: int, metadata: StreamMetadata, *, name: str, number: int
) -> CodeBlock:
    """Read the codes and symbols of a chunk, the time steps from `start` up to `end`.

    The payload has `StreamMetadata.payload_size` bytes; errors name the file and number the chunk.
    Raises CodesError if the padding is not zero, or a code or symbol is outside its alphabet.
    """
    bits = np.unpackbits(np.frombuffer(payload, np.uint8))
    at = 0

    def take(count: int, width: int) -> npt.NDArray[np.uint16]:
        nonlocal at
        words = np.zeros((count, 16), np.uint8)
        words[:, 16 - width :] = bits[at : at + count * width].reshape(count, width)
        at += count * width
        return np.packbits(words).view(">u2").astype(np.uint16)

    codes = take((end - start) * metadata.n_codebooks, metadata.bits_per_code)
    symbols = {
        one.kind: take(one.n_symbols(start, end), one.bits_per_symbol) for one in metadata.streams
    }
    if bits[at:].any():
        raise damaged(name, f"has padding bits that are not zero in chunk {number}")
    if codes.max() >= metadata.codebook_size:
        size = metadata.codebook_size
        fault = f"has code {codes.max()} in chunk {number}, the codebook has {size} entries"
        raise damaged(name, fault)
    for one in metadata.streams:
        if symbols[one.kind].max(initial=0) >= one.alphabet_size:
            raise damaged(
                name,
                f"has {one.kind} symbol {symbols[one.kind].max()} in chunk {number}, of "
                f"{one.alphabet_size} that there are",
            )
    return CodeBlock(codes.reshape(end - start, metadata.n_codebooks).T, symbols)


def _bits(numbers: npt.NDArray[np.uint16], width: int) -> npt.NDArray[np.uint8]:
    words = numbers.astype(">u2").reshape(-1, 1).view(np.uint8)
    return np.unpackbits(words, axis=1)[:, 16 - width :].ravel()
