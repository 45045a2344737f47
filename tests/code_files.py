"""Files of codes as older versions wrote them, and tables that no model has."""

from __future__ import annotations

import struct
import zlib
from fractions import Fraction
from math import ceil

import numpy as np

from vqcodec.format.ngram_coder import NgramTables


def as_version_1(data: bytes) -> bytes:
    """A file in the layout of before: CRCs of chunks behind them, and not in the index."""
    name_length = data[7] or 64
    index_at = 42 + name_length + 4 * data[5]
    samples = ceil(Fraction(struct.unpack_from("<Q", data, 24)[0] * 16_000)
                   / struct.unpack_from("<I", data, 20)[0])  # fmt: skip
    hop_length, chunk_length = struct.unpack_from("<HH", data, 38)
    n_chunks = ceil(ceil(Fraction(samples, hop_length)) / Fraction(chunk_length))
    at = index_at + 8 * n_chunks + 4
    header, chunks = data[:4] + b"\1" + data[5:index_at], b""
    for size, crc in struct.iter_unpack("<I4s", data[index_at : at - 4]):
        header += struct.pack("<I", size)
        chunks += data[at : at + size] + crc
        at += size
    return header + struct.pack("<I", zlib.crc32(header)) + chunks


def random_tables(
    seed: int, *, n_codebooks: int = 1, codebook_size: int = 20, n_context: int = 3
) -> NgramTables:
    """Tables of random numbers, the extremes of their types among them."""
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
    tables = {}
    for name, shape in shapes.items():
        kind = np.int16 if name.endswith("bias") else np.int8
        limits = np.iinfo(kind)
        table = rng.integers(limits.min, limits.max, shape, kind, endpoint=True)
        calm = rng.random(shape) < 0.9
        tables[name] = np.where(calm, table // 8, table).astype(kind)
    return NgramTables(**tables)
