"""Code files that earlier versions wrote: they stay readable, and what is written stays the same.

Every file of `goldens` has the codes of its name, in version 1, in version 2, and in version 3 with
the stream of `with_pitch`: `packed` has two chunks and a named speaker, `ngram` two codebooks, a
speaker vector and `repeating_model`, and `streamed` four chunks of 25 time steps or fewer.
"""

from __future__ import annotations

import hashlib
import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from code_files import as_version_1, repeating_model, stream_as_version_1

from vqcodec.format.codes import Codes, read_header, read_pipe
from vqcodec.format.stream_records import StreamRecord
from vqcodec.format.streaming import CodesStream

ROOT = Path(__file__).parents[2]
GOLDENS = Path(__file__).parent / "goldens"
# The first bytes of the SHA-256 of the codes, uint16, little-endian, codebook after codebook.
DIGESTS = {
    "packed": "3f16fb9ecde4e6ad",
    "ngram": "23990c437c191bf5",
    "streamed": "7f984cd393c0c88e",
    "espeak": "7482a6ccc3c229ad",
    "rms": "152107182eec7c28",
    "slt": "d9e6477fcb6bbbe6",
}


TABLES = replace(repeating_model(2), streams={"pitch": repeating_model(1, 64)})
PITCH = StreamRecord(kind="pitch", codes_per_symbol=4, alphabet_size=64, step=50, reference=123.25)


def read(path: Path) -> Codes:
    return Codes.load(path, tables=TABLES)


def with_pitch(codes: Codes) -> Codes:
    symbols = np.arange(codes.n_codes // 4) // 7 % 64
    return replace(codes, streams=(PITCH,), symbols={"pitch": symbols})


def digest(codes: Codes) -> str:
    return hashlib.sha256(codes.codes.astype("<u2").tobytes()).hexdigest()[:16]


@pytest.mark.parametrize("version", [1, 2, 3])
@pytest.mark.parametrize("name", ["packed", "ngram", "streamed"])
def test_goldens_decode_to_the_same_codes(name: str, version: int) -> None:
    path = GOLDENS / f"{name}_v{version}.codes"
    assert path.read_bytes()[4:6] == bytes([version, name == "ngram"])
    assert digest(read(path)) == DIGESTS[name]
    if version == 3:
        assert read(path) == with_pitch(read(GOLDENS / f"{name}_v2.codes"))
    if name == "packed":
        assert read_header(path).packed_size == path.stat().st_size


@pytest.mark.parametrize("name", ["packed", "ngram"])
def test_goldens_are_written_as_the_same_bytes(name: str) -> None:
    current = (GOLDENS / f"{name}_v2.codes").read_bytes()
    old = GOLDENS / f"{name}_v1.codes"
    assert read(old).to_bytes() == current
    assert as_version_1(current) == old.read_bytes()
    assert with_pitch(read(old)).to_bytes() == (GOLDENS / f"{name}_v3.codes").read_bytes()


def test_a_golden_stream_is_written_as_the_same_bytes() -> None:
    current = (GOLDENS / "streamed_v2.codes").read_bytes()
    for version, expected in ((1, 2), (2, 2), (3, 3)):
        data = (GOLDENS / f"streamed_v{version}.codes").read_bytes()
        stream, again = read_pipe(io.BytesIO(data), "golden"), io.BytesIO()
        assert isinstance(stream, CodesStream)
        stream.write(again)
        assert again.getvalue() == (GOLDENS / f"streamed_v{expected}.codes").read_bytes()
    assert stream_as_version_1(current) == (GOLDENS / "streamed_v1.codes").read_bytes()


@pytest.mark.parametrize("name", ["espeak", "rms", "slt"])
def test_samples_of_a_packaged_model_are_read_and_written_alike(name: str) -> None:
    path = ROOT / "samples" / f"{name}.codes"
    codes = Codes.load(path)
    assert digest(codes) == DIGESTS[name]
    assert codes.to_bytes() == path.read_bytes()
