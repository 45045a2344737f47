"""Files of version 3: streams beside the codes, their laws and their refusals."""

from __future__ import annotations

import io
import itertools
import pickle
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from code_files import FORMAT, METADATA, documented_bytes, flipped, random_model, with_crc
from hypothesis import given
from hypothesis import strategies as st

from vqcodec.errors import CodesError
from vqcodec.format.codes import Codes, read_header, read_pipe
from vqcodec.format.header import StreamMetadata
from vqcodec.format.ngram_coder import NgramModel
from vqcodec.format.stream_records import STREAM_FIELDS, CodeBlock, StreamRecord, split
from vqcodec.format.streaming import Blocks, CodesStream

PITCH = StreamRecord(kind="pitch", codes_per_symbol=4, alphabet_size=50, step=50, reference=120.5)
CODEBOOK, ALPHABET = 20, PITCH.alphabet_size
TABLES = replace(
    random_model(1, codebook_size=CODEBOOK),
    streams={"pitch": random_model(2, codebook_size=ALPHABET)},
)
START = 42 + 4 + 11  # of what follows the streams, after a speaker of four letters


def make(
    n_codes: int = 1403, n_codebooks: int = 1, record: StreamRecord = PITCH, **changes
) -> Codes:
    rng = np.random.default_rng(n_codes)
    n_symbols = n_codes // record.codes_per_symbol
    fields = {
        "codes": rng.integers(0, CODEBOOK, (n_codebooks, n_codes)),
        "codebook_size": CODEBOOK,
        "n_samples": n_codes,
        "streams": (record,),
        "symbols": {"pitch": rng.integers(0, record.alphabet_size, n_symbols)},
    }
    return Codes(**(METADATA | fields | changes))


def steady(n_codes: int = 1403, **changes) -> Codes:
    """Codes that entropy coding makes smaller."""
    codes = make(n_codes, tables=TABLES)
    likely = np.zeros_like(codes.codes)
    for position in range(n_codes):
        likely[0, position] = TABLES.costs(likely[:, : position + 1][:, -3:])[-1, 0].argmin()
    return replace(codes, codes=likely, **changes)


def live(codes: Codes, lengths: list[int]) -> CodesStream:
    def blocks() -> Blocks:
        whole, start = CodeBlock(codes.codes, codes.symbols), 0
        for length in lengths:
            part = CodeBlock(
                whole.codes[:, start : start + length],
                {"pitch": whole.symbols["pitch"][start // 4 : (start + length) // 4]},
            )
            yield part
            start += length
        return codes.n_samples

    known = {name: getattr(codes, name) for name in (*METADATA, "n_codebooks", "streams")}
    return CodesStream(StreamMetadata(**(known | {"codebook_size": CODEBOOK})), blocks())


def test_the_documented_table_is_the_declared_one() -> None:
    types = {"B": "u8", "H": "u16", "f": "f32"}
    offset, text = 0, FORMAT.read_text(encoding="utf-8")
    for field in STREAM_FIELDS:
        allowed = field.allowed
        if isinstance(allowed, tuple):
            allowed = "..".join(f"{limit - field.less:,}" for limit in allowed)
        name = f"{field.name} - {field.less}" if field.less else field.name
        cells = offset, types[field.type], name, allowed, field.meaning
        assert f"| {' | '.join(map(str, cells))} |\n" in text
        offset += struct.calcsize("<" + field.type)


def test_bytes_are_those_of_the_documented_example() -> None:
    codes = Codes(
        np.array([[1, 256, 511]]),
        **METADATA | {"hop_length": 128, "original_sample_rate": 48_000},
        n_samples=1000,
        streams=(
            StreamRecord(
                kind="pitch", codes_per_symbol=2, alphabet_size=64, step=50, reference=200
            ),
        ),
        symbols={"pitch": np.array([33])},
    )
    assert codes.to_bytes() == documented_bytes(2)
    assert Codes.from_bytes(documented_bytes(2)) == codes


@given(
    n_codes=st.integers(1, 2600),
    n_codebooks=st.integers(1, 3),
    per_symbol=st.integers(1, 255),
    alphabet_size=st.sampled_from([2, 3, 64, 66, 65_536]),
)
def test_round_trip(n_codes: int, n_codebooks: int, per_symbol: int, alphabet_size: int) -> None:
    record = replace(PITCH, codes_per_symbol=per_symbol, alphabet_size=alphabet_size)
    codes = make(n_codes, n_codebooks, record)
    written = codes.to_bytes()
    read = Codes.from_bytes(written)
    assert written[4] == 3
    assert read == codes
    assert read.to_bytes() == written
    assert read.streams == (record,)
    np.testing.assert_array_equal(read.codes, codes.codes)
    np.testing.assert_array_equal(read.symbols["pitch"], codes.symbols["pitch"])
    assert not read.symbols["pitch"].flags.writeable


def test_files_without_streams_stay_what_they_were() -> None:
    codes = make()
    bare = replace(codes, streams=(), symbols={})
    data = bare.to_bytes()
    assert data[4] == 2
    assert Codes.from_bytes(data).symbols == {}
    assert bare != codes
    assert bare.nominal_bits_per_second == codes.nominal_bits_per_second - 6 * 16_000 / 4


def test_equality_and_description_tell_of_streams() -> None:
    codes = make()
    other = {"pitch": (codes.symbols["pitch"] + 1) % ALPHABET}
    assert replace(codes, symbols=other) != codes
    assert replace(codes, streams=(replace(PITCH, reference=121),)) != codes
    assert "codes of 5 bits and their pitch" in repr(codes)


def test_coded_files_hold_the_same_and_are_decoded_when_asked_for() -> None:
    codes = steady(2600)
    data = codes.to_bytes()
    assert data[4:6] == b"\3\1"
    assert len(data) < len(replace(codes, tables=None).to_bytes())
    for read in (Codes.from_bytes(data, tables=TABLES), pickle.loads(pickle.dumps(codes))):
        np.testing.assert_array_equal(read.symbols["pitch"], codes.symbols["pitch"])
        np.testing.assert_array_equal(read.codes, codes.codes)
        assert read == codes
        assert read.to_bytes() == data
    for tables in (replace(TABLES, streams={}), replace(TABLES, streams={"pitch": TABLES})):
        with pytest.raises(CodesError, match=r"is coded with the tables .* which are not known"):
            Codes.from_bytes(data, tables=tables)
        assert replace(codes, tables=tables).to_bytes()[4:6] == b"\3\0"


def test_tables_of_streams_are_kept_in_model_files() -> None:
    tensors = TABLES.to_tensors()
    assert {"entropy.hidden", "entropy.pitch.hidden"} <= tensors.keys()
    again = NgramModel.from_tensors(tensors)
    assert again.digest == random_model(1, codebook_size=CODEBOOK).digest
    assert again.digest_with(["pitch"]) == TABLES.digest_with(["pitch"]) != again.digest


@pytest.mark.parametrize("lengths", [[1403], [25] * 56 + [3], [1, 2, 3, 1397]])
def test_live_codes_are_those_of_a_file(lengths: list[int]) -> None:
    codes, file = make(), io.BytesIO()
    live(codes, lengths).write(file)
    assert Codes.from_bytes(file.getvalue()) == codes
    assert Codes.collect(live(codes, lengths)) == codes
    stream = read_pipe(io.BytesIO(file.getvalue()), "pipe")
    assert isinstance(stream, CodesStream)
    assert stream.metadata.streams == (PITCH,)
    parts = [len(block.symbols["pitch"]) for block in stream.blocks()]
    ends = [end // 4 for end in itertools.accumulate(lengths, initial=0)]
    expected = np.diff(ends).tolist()
    assert sum(parts) == sum(expected)
    if max(lengths) <= 1250:
        assert parts == expected


def test_a_block_is_cut_as_a_file_is() -> None:
    codes = make(100)
    whole = CodeBlock(codes.codes[:, 10:], {"pitch": codes.symbols["pitch"][2:]})
    parts = list(split(whole, (PITCH,), 10, 7))
    assert np.array_equal(np.concatenate([p.codes for p in parts], axis=1), whole.codes)
    for number, part in enumerate(parts):
        start, end = 10 + 7 * number, min(17 + 7 * number, 100)
        expected = codes.symbols["pitch"][start // 4 : end // 4]
        assert np.array_equal(part.symbols["pitch"], expected)


def written(codes: Codes) -> bytes:
    file = io.BytesIO()
    live(codes, [3, codes.n_codes - 3]).write(file)
    return file.getvalue()


@pytest.mark.parametrize("form", [Codes.to_bytes, written])
def test_every_flipped_bit_and_every_truncation_is_refused(form) -> None:
    for codes in (make(300), steady(300)):
        data = form(codes)
        truncated = (data[:length] for length in range(len(data)))
        for damaged in itertools.chain(flipped(data), truncated):
            with pytest.raises(CodesError, match=r"^speech\.codes: .*; "):
                Codes.from_bytes(damaged, "speech.codes", tables=TABLES)


@pytest.mark.parametrize(
    ("offset", "value", "match"),
    [
        (46, b"\0", "has 0 streams, not 1 to 8"),
        (47, b"\2", "a stream of the unknown kind 2; upgrade vqcodec"),
        (48, b"\0", "a stream whose codes_per_symbol must be .* 1..255, not 0"),
        (49, b"\0\0", "a stream whose alphabet_size must be .* 2..65536, not 1"),
        (51, b"\0\0", "a stream whose step must be .* 1..65535, not 0"),
        (53, struct.pack("<f", -1.0), "a stream whose reference must be a positive"),
        (53, struct.pack("<f", float("nan")), "a stream whose reference must be a positive"),
        (48, b"\5", "chunk sizes do not fit"),
        (49, b"\x3f\1", "chunk sizes do not fit"),
    ],
)
def test_wrong_fields_with_a_right_crc_are_refused(offset: int, value: bytes, match: str) -> None:
    data = make(300).to_bytes()
    header = data[:offset] + value + data[offset + len(value) : START + 8]
    if offset == 46:
        header = header[:47] + header[START:]
    with pytest.raises(CodesError, match=match):
        Codes.from_bytes(with_crc(header) + data[START + 12 :])


def test_a_kind_may_stand_there_but_once() -> None:
    data = make(300).to_bytes()
    header = data[:46] + b"\2" + 2 * data[47:START] + data[START : START + 8]
    with pytest.raises(CodesError, match=r"streams must be of different kinds in their order"):
        Codes.from_bytes(with_crc(header) + data[START + 12 :])


def test_symbols_outside_their_alphabet_are_refused() -> None:
    codes = make(4, record=replace(PITCH, alphabet_size=64))
    data = replace(codes, symbols={"pitch": np.array([63])}).to_bytes()
    smaller = data[:49] + struct.pack("<H", 59) + data[51 : START + 8]
    with pytest.raises(CodesError, match="pitch symbol 63 in chunk 0, of 60 that there are"):
        Codes.from_bytes(with_crc(smaller) + data[START + 12 :])


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"symbols": {}}, r"must be of the streams \['pitch'\], not of \[\]"),
        ({"streams": ()}, r"must be of the streams \[\], not of \['pitch'\]"),
        ({"streams": (PITCH, PITCH)}, "of different kinds"),
        ({"symbols": {"pitch": np.zeros(3, int)}}, r"array of integers, \(350,\)"),
        ({"symbols": {"pitch": np.zeros(350)}}, r"array of integers, \(350,\)"),
        ({"symbols": {"pitch": np.full(350, 50)}}, r"below 50 and not negative, not 50\.\.50"),
        ({"symbols": {"pitch": np.full(350, -1)}}, r"not -1\.\.-1"),
    ],
)
def test_impossible_symbols_are_refused_when_made(changes: dict, match: str) -> None:
    with pytest.raises(CodesError, match=match):
        make(**changes)


def test_only_known_kinds_exist() -> None:
    with pytest.raises(CodesError, match="must be one of pitch, not 'rhythm'"):
        replace(PITCH, kind="rhythm")


def test_a_header_tells_of_streams(tmp_path: Path) -> None:
    path, codes = tmp_path / "speech.codes", make(3000)
    size = codes.save(path)
    header = read_header(path)
    assert header.streams == (PITCH,)
    assert header.file_size == header.packed_size == size
    path.write_bytes(written(codes))
    assert read_header(path).streams == (PITCH,)
