"""Code files as version 1 had them, metadata, and n-gram models that no packaged model has."""

from __future__ import annotations

import itertools
import re
import struct
import zlib
from collections.abc import Iterator
from fractions import Fraction
from math import ceil
from pathlib import Path

import numpy as np

from vqcodec.format.ngram_coder import NgramModel

FORMAT = Path(__file__).parents[1] / "docs" / "format.md"
METADATA = {
    "codebook_size": 512,
    "sample_rate": 16_000,
    "hop_length": 1,  # at one rate, so that there are as many codes as samples
    "fingerprint": bytes.fromhex("0123456789abcdef"),
    "original_sample_rate": 16_000,
    "gain": 0.5,
    "speaker": "p225",
}


def documented_bytes(number: int) -> bytes:
    """The hex dump of that number in docs/format.md."""
    dump, data = FORMAT.read_text(encoding="utf-8").split("```hex\n")[number], b""
    for line in dump.split("```")[0].splitlines():
        offset, digits, _ = re.split(r"  +", line, maxsplit=2)
        assert int(offset) == len(data)
        data += bytes.fromhex(digits)
    return data


def flipped(data: bytes) -> Iterator[bytes]:
    """The data with each of its bits flipped."""
    for bit in range(8 * len(data)):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        yield bytes(changed)


def with_crc(header: bytes) -> bytes:
    return header + struct.pack("<I", zlib.crc32(header))


def as_version_1(data: bytes) -> bytes:
    """A file in the layout of version 1: CRCs of chunks behind them, and not in the index."""
    index_at = 42 + (data[7] or 64) + 4 * data[5]
    (sample_rate, original_rate, n_samples) = struct.unpack_from("<IIQ", data, 16)
    hop_length, chunk_length = struct.unpack_from("<HH", data, 38)
    samples = ceil(Fraction(n_samples * sample_rate, original_rate))
    n_chunks = ceil(Fraction(ceil(Fraction(samples, hop_length)), chunk_length))
    at = index_at + 8 * n_chunks + 4
    header, chunks = data[:4] + b"\1" + data[5:index_at], b""
    for size, crc in struct.iter_unpack("<I4s", data[index_at : at - 4]):
        header += struct.pack("<I", size)
        chunks += data[at : at + size] + crc
        at += size
    return with_crc(header) + chunks


def stream_as_version_1(data: bytes) -> bytes:
    """A stream of one codebook in that layout: CRCs of the chunk's number, not the last.

    What follows the stream's end is kept.
    """
    start = 42 + (data[7] or 64)
    bits = struct.unpack_from("<H", data, 36)[0].bit_length()
    parts, at = [with_crc(data[:4] + b"\1" + data[5:start])], start + 4
    for number in itertools.count():
        (length,) = struct.unpack_from("<H", data, at)
        chunk = data[at : at + 2 + (ceil(Fraction(length * bits, 8)) or 8)]
        parts += [chunk, struct.pack("<I", zlib.crc32(struct.pack("<Q", number) + chunk))]
        at += len(chunk) + 4
        if not length:
            return b"".join(parts) + data[at:]


def random_model(
    seed: int, *, n_codebooks: int = 1, codebook_size: int = 20, n_context: int = 3
) -> NgramModel:
    """A model of random numbers, the extremes of their types among them."""
    rng = np.random.default_rng(seed)
    q, k, width, first, second = n_codebooks, codebook_size, 4, 6, 5
    shapes = {
        "embedding": (q, k + 1, width),
        "context": (q, n_context, width, first),
        "context_bias": (q, first),
        "hidden": (q, first, second),
        "hidden_bias": (q, second),
        "output": (q, second, k),
        "output_bias": (q, k),
    }
    arrays = {}
    for name, shape in shapes.items():
        kind = np.int16 if name.endswith("bias") else np.int8
        limits = np.iinfo(kind)
        array = rng.integers(limits.min, limits.max, shape, kind, endpoint=True)
        calm = rng.random(shape) < 0.9
        arrays[name] = np.where(calm, array // 8, array).astype(kind)
    return NgramModel(**arrays)


def repeating_model(n_codebooks: int, codebook_size: int = 16) -> NgramModel:
    """A model that expects each codebook's last code to come again."""
    identity = np.eye(codebook_size, dtype=np.int8)
    every = (n_codebooks, 1, 1)
    bias = np.zeros((n_codebooks, codebook_size), np.int16)
    context = np.zeros((n_codebooks, n_codebooks, *identity.shape), np.int8)
    context[:, -1] = 127 * identity
    rows = np.concatenate([127 * identity, np.zeros((1, codebook_size), np.int8)])
    return NgramModel(
        embedding=np.tile(rows, every),
        context=context,
        context_bias=bias,
        hidden=np.tile(64 * identity, every),
        hidden_bias=bias,
        output=np.tile(100 * identity, every),
        output_bias=bias,
    )
