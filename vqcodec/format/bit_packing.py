"""Method 0 of docs/format.md: codes in as many bits as the codebook needs. Imports no torch."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from vqcodec.format.header import StreamMetadata, ceil_div, damaged


def pack(codes: npt.NDArray[np.uint16], bits: int) -> bytes:
    """Codes (n_codebooks, length), time-major, most significant bit first, padded with zeros."""
    words = codes.T.astype(">u2").reshape(-1, 1).view(np.uint8)
    return np.packbits(np.unpackbits(words, axis=1)[:, 16 - bits :]).tobytes()


def unpack(
    payload: bytes, length: int, metadata: StreamMetadata, *, name: str, number: int
) -> npt.NDArray[np.uint16]:
    """Read the codes of a chunk.

    Args:
        payload: Of `payload_size` bytes.
        length: Time steps.
        metadata: Of the file.
        name: What to call the file in an error message.
        number: Of the chunk.

    Returns:
        Codes, uint16, shape (n_codebooks, length).

    Raises:
        CodesError: If the padding is not zero or a code is outside the codebook.
    """
    bits, n = metadata.bits_per_code, length * metadata.n_codebooks
    stream = np.unpackbits(np.frombuffer(payload, np.uint8))
    if stream[n * bits :].any():
        raise damaged(name, f"has padding bits that are not zero in chunk {number}")
    words = np.zeros((n, 16), np.uint8)
    words[:, 16 - bits :] = stream[: n * bits].reshape(n, bits)
    codes = np.packbits(words, axis=1).view(">u2").ravel().astype(np.uint16)
    if codes.max() >= metadata.codebook_size:
        size = metadata.codebook_size
        fault = f"has code {codes.max()} in chunk {number}, the codebook has {size} entries"
        raise damaged(name, fault)
    return codes.reshape(length, metadata.n_codebooks).T


def payload_size(length: int, metadata: StreamMetadata) -> int:
    """Bytes of the payload of `length` time steps."""
    return ceil_div(length * metadata.n_codebooks * metadata.bits_per_code, 8)
