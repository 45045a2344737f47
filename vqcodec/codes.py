"""Codes and the .codes file, as specified in docs/format.md. Imports no torch."""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from vqcodec.errors import CodesError
from vqcodec.files import replacing
from vqcodec.header import Header, Metadata, ceil_div, damaged, pack_header, unpack_header

CHUNK_LENGTH = 1250


@dataclass(frozen=True, eq=False)
class Codes(Metadata):
    """One recording as discrete codes; the other fields are those of `Metadata`.

    Two `Codes` are equal if their files are the same bytes.

    Args:
        codes: Integers in [0, codebook_size), shape (n_codebooks, n_codes); kept as a read-only
            uint16 copy.

    Raises:
        CodesError: If a field has another type, shape or range.
    """

    codes: npt.NDArray[np.uint16]
    n_codebooks: int = field(init=False)

    def __post_init__(self) -> None:
        codes = self.codes
        if not isinstance(codes, np.ndarray) or codes.ndim != 2 or codes.dtype.kind not in "iu":
            raise CodesError("codes must be a NumPy array of integers, (n_codebooks, n_codes)")
        object.__setattr__(self, "n_codebooks", codes.shape[0])
        super().__post_init__()
        if codes.shape[1] != self.n_codes:
            raise CodesError(
                f"codes must have {self.n_codes} time steps for {self.n_samples} samples at "
                f"{self.original_sample_rate} Hz, not {codes.shape[1]}"
            )
        if codes.min() < 0 or codes.max() >= self.codebook_size:
            raise CodesError(
                f"codes must be below the codebook size {self.codebook_size} and not negative, "
                f"not {codes.min()}..{codes.max()}"
            )
        codes = codes.astype(np.uint16)
        codes.setflags(write=False)
        object.__setattr__(self, "codes", codes)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Codes) and self.to_bytes() == other.to_bytes()

    @property
    def bits_per_second(self) -> float:
        """True bit rate: all bytes of the file, over the duration."""
        return 8 * len(self.to_bytes()) / self.duration_s

    def to_bytes(self) -> bytes:
        """The .codes file as bytes; the same codes and metadata always give the same bytes."""
        payloads = [
            _pack(self.codes[:, start : start + CHUNK_LENGTH], self.bits_per_code)
            for start in range(0, self.n_codes, CHUNK_LENGTH)
        ]
        parts = [pack_header(self, CHUNK_LENGTH, payloads)]
        for number, payload in enumerate(payloads):
            parts += [payload, _chunk_crc(number, payload)]
        return b"".join(parts)

    @classmethod
    def from_bytes(cls, data: bytes, name: str = "<bytes>") -> Codes:
        """Read the bytes of a .codes file.

        Args:
            data: The whole file.
            name: What to call it in an error message.

        Raises:
            CodesError: If anything in the bytes is not as docs/format.md demands.
        """
        return cls._read(io.BytesIO(data), len(data), name)

    def save(self, path: str | os.PathLike[str]) -> int:
        """Write a .codes file; an existing file is replaced whole or, on failure, left as it was.

        Returns:
            Bytes written.

        Raises:
            CodesError: If the file cannot be written.
        """
        path = Path(path)
        data = self.to_bytes()
        try:
            if path.exists() and not path.is_file():
                raise CodesError(f"{path}: is not a regular file; give the path of a .codes file")
            with replacing(path) as temporary:
                temporary.write_bytes(data)
        except OSError as error:
            raise CodesError(
                f"{path}: cannot be written ({error.strerror}); "
                "check the folder, its permissions and the free space"
            ) from error
        return len(data)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Codes:
        """Read a .codes file.

        Raises:
            CodesError: If the file cannot be read or is not as docs/format.md demands.
        """
        with _opened(path) as (file, size):
            return cls._read(file, size, str(path))

    @classmethod
    def _read(cls, file: BinaryIO, size: int, name: str) -> Codes:
        header = unpack_header(file, size, name)
        return cls(
            _read_codes(file, header, name, 0, header.n_codes),
            codebook_size=header.codebook_size,
            sample_rate=header.sample_rate,
            hop_length=header.hop_length,
            fingerprint=header.fingerprint,
            original_sample_rate=header.original_sample_rate,
            n_samples=header.n_samples,
            gain=header.gain,
            speaker=header.speaker,
        )


def read_header(path: str | os.PathLike[str]) -> Header:
    """Read and check the header of a .codes file; no payload is read.

    Raises:
        CodesError: If the file cannot be read, or its header or size is not as docs/format.md
            demands.
    """
    with _opened(path) as (file, size):
        return unpack_header(file, size, str(path))


def read_chunks(path: str | os.PathLike[str], start: int, stop: int) -> npt.NDArray[np.uint16]:
    """Read the time steps start, ..., stop - 1 of a .codes file, and only the chunks they lie in.

    Args:
        path: The file.
        start: First time step, 0 <= start < stop.
        stop: Time step after the last, stop <= n_codes.

    Returns:
        Codes, uint16, shape (n_codebooks, stop - start), `Codes.load(path).codes[:, start:stop]`.

    Raises:
        CodesError: If the range is empty or outside the file, or what is read of the file is not
            as docs/format.md demands.
    """
    with _opened(path) as (file, size):
        header = unpack_header(file, size, str(path))
        if not 0 <= start < stop <= header.n_codes:
            raise CodesError(
                f"{path}: has no time steps {start} to {stop}; "
                f"choose 0 <= start < stop <= {header.n_codes}"
            )
        return _read_codes(file, header, str(path), start, stop)


@contextmanager
def _opened(path: str | os.PathLike[str]) -> Iterator[tuple[BinaryIO, int]]:
    try:
        with open(path, "rb") as file:
            yield file, os.fstat(file.fileno()).st_size
    except OSError as error:
        raise CodesError(
            f"{path}: cannot be read ({error.strerror}); check the path and its permissions"
        ) from error


def _read_codes(
    file: BinaryIO, header: Header, name: str, start: int, stop: int
) -> npt.NDArray[np.uint16]:
    first = start // header.chunk_length
    chunk_sizes = header.chunk_sizes.tolist()
    file.seek(header.header_size + sum(chunk_sizes[:first]) + 4 * first)
    chunks = []
    for number in range(first, ceil_div(stop, header.chunk_length)):
        payload = file.read(chunk_sizes[number])
        if file.read(4) != _chunk_crc(number, payload):
            raise damaged(name, f"is damaged: the CRC of chunk {number} differs")
        length = min(header.chunk_length, header.n_codes - number * header.chunk_length)
        codes, padding = _unpack(payload, length * header.n_codebooks, header.bits_per_code)
        if padding.any():
            raise damaged(name, f"has padding bits that are not zero in chunk {number}")
        if codes.max() >= header.codebook_size:
            raise damaged(
                name,
                f"has code {codes.max()} in chunk {number}, the codebook has "
                f"{header.codebook_size} entries",
            )
        chunks.append(codes.reshape(length, header.n_codebooks).T)
    offset = first * header.chunk_length
    return np.ascontiguousarray(np.concatenate(chunks, axis=1)[:, start - offset : stop - offset])


def _pack(codes: npt.NDArray[np.uint16], bits: int) -> bytes:
    """Codes (n_codebooks, length), time-major, most significant bit first, padded with zeros."""
    words = codes.T.astype(">u2").reshape(-1, 1).view(np.uint8)
    return np.packbits(np.unpackbits(words, axis=1)[:, 16 - bits :]).tobytes()


def _unpack(
    payload: bytes, n: int, bits: int
) -> tuple[npt.NDArray[np.uint16], npt.NDArray[np.uint8]]:
    """The first n codes of `bits` bits, shape (n,), and the bits left over."""
    stream = np.unpackbits(np.frombuffer(payload, np.uint8))
    words = np.zeros((n, 16), np.uint8)
    words[:, 16 - bits :] = stream[: n * bits].reshape(n, bits)
    return np.packbits(words, axis=1).view(">u2").ravel().astype(np.uint16), stream[n * bits :]


def _chunk_crc(number: int, payload: bytes) -> bytes:
    return struct.pack("<I", zlib.crc32(payload, zlib.crc32(struct.pack("<Q", number))))
