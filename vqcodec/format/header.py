"""The header of a .codes file, as specified in docs/format.md. Imports no torch."""

from __future__ import annotations

import struct
import unicodedata
import zlib
from dataclasses import dataclass
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt

from vqcodec.errors import CodesError

MAGIC = b"\x89VQC"
VERSION, READABLE = 2, (1, 2)
PACKED_BITS, NGRAM_ANS = 0, 1
METHODS = {PACKED_BITS: "packed-bits", NGRAM_ANS: "ngram-ans"}
LONGEST_CODED_CHUNK = 1250
TABLES_LENGTH = 4
FINGERPRINT_LENGTH = 8
SPEAKER_LENGTH = 64

_FIXED = struct.Struct("<4sBBBB8sIIQfHHH")
_CRC = struct.Struct("<I")
_LIMITS = {
    "n_codebooks": (1, 32),
    "codebook_size": (2, 65_536),
    "sample_rate": (1, 768_000),
    "hop_length": (1, 65_535),
    "original_sample_rate": (1, 768_000),
    "n_samples": (1, 10**12),
}
_GAIN_LIMITS = (float(np.finfo(np.float32).tiny), float(np.finfo(np.float32).max))
_MEND = "copy it again from its source or encode the recording again"


@dataclass(frozen=True, eq=False, kw_only=True)
class StreamMetadata:
    """What is known of a recording's codes before the recording has ended.

    Args:
        n_codebooks: Codes per time step, 1 to 32.
        codebook_size: Entries of a codebook, 2 to 65536.
        sample_rate: Of the model, Hz, 1 to 768000.
        hop_length: Samples of the model per time step, 1 to 65535.
        fingerprint: 8 bytes that name the model whose codebook the codes index.
        original_sample_rate: Of the recording, Hz, 1 to 768000.
        gain: Multiply the decoder's output by it to restore the recording's own level; positive,
            rounded to float32.
        speaker: Name of a voice (1 to 64 bytes of UTF-8, no control characters) or a speaker
            vector, int8, shape (64,).

    Raises:
        CodesError: If a field has another type or is out of range.
    """

    n_codebooks: int
    codebook_size: int
    sample_rate: int
    hop_length: int
    fingerprint: bytes
    original_sample_rate: int
    gain: float
    speaker: str | npt.NDArray[np.int8]

    def __post_init__(self) -> None:
        for name, (low, high) in _LIMITS.items():
            value = getattr(self, name, low)  # a stream has no n_samples
            if not isinstance(value, (int, np.integer)) or not low <= value <= high:
                raise CodesError(f"{name} must be a whole number {low}..{high}, not {value!r}")
            if hasattr(self, name):
                object.__setattr__(self, name, int(value))
        if not isinstance(self.fingerprint, bytes) or len(self.fingerprint) != FINGERPRINT_LENGTH:
            raise CodesError(f"fingerprint must be 8 bytes, not {self.fingerprint!r}")
        numeric = isinstance(self.gain, (int, float, np.floating))
        if not numeric or not _GAIN_LIMITS[0] <= self.gain <= _GAIN_LIMITS[1]:
            raise CodesError(f"gain must be a positive, normal float32, not {self.gain!r}")
        object.__setattr__(self, "gain", float(np.float32(self.gain)))
        object.__setattr__(self, "speaker", _checked_speaker(self.speaker))

    @property
    def bits_per_code(self) -> int:
        """Bits of one packed code: ceil(log2(codebook_size))."""
        return (self.codebook_size - 1).bit_length()

    @property
    def nominal_bits_per_second(self) -> float:
        """Bit rate of the packed codes alone, without header, index and CRCs."""
        return self.n_codebooks * self.bits_per_code * self.sample_rate / self.hop_length

    def n_codes_of(self, n_samples: int) -> int:
        """Time steps of a recording of n_samples, as docs/format.md counts them."""
        model_samples = ceil_div(n_samples * self.sample_rate, self.original_sample_rate)
        return ceil_div(model_samples, self.hop_length)


@dataclass(frozen=True, eq=False, kw_only=True)
class Metadata(StreamMetadata):
    """What a .codes file says about its recording and its model.

    Args:
        n_samples: Of the recording, per channel, at its own rate, 1 to 10**12.

    Raises:
        CodesError: If a field has another type or is out of range.
    """

    n_samples: int

    @property
    def n_codes(self) -> int:
        """Time steps: ceil(ceil(n_samples * sample_rate / original_sample_rate) / hop_length)."""
        return self.n_codes_of(self.n_samples)

    @property
    def duration_s(self) -> float:
        """Duration of the recording in seconds."""
        return self.n_samples / self.original_sample_rate


@dataclass(frozen=True, eq=False, kw_only=True)
class Header(Metadata):
    """The header of a .codes file, checked against the size of the file.

    Args:
        method: How the chunks are coded, one of `METHODS`.
        tables: 4 bytes that name the tables of method 1; empty for method 0.
        chunk_length: Time steps per chunk; the last chunk may be shorter.
        chunk_sizes: Bytes of each chunk's payload, uint32, shape (n_chunks,).
        chunk_crcs: 4 bytes for each chunk; none in version 1, where they follow the payloads.
        header_size: Bytes before the first chunk.
        file_size: Bytes of the whole file.
    """

    method: int
    tables: bytes
    chunk_length: int
    chunk_sizes: npt.NDArray[np.uint32]
    chunk_crcs: tuple[bytes, ...]
    header_size: int
    file_size: int

    @property
    def bits_per_second(self) -> float:
        """True bit rate: all bytes of the file, over the duration."""
        return 8 * self.file_size / self.duration_s

    @property
    def after_payload(self) -> int:
        """Bytes between a chunk's payload and the next one."""
        return 0 if self.chunk_crcs else _CRC.size

    @property
    def packed_sizes(self) -> npt.NDArray[np.int64]:
        """Bytes of each chunk's payload in packed bits, shape (n_chunks,)."""
        lengths = np.full(len(self.chunk_sizes), self.chunk_length)
        lengths[-1:] -= self.chunk_length * len(lengths) - self.n_codes
        sizes: npt.NDArray[np.int64] = -(-lengths * self.n_codebooks * self.bits_per_code // 8)
        return sizes

    @property
    def packed_size(self) -> int:
        """Bytes of the whole file if its chunks were packed bits."""
        saved = int((self.packed_sizes - self.chunk_sizes).sum())
        return self.file_size - len(self.tables) + saved


class Prologue(NamedTuple):
    """The fixed part of a header as it stands in the file, only its form checked.

    Attributes:
        n_samples: 0 in a streamed file, which tells it at its end.
    """

    magic: bytes
    version: int
    method: int
    n_codebooks: int
    speaker_length: int
    fingerprint: bytes
    sample_rate: int
    original_sample_rate: int
    n_samples: int
    gain: float
    last_code: int
    hop_length: int
    chunk_length: int

    def to_bytes(self) -> bytes:
        """As it stands in the file."""
        return _FIXED.pack(*self)

    @property
    def tables_at(self) -> int:
        """Bytes before the name of the tables: the fixed part and the speaker."""
        return _FIXED.size + (self.speaker_length or SPEAKER_LENGTH)

    @property
    def index_at(self) -> int:
        """Bytes before the index."""
        return self.tables_at + (TABLES_LENGTH if self.method == NGRAM_ANS else 0)

    @property
    def index_entry(self) -> int:
        """Bytes of the index for each chunk: its size, and from version 2 on its CRC-32."""
        return 4 if self.version == 1 else 8

    def checked(self, header: bytes, name: str) -> dict[str, Any]:
        """The fields of `StreamMetadata`.

        Args:
            header: The whole header with its CRC-32, which starts with this prologue.
            name: What to call the file in an error message.

        Raises:
            CodesError: If the CRC differs or the method or the speaker's name is impossible.
        """
        if header[-4:] != _CRC.pack(zlib.crc32(header[:-4])):
            raise damaged(name, "is damaged: the CRC of its header differs")
        if self.method not in METHODS:
            raise CodesError(
                f"{name}: has codes coded by the unknown method {self.method}; upgrade vqcodec"
            )
        return {
            "n_codebooks": self.n_codebooks,
            "codebook_size": self.last_code + 1,
            "sample_rate": self.sample_rate,
            "hop_length": self.hop_length,
            "fingerprint": self.fingerprint,
            "original_sample_rate": self.original_sample_rate,
            "gain": self.gain,
            "speaker": _decode_speaker(self.speaker_length, header[_FIXED.size : self.tables_at]),
        }


def read_prologue(file: BinaryIO, name: str) -> Prologue:
    """Read the first 42 bytes of a .codes file.

    Raises:
        CodesError: If they are not as docs/format.md demands.
    """
    fixed = file.read(_FIXED.size)
    if not fixed.startswith(MAGIC[: len(fixed)]):
        raise CodesError(f"{name}: is not a .codes file; make one with vqcodec encode")
    if len(fixed) > 4 and fixed[4] not in READABLE:
        raise CodesError(
            f"{name}: has format version {fixed[4]}, this vqcodec reads 1 to {VERSION}; "
            "upgrade vqcodec"
        )
    if len(fixed) < _FIXED.size:
        raise damaged(name, f"is cut short: {len(fixed)} bytes are no whole header")
    prologue = Prologue._make(_FIXED.unpack(fixed))
    if not (prologue.original_sample_rate and prologue.hop_length and prologue.chunk_length):
        raise damaged(name, "is damaged: a rate, hop length or chunk length of 0")
    return prologue


def pack_header(
    metadata: StreamMetadata,
    *,
    n_samples: int,
    chunk_length: int,
    index: bytes = b"",
    tables: bytes = b"",
) -> bytes:
    """The header, its CRC-32 included; of a streamed file without n_samples and index.

    With the 4 bytes that name `tables`, it is one of method 1.
    """
    name_length, speaker = _encode_speaker(metadata.speaker)
    fixed = _FIXED.pack(
        MAGIC,
        VERSION,
        NGRAM_ANS if tables else PACKED_BITS,
        metadata.n_codebooks,
        name_length,
        metadata.fingerprint,
        metadata.sample_rate,
        metadata.original_sample_rate,
        n_samples,
        metadata.gain,
        metadata.codebook_size - 1,
        metadata.hop_length,
        chunk_length,
    )
    header = fixed + speaker + tables + index
    return header + _CRC.pack(zlib.crc32(header))


def unpack_header(file: BinaryIO, prologue: Prologue, size: int, name: str) -> Header:
    """Read the header of a file of `size` bytes after its prologue and check it against that size.

    Raises:
        CodesError: If the header or the size is not as docs/format.md demands.
    """
    model_samples = ceil_div(
        prologue.n_samples * prologue.sample_rate, prologue.original_sample_rate
    )
    n_chunks = ceil_div(ceil_div(model_samples, prologue.hop_length), prologue.chunk_length)
    index_at = prologue.index_at
    # Nothing is read on the word of the header before the file is seen to be that long; in either
    # version a chunk takes 8 bytes beside its payload.
    least = index_at + 8 * n_chunks + 4
    if least > size:
        raise damaged(name, f"is cut short or damaged: {size} bytes, its header needs {least}")
    crc_at = index_at + prologue.index_entry * n_chunks
    header = prologue.to_bytes() + file.read(crc_at + 4 - _FIXED.size)
    index = np.frombuffer(header[index_at:crc_at], "<u4").reshape(
        n_chunks, prologue.index_entry // 4
    )
    try:
        checked = Header(
            **prologue.checked(header, name),
            n_samples=prologue.n_samples,
            method=prologue.method,
            tables=header[prologue.tables_at : index_at],
            chunk_length=prologue.chunk_length,
            chunk_sizes=index[:, 0].astype(np.uint32),
            chunk_crcs=tuple(crc.tobytes() for crc in index[:, 1:].ravel()),
            header_size=crc_at + 4,
            file_size=size,
        )
    except CodesError as error:
        raise named(error, name) from error
    _check_sizes(checked, name)
    return checked


def unpack_stream_header(
    file: BinaryIO, prologue: Prologue, name: str
) -> tuple[StreamMetadata, bytes]:
    """Read the header of a streamed file after its prologue.

    Returns:
        The metadata and the header's CRC-32.

    Raises:
        CodesError: If it is not as docs/format.md demands.
    """
    rest = prologue.index_at + 4 - _FIXED.size
    header = prologue.to_bytes() + file.read(rest)
    if len(header) < prologue.index_at + 4:
        raise damaged(name, f"is cut short: {len(header)} bytes are no whole header")
    try:
        fields = prologue.checked(header, name)
        if prologue.method != PACKED_BITS:
            raise damaged(name, f"is streamed and claims method {prologue.method}, not packed bits")
        return StreamMetadata(**fields), header[-_CRC.size :]
    except CodesError as error:
        raise named(error, name) from error


def _check_sizes(header: Header, name: str) -> None:
    chunk_sizes, chunk_length = header.chunk_sizes, header.chunk_length
    if header.method == PACKED_BITS and (chunk_sizes != header.packed_sizes).any():
        raise damaged(name, "has an index whose chunk sizes do not fit its codes")
    if header.method == NGRAM_ANS and chunk_length > LONGEST_CODED_CHUNK:
        # A few bytes may hold any number of codes that were sure to come.
        limit = f"time steps, over {LONGEST_CODED_CHUNK}"
        raise damaged(name, f"has coded chunks of {chunk_length} {limit}")
    payloads = int(chunk_sizes.sum(dtype=np.int64))
    end = header.header_size + payloads + header.after_payload * len(chunk_sizes)
    excess = header.file_size - end
    if excess < 0:
        raise damaged(name, f"is cut short: the last {-excess} bytes are missing")
    if excess > 0:
        raise damaged(name, f"has {excess} bytes after its end")


def _checked_speaker(speaker: object) -> str | npt.NDArray[np.int8]:
    if isinstance(speaker, str):
        # A lone surrogate has no UTF-8; "replace" lets it through to the category check below.
        length = len(speaker.encode(errors="replace"))
        categories = {unicodedata.category(character) for character in speaker}
        if not 1 <= length <= SPEAKER_LENGTH or categories & {"Cc", "Cs", "Zl", "Zp"}:
            raise CodesError(
                f"speaker must be 1..64 bytes of UTF-8 without control characters, not {speaker!a}"
            )
        return speaker
    if (
        isinstance(speaker, np.ndarray)
        and speaker.dtype == np.int8
        and speaker.shape == (SPEAKER_LENGTH,)
    ):
        vector = speaker.copy()
        vector.setflags(write=False)
        return vector
    raise CodesError("speaker must be the name of a voice or an int8 vector of shape (64,)")


def _encode_speaker(speaker: str | npt.NDArray[np.int8]) -> tuple[int, bytes]:
    if isinstance(speaker, str):
        name = speaker.encode()
        return len(name), name
    return 0, speaker.tobytes()


def _decode_speaker(name_length: int, data: bytes) -> str | npt.NDArray[np.int8]:
    if name_length == 0:
        return np.frombuffer(data, np.int8)
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise CodesError(f"speaker must be UTF-8, not {data!r}") from error


def named(error: CodesError, name: str) -> CodesError:
    """An error about a field, as an error about the file that holds it."""
    if str(error).startswith(f"{name}: "):
        return error
    return CodesError(f"{name}: {error}; encode the recording again with vqcodec")


def damaged(name: str, fault: str) -> CodesError:
    """The error for a file whose bytes are not those that were written."""
    return CodesError(f"{name}: {fault}; {_MEND}")


def ceil_div(numerator: int, denominator: int) -> int:
    """ceil(numerator / denominator), exactly."""
    return -(-numerator // denominator)
