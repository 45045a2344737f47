"""Damage code files at random: each must still hold what it held, or be refused in one line."""

from __future__ import annotations

import io
import struct
import sys
import zlib
from collections import Counter
from itertools import product
from typing import Annotated

import numpy as np
import typer
from command import run

from vqcodec.errors import CodesError
from vqcodec.format.bit_packing import crc, place
from vqcodec.format.codes import Codes
from vqcodec.format.header import StreamMetadata, read_prologue
from vqcodec.format.ngram_coder import NgramTables
from vqcodec.format.streaming import Blocks, CodesStream

NAME = "damaged.codes"
WHOLE, SAME, REFUSED = "not damaged after all", "damaged, yet the same codes", "refused"
OTHER = "other codes, with the checksums made right"
N_CODES, CODEBOOK_SIZE = 1400, 16


def repeating_tables(n_codebooks: int) -> NgramTables:
    """Tables that expect each codebook's last code to come again."""
    identity = np.eye(CODEBOOK_SIZE, dtype=np.int8)
    every = (n_codebooks, 1, 1)
    bias = np.zeros((n_codebooks, CODEBOOK_SIZE), np.int16)
    context = np.zeros((n_codebooks, n_codebooks, *identity.shape), np.int8)
    context[:, -1] = 127 * identity
    rows = np.concatenate([127 * identity, np.zeros((1, CODEBOOK_SIZE), np.int8)])
    return NgramTables(
        embedding=np.tile(rows, every),
        context=context,
        context_bias=bias,
        hidden=np.tile(64 * identity, every),
        hidden_bias=bias,
        output=np.tile(100 * identity, every),
        output_bias=bias,
    )


def whole_files(rng: np.random.Generator, tables: NgramTables) -> dict[bytes, Codes]:
    """Files of both methods and layouts, with a name and with a vector, and what they hold."""
    files: dict[bytes, Codes] = {}
    changes = rng.integers(0, CODEBOOK_SIZE, (tables.n_codebooks, N_CODES // 20))
    steady, restless = (
        np.repeat(changes, 20, axis=1),
        rng.integers(0, CODEBOOK_SIZE, (tables.n_codebooks, N_CODES)),
    )
    speakers: list[str | np.ndarray] = ["p225", rng.integers(-128, 128, 64, np.int8)]
    for array, speaker in product((steady, restless), speakers):
        metadata = StreamMetadata(
            n_codebooks=tables.n_codebooks,
            codebook_size=CODEBOOK_SIZE,
            sample_rate=16_000,
            hop_length=1,
            fingerprint=rng.bytes(8),
            original_sample_rate=16_000,
            gain=0.5,
            speaker=speaker,
        )
        stream = io.BytesIO()
        CodesStream(metadata, blocks(array)).write(stream)
        packed = Codes.from_bytes(stream.getvalue(), tables=tables)
        files |= {stream.getvalue(): packed, packed.to_bytes(): packed}
    return files


def blocks(array: np.ndarray) -> Blocks:
    """Codes as they would come live."""
    yield from np.array_split(array.astype(np.uint16), 7, axis=1)
    return array.shape[1]


def harmed(rng: np.random.Generator, data: bytes, other: bytes) -> bytes:
    """Do one thing to a file that disks, networks and people do."""
    start, stop = sorted(rng.integers(0, len(data) + 1, 2).tolist())
    # Half of all strikes hit the header.
    place = int(rng.integers(0, len(data) if rng.random() < 0.5 else min(len(data), 130)))
    before, struck, after = data[:place], data[place], data[place + 1 :]
    match rng.integers(0, 7):
        case 0:
            return before + bytes([struck ^ 1 << int(rng.integers(0, 8))]) + after
        case 1:
            return before + rng.bytes(int(rng.integers(1, 9))) + after
        case 2:
            return before + bytes([int(rng.choice([0, 1, 127, 128, 255]))]) + after
        case 3:
            return data[:stop]
        case 4:
            return data[:start] + data[stop:]
        case 5:
            return data[:stop] + data[start:]
        case _:
            foreign = int(rng.integers(0, len(other)))
            return data[:start] + other[foreign : foreign + stop - start] + data[stop:]


def repaired(data: bytes) -> bytes:
    """Make the checksums of a damaged file right, as far as its layout can be made out."""
    try:
        prologue = read_prologue(io.BytesIO(data), NAME)
    except CodesError:
        return data
    samples = -(-prologue.n_samples * prologue.sample_rate // prologue.original_sample_rate)
    n_chunks = -(-samples // prologue.hop_length // prologue.chunk_length)
    crc_at = prologue.index_at + 8 * n_chunks
    if crc_at + 4 > len(data):
        return data
    header, at = data[: prologue.index_at], crc_at + 4
    for number in range(n_chunks):
        (size,) = struct.unpack_from("<I", data, prologue.index_at + 8 * number)
        header += struct.pack("<I", size) + crc(place(number), data[at : at + size])
        at += size
    return header + struct.pack("<I", zlib.crc32(header)) + data[crc_at + 4 :]


def outcome(data: bytes, tables: NgramTables, codes: Codes, *, trusted: bool) -> str:
    """What comes of reading a damaged file.

    Args:
        data: the file.
        tables: for the entropy coder.
        codes: what it held.
        trusted: the checksums were made right, so that other codes are no fault.

    Raises:
        AssertionError: other codes, or a refusal that is not one line with the file's name.
    """
    try:
        is_same = Codes.from_bytes(data, NAME, tables=tables) == codes
    except CodesError as error:
        message = str(error)
        if not message.startswith(f"{NAME}: ") or "\n" in message:
            raise AssertionError(f"not one line with the file's name: {message!r}") from None
        return REFUSED
    if is_same:
        return SAME
    assert trusted, "other codes were read"
    return OTHER


def main(
    files: Annotated[int, typer.Option(min=1, help="Damaged files to read.")] = 100_000,
    seed: Annotated[int, typer.Option(help="Of the damage.")] = 0,
) -> None:
    """Read damaged files, half of them with the checksums made right."""
    rng = np.random.default_rng(seed)
    tables = repeating_tables(2)
    whole = whole_files(rng, tables)
    originals = list(whole)
    counts: Counter[str] = Counter()
    for number in range(files):
        chosen, other = (originals[i] for i in rng.integers(0, len(originals), 2))
        data, trusted = harmed(rng, chosen, other), bool(number % 2)
        if trusted:
            data = repaired(data)
        if data in whole:
            counts[WHOLE] += 1
            continue
        try:
            counts[outcome(data, tables, whole[chosen], trusted=trusted)] += 1
        except Exception as error:
            sys.exit(f"file {number} of seed {seed}: {error!r}")
    for result, count in sorted(counts.items()):
        typer.echo(f"{count} {result}")


if __name__ == "__main__":
    run(main)
