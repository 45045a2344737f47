"""The .codes file: its bytes, its laws and its refusals."""

from __future__ import annotations

import resource
import struct
import tracemalloc
import zlib
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from math import ceil
from pathlib import Path

import numpy as np
import pytest
from code_files import METADATA, as_version_1, documented_bytes, flipped, with_crc
from hypothesis import given, settings
from hypothesis import strategies as st

from vqcodec.errors import CodesError
from vqcodec.format.codes import Codes, read_header


def make(n_codes: int = 3, n_codebooks: int = 1, codebook_size: int = 512, **changes) -> Codes:
    rng = np.random.default_rng(n_codes)
    fields = {
        "codes": rng.integers(0, codebook_size, (n_codebooks, n_codes)),
        "codebook_size": codebook_size,
        "n_samples": n_codes,
    }
    return Codes(**(METADATA | fields | changes))


def documented() -> tuple[Codes, bytes]:
    """The example of docs/format.md."""
    codes = make(
        codes=np.array([[1, 256, 511]]), hop_length=128, original_sample_rate=48_000, n_samples=1000
    )
    return codes, documented_bytes(1)


def with_header(data: bytes, **fields: int | float | bytes) -> bytes:
    """Change header fields of a file with one chunk and a four-letter name; make its CRC right."""
    layout = {
        "method": "5sB", "speaker_length": "7sB", "original_sample_rate": "20sI",
        "n_samples": "24sQ", "gain": "32sf", "last_code": "36sH", "hop_length": "38sH",
        "chunk_length": "40sH", "speaker": "42s4s", "chunk_size": "46sI", "chunk_crc": "50sI",
    }  # fmt: skip
    for name, value in fields.items():
        before = struct.Struct("<" + layout[name])
        data = before.pack(data, value) + data[before.size :]
    return with_crc(data[:54]) + data[58:]


def with_payload(data: bytes, payload: bytes) -> bytes:
    """Change the payload of a file with one chunk and a four-letter name; make the CRCs right."""
    return with_header(data[:58], chunk_crc=zlib.crc32(bytes(8) + payload)) + payload


EITHER_VERSION = pytest.mark.parametrize(
    "written", [bytes, as_version_1], ids=["version 2", "version 1"]
)


def assert_refused(data: bytes, match: str | None = None) -> None:
    with pytest.raises(CodesError, match=match) as refusal:
        Codes.from_bytes(data, "speech.codes")
    message = str(refusal.value)
    assert message.startswith("speech.codes: ")
    assert "; " in message
    assert "\n" not in message


def test_bytes_are_those_of_the_documented_example() -> None:
    codes, data = documented()
    assert codes.to_bytes() == data
    assert Codes.from_bytes(data) == codes
    assert Codes.from_bytes(data).codes.tolist() == [[1, 256, 511]]


def test_packing_is_time_major_with_the_high_bit_first() -> None:
    codes = make(2, 2, 8, codes=np.array([[1, 3], [2, 4]]))
    assert codes.to_bytes()[58:] == bytes([0b001_010_01, 0b1_100_0000])


@settings(max_examples=60)
@given(data=st.data())
def test_round_trip(data: st.DataObject) -> None:
    size = data.draw(st.sampled_from([2, 3, 256, 257, 512, 1000, 65_535, 65_536]))
    original_rate = data.draw(st.integers(8_000, 192_000))
    n_samples = data.draw(st.integers(1, 500_000))
    hop = data.draw(st.sampled_from([64, 128, 320, 640]))
    n_codes = ceil(ceil(Fraction(n_samples * 16_000, original_rate)) / Fraction(hop))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    printable = st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"])
    names = st.text(printable, min_size=1, max_size=16)
    vectors = st.binary(min_size=64, max_size=64).map(lambda raw: np.frombuffer(raw, np.int8))
    codes = Codes(
        rng.integers(0, size, (data.draw(st.integers(1, 4)), n_codes)),
        codebook_size=size,
        sample_rate=16_000,
        hop_length=hop,
        fingerprint=data.draw(st.binary(min_size=8, max_size=8)),
        original_sample_rate=original_rate,
        n_samples=n_samples,
        gain=data.draw(st.floats(1e-30, 1e30)),
        speaker=data.draw(names | vectors),
    )
    written = codes.to_bytes()
    read = Codes.from_bytes(written)
    np.testing.assert_array_equal(read.codes, codes.codes)
    np.testing.assert_array_equal(read.speaker, codes.speaker)
    for name in ("codebook_size", "sample_rate", "hop_length", "fingerprint", "gain",
                 "original_sample_rate", "n_samples", "n_codebooks"):  # fmt: skip
        assert getattr(read, name) == getattr(codes, name)
    assert read == codes
    assert read.to_bytes() == written


def test_equality_sees_every_field() -> None:
    codes = make()
    assert codes == make()
    vector = np.arange(64, dtype=np.int8)
    for change in (
        {"codes": (codes.codes + 1) % 512}, {"codebook_size": 1024}, {"sample_rate": 15_999},
        {"fingerprint": bytes(8)}, {"gain": 0.25}, {"speaker": "p226"}, {"speaker": vector},
    ):  # fmt: skip
        assert replace(codes, **change) != codes


def test_codes_cannot_be_changed_behind_their_back() -> None:
    array = np.array([[1, 2, 3]])
    vector = np.zeros(64, np.int8)
    codes = make(codes=array, speaker=vector)
    array[:] = 600
    vector[:] = 1
    assert codes.codes.tolist() == [[1, 2, 3]]
    assert not codes.speaker.any()
    with pytest.raises(ValueError, match="read-only"):
        codes.codes[0, 0] = 600


def test_overhead_and_bit_rates_of_two_seconds() -> None:
    codes = make(250, hop_length=128, original_sample_rate=48_000, n_samples=96_000)
    size = len(codes.to_bytes())
    assert size - 282 == 58
    assert (size - 250 * 9 / 8) / size <= 0.25
    assert codes.duration_s == 2
    assert codes.nominal_bits_per_second == 1125
    assert codes.bits_per_second == size * 4


@EITHER_VERSION
@pytest.mark.parametrize("speaker", ["p225", np.full(64, -1, np.int8)], ids=["name", "vector"])
def test_every_truncation_is_refused(
    speaker: str | np.ndarray, written: Callable[[bytes], bytes]
) -> None:
    data = written(make(1260, codebook_size=2, speaker=speaker).to_bytes())
    for length in range(len(data)):
        assert_refused(data[:length], "cut short")


@EITHER_VERSION
def test_every_flipped_bit_is_refused(written: Callable[[bytes], bytes]) -> None:
    data = written(make(1260, codebook_size=2).to_bytes())
    for damaged in flipped(data):
        assert_refused(damaged)


@given(raw=st.binary(max_size=200), keep=st.integers(0, 62))
def test_noise_is_refused(raw: bytes, keep: int) -> None:
    _, data = documented()
    if data[:keep] + raw != data:
        assert_refused(data[:keep] + raw)


@EITHER_VERSION
def test_chunks_that_changed_places_are_refused(written: Callable[[bytes], bytes]) -> None:
    data = written(make(2500, codebook_size=2).to_bytes())
    start = 66 if data[4] == 2 else 58
    header, chunks = data[:start], data[start:]
    half = len(chunks) // 2
    assert_refused(header + chunks[half:] + chunks[:half], "CRC of chunk 0 differs")


def test_a_chunk_of_another_recording_is_refused_in_its_place() -> None:
    codes = make(2500, codebook_size=2)
    data, other = codes.to_bytes(), replace(codes, codes=1 - codes.codes).to_bytes()
    start, size = 66, 157
    # Even where the headers say the same of both recordings.
    assert data[:46] == other[:46]
    first, last = slice(start, start + size), slice(start + size, None)
    assert_refused(data[:start] + other[first] + data[last], "CRC of chunk 0 differs")
    assert_refused(data[:start] + data[first] + other[last], "CRC of chunk 1 differs")
    # With the place of the chunk in the index, too.
    swapped = data[:46] + other[46:54] + data[54:start] + other[first] + data[last]
    assert_refused(swapped, "CRC of its header differs")
    louder = replace(codes, gain=0.25).to_bytes()
    assert_refused(louder[:46] + data[46:], "CRC of its header differs")


def test_files_of_version_1_stay_readable() -> None:
    # The example that docs/format.md had in version 1.
    data = bytes.fromhex(
        "89565143 01 00 01 04 0123456789abcdef 803e0000 80bb0000 e803000000000000 0000003f ff01"
        "8000 e204 70323235 04000000 70da2b5e 00c03fe0 6b98ae12"
    )
    codes, now = documented()
    assert data == as_version_1(now)
    assert Codes.from_bytes(data) == codes


def test_bytes_after_the_end_are_refused() -> None:
    assert_refused(make().to_bytes() + b"\0", "has 1 bytes after its end; copy it again")


def test_other_files_and_other_versions_are_refused_by_name() -> None:
    data = make().to_bytes()
    assert_refused(b"RIFF" + data[4:], "is not a .codes file; make one with vqcodec encode")
    newer = data[:4] + b"\4" + data[5:]
    assert_refused(newer, "format version 4, this vqcodec reads 1 to 3; upgrade vqcodec")
    assert_refused(newer[:30], "upgrade vqcodec")


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"method": 2}, "unknown method 2; upgrade vqcodec"),
        ({"speaker": b"p2\n5"}, r"without control characters, not 'p2\\n5'; encode"),
        ({"speaker": b"\xff225"}, "speaker must be UTF-8"),
        ({"original_sample_rate": 0}, "length of 0"),
        ({"original_sample_rate": 768_001}, "original_sample_rate must be .*768000, not 768001"),
        ({"hop_length": 0}, "length of 0"),
        ({"chunk_length": 0}, "length of 0"),
        ({"n_samples": 4}, "chunk sizes do not fit"),
        ({"last_code": 0}, "codebook_size must be .* 2..65536, not 1;"),
        ({"gain": 0.0}, "gain must be a positive, normal float32, not 0.0;"),
        ({"gain": -1.0}, "not -1.0;"),
        ({"gain": float("nan")}, "not nan;"),
        ({"gain": float("inf")}, "not inf;"),
        ({"chunk_size": 5}, "chunk sizes do not fit"),
        ({"chunk_size": 2**32 - 1}, "chunk sizes do not fit"),
    ],
)
def test_wrong_fields_with_a_right_crc_are_refused(fields: dict, match: str) -> None:
    data = make(codebook_size=256).to_bytes()
    assert with_header(data) == data
    assert_refused(with_header(data, **fields), match)


def test_a_sample_rate_of_0_which_makes_no_chunks_is_refused() -> None:
    header = make().to_bytes()[:46]
    header = header[:16] + bytes(4) + header[20:]
    assert_refused(with_crc(header), "sample_rate must be .* not 0;")


def test_a_name_longer_than_a_speaker_may_be_is_refused() -> None:
    data = make(speaker="n" * 64).to_bytes()
    header = data[:7] + b"\x41" + data[8:42] + b"n" * 65 + data[106:114]
    assert_refused(with_crc(header) + data[118:], "speaker must be 1..64 bytes")


@pytest.mark.parametrize(
    "fields",
    [
        {"n_samples": 10**12},
        {"n_samples": 2**64 - 1, "original_sample_rate": 1},
        {"n_samples": 65_535, "chunk_length": 65_535},
        {"n_samples": 65_535, "chunk_length": 65_535, "chunk_size": 65_535},
        {"chunk_size": 2**32 - 1},
    ],
)
def test_absurd_claims_are_refused_without_allocating_them(fields: dict) -> None:
    data = with_header(make(codebook_size=256).to_bytes(), **fields)
    assert_refused(data)  # imports and caches settle
    tracemalloc.start()
    try:
        assert_refused(data)
        assert tracemalloc.get_traced_memory()[1] < 50_000
    finally:
        tracemalloc.stop()


def test_padding_and_codes_outside_the_codebook_are_refused() -> None:
    data = make(codebook_size=5, codes=np.array([[0, 1, 4]])).to_bytes()
    assert with_payload(data, data[58:60]) == data
    assert_refused(
        with_payload(data, bytes([0b000_001_10, 0b0_0000001])), "padding bits .* chunk 0"
    )
    assert_refused(with_payload(data, bytes([0b000_001_10, 0b1_0000000])), "code 5 .* 5 entries")


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"codes": np.array([1, 2, 3])}, "array of integers"),
        ({"codes": np.array([[1.0, 2, 3]])}, "array of integers"),
        ({"codes": [[1, 2, 3]]}, "array of integers"),
        ({"codes": np.array([[1, 2]])}, "3 time steps for 3 samples at 16000 Hz, not 2"),
        ({"codes": np.array([[-1, 2, 3]])}, r"not -1\.\.3"),
        ({"codes": np.array([[1, 2, 512]])}, r"size 512 and not negative, not 1\.\.512"),
        ({"codes": np.zeros((33, 3), int)}, r"n_codebooks must be .* 1\.\.32, not 33"),
        ({"n_samples": 0, "codes": np.zeros((1, 0), int)}, r"n_samples .* 1\.\..*, not 0"),
        ({"sample_rate": 16_000.0}, r"sample_rate .* whole number .*, not 16000\.0"),
        ({"codebook_size": 65_537}, "codebook_size .* not 65537"),
        ({"fingerprint": b"short"}, "fingerprint must be 8 bytes"),
        ({"gain": 1e39}, "gain must be .* not 1e\\+39"),
        ({"gain": "loud"}, "gain must be .* not 'loud'"),
        ({"speaker": ""}, "1..64 bytes"),
        ({"speaker": "é" * 33}, "1..64 bytes"),
        ({"speaker": "\ud800"}, r"without control characters, not '\\ud800'"),
        ({"speaker": "a\u2028b"}, "without control characters"),
        ({"speaker": np.zeros(64)}, "int8 vector"),
        ({"speaker": np.zeros(63, np.int8)}, "int8 vector"),
        ({"speaker": None}, "int8 vector"),
    ],
)
def test_impossible_codes_are_refused_when_made(changes: dict, match: str) -> None:
    with pytest.raises(CodesError, match=match):
        make(**changes)


def test_a_header_is_read_without_the_payloads(tmp_path: Path) -> None:
    path = tmp_path / "speech.codes"
    make(3000).save(path)
    data = bytearray(path.read_bytes())
    data[read_header(path).header_size] ^= 1
    path.write_bytes(data)
    assert read_header(path).n_codes == 3000
    with pytest.raises(CodesError, match=r"speech\.codes: is damaged: the CRC of chunk 0 differs"):
        Codes.load(path)


def test_header_tells_what_the_file_holds(tmp_path: Path) -> None:
    path = tmp_path / "speech.codes"
    codes = make(3000, 2, speaker=np.arange(64, dtype=np.int8))
    size = codes.save(path)
    header = read_header(path)
    assert size == header.file_size == path.stat().st_size
    assert header.n_codebooks == 2
    assert header.chunk_sizes.tolist() == [2813, 2813, 1125]
    assert header.bits_per_second == codes.bits_per_second
    np.testing.assert_array_equal(header.speaker, np.arange(64))


def test_saving_replaces_whole_files_and_a_failure_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "speech.codes"
    make().save(path)
    old = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(
            CodesError, match=r"speech\.codes: cannot be written .* check the folder"
        ):
            make(3000).save(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == old
    assert list(tmp_path.iterdir()) == [path]
    assert make(3000).save(path) == path.stat().st_size
    assert Codes.load(path) == make(3000)
    assert list(tmp_path.iterdir()) == [path]


def test_paths_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    with pytest.raises(CodesError, match=r"absent/a.codes: cannot be written \(No such file"):
        make().save(tmp_path / "absent" / "a.codes")
    with pytest.raises(CodesError, match="is not a regular file"):
        make().save("/dev/null")
    with pytest.raises(CodesError, match=r"absent.codes: cannot be read \(No such file"):
        Codes.load(tmp_path / "absent.codes")
    with pytest.raises(CodesError, match=r"cannot be read \(Is a directory"):
        read_header(tmp_path)


@pytest.mark.parametrize("read", [Codes.load, read_header])
def test_what_never_ends_is_refused_at_its_beginning(read):
    with pytest.raises(CodesError, match=r"/dev/zero: is not a \.codes file"):
        read("/dev/zero")
