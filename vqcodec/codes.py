"""Codes and the .codes file, as specified in docs/format.md. Imports no torch."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from vqcodec.errors import CodesError
from vqcodec.files import replacing
from vqcodec.header import (
    Header,
    Metadata,
    Prologue,
    StreamMetadata,
    ceil_div,
    damaged,
    pack_header,
    read_prologue,
    unpack_header,
)
from vqcodec.payload import chunk_crc, pack, unpack
from vqcodec.streams import CHUNK_LENGTH, CodesStream, read_stream


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
            pack(self.codes[:, start : start + CHUNK_LENGTH], self.bits_per_code)
            for start in range(0, self.n_codes, CHUNK_LENGTH)
        ]
        header = pack_header(
            self,
            n_samples=self.n_samples,
            chunk_length=CHUNK_LENGTH,
            chunk_sizes=[len(payload) for payload in payloads],
        )
        chunks = (payload + chunk_crc(number, payload) for number, payload in enumerate(payloads))
        return header + b"".join(chunks)

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
    def collect(cls, stream: CodesStream) -> Codes:
        """Wait for the end of a stream.

        Raises:
            CodesError: Whatever the stream raises.
        """
        codes = np.concatenate(list(stream), axis=1)
        return cls(codes, **_fields(stream.metadata), n_samples=stream.n_samples or 0)

    @classmethod
    def _read(cls, file: BinaryIO, size: int, name: str) -> Codes:
        prologue = read_prologue(file, name)
        if prologue.n_samples == 0:
            return _read_whole_stream(file, prologue, name)
        header = unpack_header(file, prologue, size, name)
        codes = _read_codes(file, header, name, 0, header.n_codes)
        return cls(codes, **_fields(header), n_samples=header.n_samples)


def _read_whole_stream(file: BinaryIO, prologue: Prologue, name: str) -> Codes:
    codes = Codes.collect(read_stream(file, prologue, name))
    if file.read(1):
        raise damaged(name, "has bytes after its end")
    return codes


def read_pipe(file: BinaryIO, name: str) -> Codes | CodesStream:
    """Read codes from a pipe: a streamed file as it comes, any other whole.

    Args:
        file: A binary file object that need not seek.
        name: What to call it in an error message.

    Raises:
        CodesError: If the bytes are not as docs/format.md demands; of a streamed file only the
            header is read here.
    """
    prologue = read_prologue(file, name)
    if prologue.n_samples == 0:
        return read_stream(file, prologue, name)
    return Codes.from_bytes(prologue.to_bytes() + file.read(), name)


def _fields(metadata: StreamMetadata) -> dict[str, Any]:
    """What a stream's metadata says and `Codes` takes."""
    names = {field.name for field in fields(StreamMetadata)} - {"n_codebooks"}
    return {name: getattr(metadata, name) for name in names}


def read_header(path: str | os.PathLike[str]) -> Header:
    """Read and check the header of a .codes file; no payload is read, unless it is streamed.

    Raises:
        CodesError: If the file cannot be read, or its header or size is not as docs/format.md
            demands.
    """
    with _opened(path) as (file, size):
        prologue = read_prologue(file, str(path))
        if prologue.n_samples:
            return unpack_header(file, prologue, size, str(path))
        codes = _read_whole_stream(file, prologue, str(path))
    return Header(
        **_fields(codes),
        n_codebooks=codes.n_codebooks,
        n_samples=codes.n_samples,
        method=prologue.method,
        chunk_length=prologue.chunk_length,
        chunk_sizes=np.zeros(0, np.uint32),
        header_size=prologue.index_at + 4,
        file_size=size,
    )


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
        prologue = read_prologue(file, str(path))
        if prologue.n_samples == 0:
            codes = _read_whole_stream(file, prologue, str(path))
            _check_range(codes, str(path), start, stop)
            return codes.codes[:, start:stop]
        header = unpack_header(file, prologue, size, str(path))
        _check_range(header, str(path), start, stop)
        return _read_codes(file, header, str(path), start, stop)


def _check_range(metadata: Metadata, name: str, start: int, stop: int) -> None:
    if not 0 <= start < stop <= metadata.n_codes:
        raise CodesError(
            f"{name}: has no time steps {start} to {stop}; "
            f"choose 0 <= start < stop <= {metadata.n_codes}"
        )


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
        if file.read(4) != chunk_crc(number, payload):
            raise damaged(name, f"is damaged: the CRC of chunk {number} differs")
        length = min(header.chunk_length, header.n_codes - number * header.chunk_length)
        chunks.append(unpack(payload, length, header, name=name, number=number))
    offset = first * header.chunk_length
    return np.ascontiguousarray(np.concatenate(chunks, axis=1)[:, start - offset : stop - offset])
