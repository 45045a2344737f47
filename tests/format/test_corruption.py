"""Code files damaged at random: each still holds what it held, or is refused in one line."""

from __future__ import annotations

import io
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from code_files import METADATA, repeating_model, with_crc

from vqcodec.errors import CodesError
from vqcodec.format.codes import Codes
from vqcodec.format.fields import crc32
from vqcodec.format.header import StreamMetadata, count_codes, read_fixed_part
from vqcodec.format.stream_records import CodeBlock, StreamRecord, split
from vqcodec.format.streaming import Blocks, CodesStream

N_CODES, N_CODEBOOKS, CODEBOOK_SIZE = 1400, 2, 16
MODEL = replace(
    repeating_model(N_CODEBOOKS, CODEBOOK_SIZE), streams={"pitch": repeating_model(1, 64)}
)
PITCH = StreamRecord(kind="pitch", codes_per_symbol=4, alphabet_size=64, step=50, reference=200)


def blocks(codes: np.ndarray, streams: tuple[StreamRecord, ...]) -> Blocks:
    symbols = {one.kind: (codes[0, 3::4] // 3).astype(np.uint16) for one in streams}
    yield from split(CodeBlock(codes.astype(np.uint16), symbols), streams, 0, 200)
    return codes.shape[1]


def whole_files(rng: np.random.Generator) -> dict[bytes, Codes]:
    """Files of both methods and layouts, speakers of both forms, with a stream and without."""
    files: dict[bytes, Codes] = {}
    steady, restless = (
        np.repeat(rng.integers(0, CODEBOOK_SIZE, (N_CODEBOOKS, N_CODES // n)), n, axis=1)
        for n in (20, 1)
    )
    speakers = "p225", rng.integers(-9, 9, 64, np.int8)
    for codes, speaker, streams in product((steady, restless), speakers, ((), (PITCH,))):
        sizes = {"n_codebooks": N_CODEBOOKS, "codebook_size": CODEBOOK_SIZE}
        own = {"fingerprint": rng.bytes(8), "speaker": speaker, "streams": streams}
        stream = io.BytesIO()
        metadata = StreamMetadata(**(METADATA | sizes | own))
        CodesStream(metadata, blocks(codes, streams)).write(stream)
        read = Codes.from_bytes(stream.getvalue(), tables=MODEL)
        files |= {stream.getvalue(): read, read.to_bytes(): read}
    return files


def damage(rng: np.random.Generator, data: bytes, other: bytes) -> bytes:
    """Do one thing to a file that disks, networks and people do; half of it to the header."""
    start, stop = sorted(rng.integers(0, len(data) + 1, 2).tolist())
    at = int(rng.integers(0, len(data) if rng.random() < 0.5 else min(len(data), 130)))
    foreign = int(rng.integers(0, len(other)))
    struck = rng.choice([data[at] ^ 1 << int(rng.integers(0, 8)), 0, 1, 127, 128, 255])
    return [
        data[:at] + bytes([struck]) + data[at + 1 :],
        data[:at] + rng.bytes(int(rng.integers(1, 9))) + data[at + 1 :],
        data[:stop],
        data[:start] + data[stop:],
        data[:stop] + data[start:],
        data[:start] + other[foreign : foreign + stop - start] + data[stop:],
    ][rng.integers(0, 6)]


def with_right_checksums(data: bytes) -> bytes:
    """Make the checksums of a damaged file right, as far as its layout can be made out."""
    try:
        fixed = read_fixed_part(io.BytesIO(data), "damaged")
    except CodesError:
        return data
    n_chunks = -(-count_codes(fixed, fixed.n_samples) // fixed.chunk_length)
    end = fixed.index_at + 8 * n_chunks + 4
    if end > len(data):
        return data
    header, at = data[: fixed.index_at], end
    for number in range(n_chunks):
        size = data[fixed.index_at + 8 * number :][:4]
        payload = data[at : at + int.from_bytes(size, "little")]
        header += size + crc32(number.to_bytes(8, "little"), payload)
        at += len(payload)
    return with_crc(header) + data[end:]


@pytest.mark.parametrize(
    ("is_mended", "n_files"),
    [
        pytest.param(False, 1000, id="as it is"),
        pytest.param(True, 300, id="with right checksums"),  # of which much has to be decoded
    ],
)
def test_damaged_files_are_refused_or_hold_what_they_held(is_mended: bool, n_files: int) -> None:
    rng = np.random.default_rng(0)
    files = whole_files(rng)
    originals, refusals = list(files), []
    for _ in range(n_files):
        chosen, other = (originals[i] for i in rng.integers(0, len(originals), 2))
        data = damage(rng, chosen, other)
        if is_mended:
            data = with_right_checksums(data)
        try:
            read = Codes.from_bytes(data, "damaged.codes", tables=MODEL)
            same = read == files[chosen]
        except CodesError as error:
            refusals.append(str(error))
        else:
            # With the checksums made right, other codes are no fault.
            assert same or is_mended or data in files
    assert len(refusals) > 0.7 * n_files
    assert all(one.startswith("damaged.codes: ") and "\n" not in one for one in refusals)
