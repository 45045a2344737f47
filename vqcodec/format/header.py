"""The header of a .codes file, as docs/format.md specifies it. Imports no torch."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass, fields
from types import SimpleNamespace
from typing import Any, BinaryIO, TypeVar

import numpy as np
import numpy.typing as npt

from vqcodec.errors import CodesError
from vqcodec.format.fields import (
    HeaderField,
    Number,
    ceil_div,
    crc32,
    damaged,
    layout,
    limits,
    pack_fields,
    set_normal,
    set_whole_numbers,
    unpack_fields,
)
from vqcodec.format.stream_records import (
    RECORD,
    STREAM_KINDS,
    StreamRecord,
    pack_streams,
    unpack_streams,
)

MAGIC = b"\x89VQC"
VERSION = 3
VERSION_WITHOUT_STREAMS = 2
PACKED_BITS, NGRAM_ANS = 0, 1
METHODS = {PACKED_BITS: "packed-bits", NGRAM_ANS: "ngram-ans"}
CHUNK_LENGTH = 1250
"""Time steps of the chunks that are written, and at most of those of method 1 that are read."""
NGRAM_DIGEST_LENGTH = 4
SPEAKER_LENGTH = 64


FIELDS = (
    HeaderField("magic", "4s", "`89 56 51 43`", "`\\x89VQC`, whose first byte is not ASCII"),
    HeaderField("version", "B", (1, VERSION), "of this format"),
    HeaderField("method", "B", (PACKED_BITS, NGRAM_ANS), "0: packed bits, 1: ngram-ans"),
    HeaderField("n_codebooks", "B", (1, 32), "codes per time step"),
    HeaderField("speaker_length", "B", (0, SPEAKER_LENGTH), "bytes of the name; 0: a vector"),
    HeaderField("fingerprint", "8s", "any", "of the model whose codebook the codes index"),
    HeaderField("sample_rate", "I", (1, 768_000), "of the model, Hz"),
    HeaderField("original_sample_rate", "I", (1, 768_000), "of the recording, Hz"),
    HeaderField("n_samples", "Q", (1, 10**12), "of the recording, per channel, at its own rate"),
    HeaderField("gain", "f", "normal, > 0", "factor from decoded audio to the recording's level"),
    HeaderField("codebook_size", "H", (2, 65_536), "entries of a codebook", less=1),
    HeaderField("hop_length", "H", (1, 65_535), "samples of the model per time step"),
    HeaderField("chunk_length", "H", (1, 65_535), "time steps per chunk; the last may be shorter"),
)
"""The fixed part in the order of the file: what is packed, unpacked, checked and written in the
table of docs/format.md follows from this."""

FIXED = layout(FIELDS)
LIMITS = limits(FIELDS)


@dataclass(frozen=True, eq=False, kw_only=True)
class StreamMetadata:
    """What is known of a recording's codes before the recording has ended.

    `FIELDS` and the table of docs/format.md have the meaning and the limits of every field; the
    gain is rounded to float32.

    Args:
        speaker: Name of a voice (1 to 64 bytes of UTF-8, no control characters) or a speaker
            vector, int8, shape (64,).
        streams: What goes beside the codes, in the order of `STREAM_KINDS`, at most one of a kind.

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
    streams: tuple[StreamRecord, ...] = ()

    def __post_init__(self) -> None:
        set_whole_numbers(self, LIMITS)
        if not isinstance(self.fingerprint, bytes) or len(self.fingerprint) != 8:
            raise CodesError(f"fingerprint must be 8 bytes, not {self.fingerprint!r}")
        set_normal(self, "gain")
        object.__setattr__(self, "speaker", _checked_speaker(self.speaker))
        kinds = [record.kind for record in self.streams]
        if kinds != [kind for kind in STREAM_KINDS.values() if kind in kinds]:
            raise CodesError(f"streams must be of different kinds in their order, not {kinds}")

    @property
    def bits_per_code(self) -> int:
        """Bits of one packed code: ceil(log2(codebook_size))."""
        return (self.codebook_size - 1).bit_length()

    @property
    def nominal_bits_per_second(self) -> float:
        """Bit rate of the packed codes and streams, without header, index and CRCs."""
        bits: float = self.n_codebooks * self.bits_per_code
        bits += sum(one.bits_per_symbol / one.codes_per_symbol for one in self.streams)
        return bits * self.sample_rate / self.hop_length

    def payload_size(self, start: Number, end: Number) -> Number:
        """Bytes of the time steps from `start` up to `end` in packed bits."""
        n_bits = (end - start) * self.n_codebooks * self.bits_per_code
        n_bits += sum(one.n_symbols(start, end) * one.bits_per_symbol for one in self.streams)
        return ceil_div(n_bits, 8)


@dataclass(frozen=True, eq=False, kw_only=True)
class Metadata(StreamMetadata):
    """What a .codes file says about its recording and its model."""

    n_samples: int

    @property
    def n_codes(self) -> int:
        """Time steps: ceil(ceil(n_samples * sample_rate / original_sample_rate) / hop_length)."""
        return count_codes(self, self.n_samples)

    @property
    def duration_s(self) -> float:
        """Duration of the recording in seconds."""
        return self.n_samples / self.original_sample_rate


@dataclass(frozen=True, eq=False, kw_only=True)
class Header(Metadata):
    """The header of a .codes file, checked against the size of the file.

    Args:
        method: How the chunks are coded, one of `METHODS`.
        chunk_length: Time steps per chunk; the last chunk may be shorter.
        ngram_digest: 4 bytes that name the n-gram model of method 1; empty for method 0.
        chunk_sizes: Bytes of each chunk's payload, uint32, shape (n_chunks,).
        chunk_crcs: 4 bytes for each chunk; none in version 1, where they follow the payloads.
        header_size: Bytes before the first chunk.
        file_size: Bytes of the whole file.
    """

    method: int
    chunk_length: int
    ngram_digest: bytes = b""
    chunk_sizes: npt.NDArray[np.uint32]
    chunk_crcs: tuple[bytes, ...] = ()
    header_size: int
    file_size: int

    @property
    def bits_per_second(self) -> float:
        """True bit rate: all bytes of the file, over the duration."""
        return 8 * self.file_size / self.duration_s

    @property
    def packed_sizes(self) -> npt.NDArray[np.int64]:
        """Bytes of each chunk's payload in packed bits, shape (n_chunks,)."""
        starts = np.arange(len(self.chunk_sizes)) * self.chunk_length
        ends = np.minimum(starts + self.chunk_length, self.n_codes)
        return self.payload_size(starts, ends)

    @property
    def packed_size(self) -> int:
        """Bytes of the whole file if its chunks were packed bits."""
        saved = int((self.packed_sizes - self.chunk_sizes).sum())
        return self.file_size - len(self.ngram_digest) + saved


_Kind = TypeVar("_Kind", bound=StreamMetadata)


class FixedPart(SimpleNamespace):
    """The fixed part of a header as it stands in the file, an attribute for each of `FIELDS`.

    Only its form has been checked; n_samples is 0 in a streamed file, which tells it at its end.

    Attributes:
        data: The bytes that were read: in version 3 also the speaker and the streams.
    """

    @property
    def streams_at(self) -> int:
        """Bytes before the streams: the fixed part and the speaker."""
        return FIXED.size + (self.speaker_length or SPEAKER_LENGTH)

    @property
    def digest_at(self) -> int:
        """Bytes before the digest of the n-gram model."""
        return self.streams_at if self.version < VERSION else len(self.data)

    @property
    def index_at(self) -> int:
        """Bytes before the index."""
        return self.digest_at + (NGRAM_DIGEST_LENGTH if self.method == NGRAM_ANS else 0)

    def build(self, kind: type[_Kind], header: bytes, name: str, **others: Any) -> _Kind:
        """Make metadata of a whole header with its CRC-32, which starts with this part.

        `kind` is its dataclass; `others` are fields that neither the fixed part nor the speaker
        holds. Raises CodesError if the CRC differs or a field is out of range.
        """
        if header[-4:] != crc32(header[:-4]):
            raise damaged(name, "is damaged: the CRC of its header differs")
        if self.method not in METHODS:
            raise CodesError(
                f"{name}: has codes coded by the unknown method {self.method}; upgrade vqcodec"
            )
        known = {one.name: vars(self)[one.name] for one in fields(kind) if hasattr(self, one.name)}
        data = header[FIXED.size : self.streams_at]
        streams = unpack_streams(self.data[self.streams_at :], name)
        try:
            speaker = data.decode() if self.speaker_length else np.frombuffer(data, np.int8)
            return kind(**known, speaker=speaker, streams=streams, **others)
        except UnicodeDecodeError:
            fault = f"speaker must be UTF-8, not {data!r}"
        except CodesError as error:
            fault = str(error)
        raise CodesError(f"{name}: {fault}; encode the recording again with vqcodec")


def read_fixed_part(file: BinaryIO, name: str) -> FixedPart:
    """Read the first 42 bytes of a .codes file, and in version 3 up to the end of its streams.

    Raises CodesError if they are not as docs/format.md demands.
    """
    data = file.read(FIXED.size)
    if not data.startswith(MAGIC[: len(data)]):
        raise CodesError(f"{name}: is not a .codes file; make one with vqcodec encode")
    if len(data) > 4 and not 1 <= data[4] <= VERSION:
        raise CodesError(
            f"{name}: has format version {data[4]}, this vqcodec reads 1 to {VERSION}; "
            "upgrade vqcodec"
        )
    if len(data) < FIXED.size:
        raise damaged(name, f"is cut short: {len(data)} bytes are no whole header")
    fixed = FixedPart(data=data, **unpack_fields(FIELDS, FIXED.unpack(data)))
    if not (fixed.original_sample_rate and fixed.hop_length and fixed.chunk_length):
        raise damaged(name, "is damaged: a rate, hop length or chunk length of 0")
    if fixed.version == VERSION:
        fixed.data += file.read(fixed.streams_at + 1 - FIXED.size)
        n_streams = fixed.data[-1]
        wanted = fixed.streams_at + 1 + n_streams * RECORD.size
        fixed.data += file.read(n_streams * RECORD.size)
        if len(fixed.data) < wanted:
            raise damaged(name, f"is cut short: {len(fixed.data)} bytes are no whole header")
    return fixed


def pack_header(
    metadata: StreamMetadata, *, n_samples: int, index: bytes = b"", ngram_digest: bytes = b""
) -> bytes:
    """The header, its CRC-32 included; of a streamed file with n_samples 0 and without an index.

    With the digest of an n-gram model it is one of method 1.
    """
    speaker = metadata.speaker
    speaker_bytes = speaker.encode() if isinstance(speaker, str) else speaker.tobytes()
    values = vars(metadata) | {
        "magic": MAGIC,
        "version": VERSION if metadata.streams else VERSION_WITHOUT_STREAMS,
        "method": NGRAM_ANS if ngram_digest else PACKED_BITS,
        "speaker_length": len(speaker_bytes) if isinstance(speaker, str) else 0,
        "n_samples": n_samples,
        "chunk_length": CHUNK_LENGTH,
    }
    header = FIXED.pack(*pack_fields(FIELDS, values)) + speaker_bytes
    header += pack_streams(metadata.streams) + ngram_digest + index
    return header + crc32(header)


def unpack_header(file: BinaryIO, fixed: FixedPart, size: int, name: str) -> Header:
    """Read the header of a file of `size` bytes after its fixed part, and check it against them.

    Raises CodesError if either is not as docs/format.md demands.
    """
    n_chunks = ceil_div(count_codes(fixed, fixed.n_samples), fixed.chunk_length)
    # Nothing is read on the word of the header before the file is seen to be that long; in either
    # version a chunk takes 8 bytes beside its payload.
    least = fixed.index_at + 8 * n_chunks + 4
    if least > size:
        raise damaged(name, f"is cut short or damaged: {size} bytes, its header needs {least}")
    # Of each chunk the size, and from version 2 on the CRC-32.
    columns = 1 if fixed.version == 1 else 2
    crc_at = fixed.index_at + 4 * columns * n_chunks
    data = fixed.data + file.read(crc_at + 4 - len(fixed.data))
    index = np.frombuffer(data[fixed.index_at : crc_at], "<u4").reshape(n_chunks, columns)
    header = fixed.build(
        Header,
        data,
        name,
        ngram_digest=data[fixed.digest_at : fixed.index_at],
        chunk_sizes=index[:, 0].astype(np.uint32),
        chunk_crcs=tuple(crc.tobytes() for crc in index[:, 1:].ravel()),
        header_size=crc_at + 4,
        file_size=size,
    )
    _check_sizes(header, name)
    return header


def unpack_stream_header(
    file: BinaryIO, fixed: FixedPart, name: str
) -> tuple[StreamMetadata, bytes]:
    """Read the header of a streamed file after its fixed part: metadata, and the CRC-32.

    Raises CodesError if it is not as docs/format.md demands.
    """
    data = fixed.data + file.read(fixed.index_at + 4 - len(fixed.data))
    if len(data) < fixed.index_at + 4:
        raise damaged(name, f"is cut short: {len(data)} bytes are no whole header")
    metadata = fixed.build(StreamMetadata, data, name)
    if fixed.method != PACKED_BITS:
        raise damaged(name, f"is streamed and claims method {fixed.method}, not packed bits")
    return metadata, data[-4:]


def _check_sizes(header: Header, name: str) -> None:
    sizes = header.chunk_sizes
    if header.method == PACKED_BITS and (sizes != header.packed_sizes).any():
        raise damaged(name, "has an index whose chunk sizes do not fit its codes")
    if header.method == NGRAM_ANS and header.chunk_length > CHUNK_LENGTH:
        # A few bytes may hold any number of codes that were sure to come.
        limit = f"time steps, over {CHUNK_LENGTH}"
        raise damaged(name, f"has coded chunks of {header.chunk_length} {limit}")
    after_payloads = 0 if header.chunk_crcs else 4 * len(sizes)
    end = header.header_size + int(sizes.sum(dtype=np.int64)) + after_payloads
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
    if isinstance(speaker, np.ndarray) and speaker.dtype == np.int8:
        vector: npt.NDArray[np.int8] = speaker.copy()
        if vector.shape == (SPEAKER_LENGTH,):
            vector.setflags(write=False)
            return vector
    raise CodesError("speaker must be the name of a voice or an int8 vector of shape (64,)")


def count_codes(of: StreamMetadata | FixedPart, n_samples: int) -> int:
    """Time steps of a recording of n_samples, as docs/format.md counts them."""
    model_samples = ceil_div(n_samples * of.sample_rate, of.original_sample_rate)
    return ceil_div(model_samples, of.hop_length)
