"""The streamed layout of .codes: its laws and its refusals."""

from __future__ import annotations

import io
import itertools
import struct
import zlib

import numpy as np
import pytest
from code_files import METADATA, flipped, stream_as_version_1
from hypothesis import given
from hypothesis import strategies as st

from vqcodec.errors import CodesError
from vqcodec.format.codes import Codes, read_header, read_pipe
from vqcodec.format.header import StreamMetadata
from vqcodec.format.stream_records import CodeBlock
from vqcodec.format.streaming import Blocks, CodesStream


def stream(lengths: list[int], **changes: object) -> CodesStream:
    """Random codes in blocks of these lengths, at hop length 1."""
    rng = np.random.default_rng(len(lengths))
    metadata = StreamMetadata(**(METADATA | {"n_codebooks": 1} | changes))

    def blocks() -> Blocks:
        for length in lengths:
            shape = metadata.n_codebooks, length
            codes = rng.integers(0, metadata.codebook_size, shape).astype(np.uint16)
            yield CodeBlock(codes)
        return sum(lengths)

    return CodesStream(metadata, blocks())


def written(*arguments: object, **changes: object) -> bytes:
    file = io.BytesIO()
    stream(*arguments, **changes).write(file)
    return file.getvalue()


EITHER_VERSION = pytest.mark.parametrize(
    "layout", [bytes, stream_as_version_1], ids=["version 2", "version 1"]
)


def test_bytes_are_those_of_the_specified_layout():
    file = io.BytesIO()
    codes = np.array([[1, 256, 511]], np.uint16)

    def blocks() -> Blocks:
        yield CodeBlock(codes)
        yield CodeBlock(codes[:, :1])
        return 4

    CodesStream(stream([], fingerprint=bytes(8)).metadata, blocks()).write(file)
    assert file.getvalue().hex(" ", 2) == bytes.fromhex(
        "89565143 02 00 01 04 0000000000000000 803e0000 803e0000 0000000000000000 0000003f ff01"
        "0100 e204 70323235 9714d30b"
        "0300 00c03fe0 34e1ab54 0100 0080 2e433e2a 0000 0400000000000000 499562ca"
    ).hex(" ", 2)
    assert Codes.from_bytes(file.getvalue()).codes.tolist() == [[1, 256, 511, 1]]


def test_chunks_are_bound_to_their_stream():
    mine, other = written([30, 20, 10]), written([30, 20, 10, 0])  # other codes, the same header
    assert mine[:50] == other[:50]
    places = [50, 90, 119, 137]
    for start, stop in itertools.pairwise(places):
        mixed = mine[:start] + other[start:stop] + mine[stop:]
        with pytest.raises(CodesError, match=r"CRC of chunk \d differs"):
            Codes.from_bytes(mixed)
    louder = written([30, 20, 10], gain=0.25)
    for whole in (louder[:50] + mine[50:], mine[:50] + mine[50:90] + mine[50:]):
        with pytest.raises(CodesError, match=r"CRC of chunk [01] differs"):
            Codes.from_bytes(whole)


def test_streams_of_version_1_stay_readable():
    data = written([1300, 40])
    old = stream_as_version_1(data)
    assert len(old) == len(data)
    assert Codes.from_bytes(old) == Codes.from_bytes(data)


@given(
    lengths=st.lists(st.integers(1, 3000), min_size=1, max_size=4),
    n_codebooks=st.integers(1, 3),
    codebook_size=st.integers(2, 65_536),
)
def test_a_stream_holds_what_a_file_holds(lengths, n_codebooks, codebook_size):
    made = {"n_codebooks": n_codebooks, "codebook_size": codebook_size}
    codes = Codes.from_bytes(written(lengths, **made))
    assert codes == Codes.collect(stream(lengths, **made))
    assert codes.n_samples == sum(lengths)


def test_a_pipe_gives_every_chunk_before_the_next_has_been_written():
    left = iter([3, 5, 7])
    file = io.BytesIO()
    metadata = stream([]).metadata
    heard: list[int] = []

    def blocks() -> Blocks:
        for length in left:
            yield CodeBlock(np.zeros((1, length), np.uint16))
            # `write` has come back for more: what it was given can be read already.
            so_far = read_pipe(io.BytesIO(file.getvalue()), "pipe")
            assert isinstance(so_far, CodesStream)
            chunks = itertools.islice(so_far, len(heard) + 1)
            heard.append([chunk.shape[1] for chunk in chunks][-1])
        return 15

    CodesStream(metadata, blocks()).write(file)
    assert heard == [3, 5, 7]


def test_a_pipe_takes_a_file_with_an_index_too():
    codes = Codes.collect(stream([2000]))
    assert read_pipe(io.BytesIO(codes.to_bytes()), "pipe") == codes


@EITHER_VERSION
def test_every_truncation_and_every_flipped_bit_are_refused(layout):
    data = layout(written([3, 2]))
    truncated = (data[:size] for size in range(len(data)))
    for damaged in itertools.chain(truncated, flipped(data)):
        with pytest.raises(CodesError, match=r"^live: .*; "):
            Codes.from_bytes(damaged, "live")


def test_what_came_before_a_fault_has_been_heard():
    data = written([30, 20])
    read = read_pipe(io.BytesIO(data[:-20]), "live")
    heard = []
    with pytest.raises(CodesError, match="live: is cut short: the recording's end is missing"):
        heard.extend(read)
    assert [block.shape for block in heard] == [(1, 30)]
    assert read.n_samples is None


def test_a_wrong_length_with_a_right_crc_is_refused():
    data = written([3, 2])
    end = struct.pack("<HQ", 0, 6)
    crc = zlib.crc32(data[-18:-14] + end)
    with pytest.raises(CodesError, match="has 5 time steps, which 6 samples do not make"):
        Codes.from_bytes(data[:-14] + end + struct.pack("<I", crc))


def test_bytes_after_the_end_are_refused():
    with pytest.raises(CodesError, match="has bytes after its end"):
        Codes.from_bytes(written([3]) + b"\0")


def test_a_stored_stream_can_be_described(tmp_path):
    path = tmp_path / "live.codes"
    path.write_bytes(written([1300, 40]))
    header = read_header(path)
    assert (header.n_samples, header.n_codes, header.n_codebooks) == (1340, 1340, 1)
    assert header.file_size == path.stat().st_size


def test_a_stream_is_iterated_over_once():
    spent = stream([5])
    list(spent)
    with pytest.raises(CodesError, match="once"):
        Codes.collect(spent)
    with pytest.raises(CodesError, match="once"):
        spent.write(io.BytesIO())
