"""Code files that earlier versions wrote: they stay readable, and what is written stays the same.

Every file of `goldens` has the codes of its name, in version 1 and in version 2: `packed` has two
chunks and a named speaker, `ngram` two codebooks, a speaker vector and `repeating_model`, and
`streamed` four chunks of 25 time steps or fewer.
"""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import pytest
from code_files import as_version_1, repeating_model, stream_as_version_1

from vqcodec.format.codes import Codes, read_header, read_pipe
from vqcodec.format.streaming import CodesStream

ROOT = Path(__file__).parents[2]
GOLDENS = Path(__file__).parent / "goldens"
# The first bytes of the SHA-256 of the codes, uint16, little-endian, codebook after codebook.
DIGESTS = {
    "packed": "3f16fb9ecde4e6ad",
    "ngram": "23990c437c191bf5",
    "streamed": "7f984cd393c0c88e",
    "espeak": "550628a7111b57ed",
    "rms": "7bfdebbf738b2e28",
    "slt": "7dab70d71b5dbc64",
}


def read(path: Path) -> Codes:
    return Codes.load(path, tables=repeating_model(2))


def digest(codes: Codes) -> str:
    return hashlib.sha256(codes.codes.astype("<u2").tobytes()).hexdigest()[:16]


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("name", ["packed", "ngram", "streamed"])
def test_goldens_decode_to_the_same_codes(name: str, version: int) -> None:
    path = GOLDENS / f"{name}_v{version}.codes"
    assert path.read_bytes()[4:6] == bytes([version, name == "ngram"])
    assert digest(read(path)) == DIGESTS[name]
    if name == "packed":
        assert read_header(path).packed_size == path.stat().st_size


@pytest.mark.parametrize("name", ["packed", "ngram"])
def test_goldens_are_written_as_the_same_bytes(name: str) -> None:
    current = (GOLDENS / f"{name}_v2.codes").read_bytes()
    old = GOLDENS / f"{name}_v1.codes"
    assert read(old).to_bytes() == current
    assert as_version_1(current) == old.read_bytes()


def test_a_golden_stream_is_written_as_the_same_bytes() -> None:
    current = (GOLDENS / "streamed_v2.codes").read_bytes()
    for version in (1, 2):
        data = (GOLDENS / f"streamed_v{version}.codes").read_bytes()
        stream, again = read_pipe(io.BytesIO(data), "golden"), io.BytesIO()
        assert isinstance(stream, CodesStream)
        stream.write(again)
        assert again.getvalue() == current
    assert stream_as_version_1(current) == (GOLDENS / "streamed_v1.codes").read_bytes()


@pytest.mark.parametrize("name", ["espeak", "rms", "slt"])
def test_samples_of_a_packaged_model_are_read_and_written_alike(name: str) -> None:
    path = ROOT / "samples" / f"{name}.codes"
    codes = Codes.load(path)
    assert digest(codes) == DIGESTS[name]
    assert codes.to_bytes() == path.read_bytes()
