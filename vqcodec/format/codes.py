"""Codes and the .codes file, as specified in docs/format.md. Imports no torch."""

from __future__ import annotations

import io
import os
import stat
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import MISSING, dataclass, field, fields, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import numpy.typing as npt

from vqcodec.errors import CodesError
from vqcodec.files import replacing
from vqcodec.format.bit_packing import pack
from vqcodec.format.chunks import CodedChunks, coded_payloads, read_payloads, unpacked
from vqcodec.format.fields import crc32, damaged
from vqcodec.format.header import (
    CHUNK_LENGTH,
    MAGIC,
    PACKED_BITS,
    FixedPart,
    Header,
    Metadata,
    StreamMetadata,
    pack_header,
    read_fixed_part,
    unpack_header,
)
from vqcodec.format.stream_records import CodeBlock, checked_symbols, joined, split
from vqcodec.format.streaming import CodesStream, read_stream

if TYPE_CHECKING:
    from vqcodec.format.ngram_coder import NgramModel


@dataclass(frozen=True, eq=False, repr=False)
class Codes(Metadata):
    """One recording as discrete codes; the other fields are those of `Metadata`.

    Two `Codes` are equal if their files of packed bits are the same bytes. Those of an
    entropy-coded file are decoded when `codes` is first asked for, and cost nothing before.

    Args:
        codes: Integers in [0, codebook_size), shape (n_codebooks, n_codes); kept as a read-only
            uint16 copy.
        symbols: Of each of `streams`, by its kind, the symbols: integers in [0, alphabet_size),
            shape (n_codes // codes_per_symbol,); kept as the codes are.
        tables: N-gram model for the entropy coder; when None, the one of the packaged model that
            the fingerprint names, if any.

    Raises:
        CodesError: If a field has another type, shape or range.
    """

    codes: npt.NDArray[np.uint16]
    n_codebooks: int = field(init=False)
    symbols: Mapping[str, npt.NDArray[np.uint16]] = field(default_factory=dict, kw_only=True)
    tables: NgramModel | None = field(default=None, kw_only=True, repr=False)

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
        symbols = checked_symbols(self.symbols, self.streams, self.n_codes)
        self._keep(CodeBlock(codes.astype(np.uint16), symbols))

    def _keep(self, block: CodeBlock) -> None:
        for array in (block.codes, *block.symbols.values()):
            array.setflags(write=False)
        vars(self).update(codes=block.codes, symbols=dict(block.symbols))
        vars(self).pop("_coded", None)

    if not TYPE_CHECKING:
        # What a call forgets is named, with what else makes codes.
        def __new__(cls, *positional: Any, **given: Any) -> Codes:  # noqa: D102
            required = {
                one.name
                for one in fields(cls)
                if one.init and one.default is one.default_factory is MISSING
            }
            missing = sorted(required - given.keys() - ({"codes"} if positional else set()))
            if missing and (positional or given):  # without either, it is being unpickled
                raise CodesError(
                    f"Codes need {', '.join(missing)}, too; Codec.encode makes them of a "
                    "recording, Codec.codes of units, and Codes.load reads a file"
                )
            return super().__new__(cls)

        def __getattr__(self, name: str) -> Any:
            coded = vars(self).get("_coded")
            if name not in ("codes", "symbols") or coded is None:
                raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
            self._keep(coded.joined(coded.model.decode(coded.chunks)))
            return vars(self)[name]

    def __repr__(self) -> str:
        from vqcodec.weights.registry import maker

        books = f"{self.n_codebooks} x " if self.n_codebooks > 1 else ""
        beside = "".join(f" and their {one.kind}" for one in self.streams)
        who = f"speaker {self.speaker}" if isinstance(self.speaker, str) else "a voice of their own"
        model = maker(self.fingerprint) or self.fingerprint.hex()
        return (
            f"<Codes of {self.duration_s:.2f} s: {books}{self.n_codes} codes of "
            f"{self.bits_per_code} bits{beside}, {who}, model {model}>"
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Codes) and self._packed() == other._packed()

    @property
    def bits_per_second(self) -> float:
        """True bit rate: all bytes of the file, over the duration."""
        return 8 * len(self.to_bytes()) / self.duration_s

    def to_bytes(self) -> bytes:
        """The .codes file as bytes, in the smaller of packed bits and, with `tables`, ngram-ans.

        The same codes, metadata and n-gram model always give the same bytes.
        """
        model = self.tables or _packaged_model(self)
        packed = self._packed()
        if model is None or not _fits(model, self):
            return packed
        try:
            payloads = [model.encode(chunk) for chunk in self._chunks()]
        except ValueError:
            return packed
        coded = self._joined(payloads, model.digest_with(one.kind for one in self.streams))
        return coded if len(coded) < len(packed) else packed

    def _packed(self) -> bytes:
        return self._joined([pack(chunk, self) for chunk in self._chunks()])

    def _chunks(self) -> Iterator[CodeBlock]:
        return split(CodeBlock(self.codes, self.symbols), self.streams, 0, CHUNK_LENGTH)

    def _joined(self, payloads: list[bytes], ngram_digest: bytes = b"") -> bytes:
        index = b"".join(
            len(payload).to_bytes(4, "little") + crc32(number.to_bytes(8, "little"), payload)
            for number, payload in enumerate(payloads)
        )
        header = pack_header(self, n_samples=self.n_samples, index=index, ngram_digest=ngram_digest)
        return header + b"".join(payloads)

    @classmethod
    def from_bytes(
        cls, data: bytes, name: str = "<bytes>", *, tables: NgramModel | None = None
    ) -> Codes:
        """Read the bytes of a .codes file, which errors call `name`; otherwise as `load`."""
        return cls._read(io.BytesIO(data), len(data), name, tables)

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
    def load(cls, path: str | os.PathLike[str], *, tables: NgramModel | None = None) -> Codes:
        """Read a .codes file.

        Args:
            path: The file.
            tables: N-gram model for the entropy coder; the packaged models' are known.

        Raises:
            CodesError: If the file cannot be read, is not as docs/format.md demands, or needs an
                n-gram model that is not known. Where its checksums are right and an entropy-coded
                payload is impossible, so that no writer made it, `codes` raises it.
        """
        with _opened(path) as (file, size):
            return cls._read(file, size, str(path), tables)

    @classmethod
    def collect(cls, stream: CodesStream) -> Codes:
        """Wait for the end of a stream.

        Raises:
            CodesError: Whatever the stream raises.
        """
        codes, symbols = joined(stream.blocks())
        assert stream.n_samples is not None
        known = {**_fields(stream.metadata), "n_samples": stream.n_samples}
        return cls(codes, symbols=symbols, **known)

    @classmethod
    def _read(cls, file: BinaryIO, size: int, name: str, tables: NgramModel | None) -> Codes:
        fixed = read_fixed_part(file, name)
        if fixed.n_samples == 0:
            return replace(_read_whole_stream(file, fixed, name), tables=tables)
        header = unpack_header(file, fixed, size, name)
        model = _model_of(header, name, tables)
        payloads = read_payloads(file, header, name)
        known = {**_fields(header), "tables": model}
        if header.method == PACKED_BITS:
            block = unpacked(payloads, header, name)
            return cls(block.codes, symbols=block.symbols, **known)
        assert model is not None
        # The header has been checked, and the model gives no code that is not in the codebook.
        codes = object.__new__(cls)
        coded = CodedChunks(coded_payloads(payloads, header), model, name)
        vars(codes).update(known, n_codebooks=header.n_codebooks, _coded=coded)
        return codes


def decode_together(many: Iterable[Codes]) -> None:
    """Decode what entropy-coded files hold, which takes less time side by side.

    What is wrong with one of them is told when its `codes` are asked for.
    """
    groups: dict[tuple[int, int], list[Codes]] = defaultdict(list)
    for one in many:
        if coded := vars(one).get("_coded"):
            groups[id(coded.model), len(one.streams)].append(one)
    for own in groups.values():
        parts: list[CodedChunks] = [vars(one)["_coded"] for one in own]
        found = iter(parts[0].model.decode([chunk for part in parts for chunk in part.chunks]))
        for one, part in zip(own, parts, strict=True):
            blocks = list(islice(found, len(part.chunks)))  # all, or the next file would get them
            with suppress(CodesError):
                one._keep(part.joined(blocks))


def read_pipe(
    file: BinaryIO, name: str, *, tables: NgramModel | None = None
) -> Codes | CodesStream:
    """Read codes from a pipe, which need not seek: a streamed file as it comes, any other whole.

    `name` and `tables` are as in `Codes.from_bytes`. Raises CodesError as `Codes.load`; of a
    streamed file only the header is read here.
    """
    fixed = read_fixed_part(file, name)
    if fixed.n_samples == 0:
        return read_stream(file, fixed, name)
    return Codes.from_bytes(fixed.data + file.read(), name, tables=tables)


def read_header(path: str | os.PathLike[str]) -> Header:
    """Read and check the header of a .codes file; no payload is read, unless it is streamed.

    Raises:
        CodesError: If the file cannot be read, or its header or size is damaged.
    """
    with _opened(path) as (file, size):
        fixed = read_fixed_part(file, str(path))
        if fixed.n_samples:
            return unpack_header(file, fixed, size, str(path))
        codes = _read_whole_stream(file, fixed, str(path))
    return Header(
        **_fields(codes),
        n_codebooks=codes.n_codebooks,
        method=fixed.method,
        chunk_length=fixed.chunk_length,
        chunk_sizes=np.zeros(0, np.uint32),
        header_size=fixed.index_at + 4,
        file_size=size,
    )


def _fields(metadata: StreamMetadata) -> dict[str, Any]:
    """What metadata says and `Codes` takes."""
    names = {one.name for one in fields(Metadata)} & vars(metadata).keys()
    return {name: getattr(metadata, name) for name in names - {"n_codebooks"}}


def _read_whole_stream(file: BinaryIO, fixed: FixedPart, name: str) -> Codes:
    codes = Codes.collect(read_stream(file, fixed, name))
    if file.read(1):
        raise damaged(name, "has bytes after its end")
    return codes


@contextmanager
def _opened(path: str | os.PathLike[str]) -> Iterator[tuple[BinaryIO, int]]:
    try:
        with open(path, "rb") as file:
            status = os.fstat(file.fileno())
            if stat.S_ISREG(status.st_mode):
                yield file, status.st_size
            else:  # a pipe, which has no size and can be read but once
                data = file.read(len(MAGIC))
                if data == MAGIC:  # or it may never end
                    data += file.read()
                yield io.BytesIO(data), len(data)
    except OSError as error:
        raise CodesError(
            f"{path}: cannot be read ({error.strerror}); check the path and its permissions"
        ) from error


def _model_of(header: Header, name: str, given: NgramModel | None) -> NgramModel | None:
    """The n-gram model that a file is coded with, or that its codes may be coded with."""
    if header.method == PACKED_BITS:
        return given
    for model in (given, _packaged_model(header)):
        kinds = [one.kind for one in header.streams]
        if model is None or not set(kinds) <= model.streams.keys():
            continue
        if model.digest_with(kinds) == header.ngram_digest:
            if _fits(model, header):
                return model
            raise damaged(name, "is not laid out as the model that it names")
    raise CodesError(
        f"{name}: is coded with the tables {header.ngram_digest.hex()} of model "
        f"{header.fingerprint.hex()}, which are not known; give that model (--model)"
    )


def _fits(model: NgramModel, metadata: StreamMetadata) -> bool:
    layout = metadata.n_codebooks, metadata.codebook_size
    beside = {kind: own.codebook_size for kind, own in model.streams.items()}
    return (model.n_codebooks, model.codebook_size) == layout and all(
        beside.get(one.kind) == one.alphabet_size for one in metadata.streams
    )


def _packaged_model(metadata: StreamMetadata) -> NgramModel | None:
    # The compiler, which the coder needs, takes time to import.
    from vqcodec.format.ngram_coder import packaged

    return packaged().get(metadata.fingerprint)
