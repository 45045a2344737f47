"""The entropy coder: its bytes, its laws, its tables and what it refuses."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import struct
import subprocess
import sys
import zlib
from dataclasses import fields, replace
from functools import cache, partial
from math import isqrt

import numpy as np
import pytest
import torch
from code_files import as_version_1, random_model
from hypothesis import given, settings
from hypothesis import strategies as st
from vqcodec_cli.main import main

from vqcodec.errors import CheckpointError, CodesError, DataError
from vqcodec.format import ngram_coder
from vqcodec.format.codes import Codes, read_header, read_pipe
from vqcodec.format.ngram_coder import NgramModel
from vqcodec.models.config import ModelConfig
from vqcodec.models.vqvae import VQVAE
from vqcodec.training import ngram
from vqcodec.weights import checkpoint, registry

SIZE = 24


def likely_codes(n_codes: int, seed: int = 0, n_codebooks: int = 1) -> np.ndarray:
    """Codes that go up by one, stay, or, seldom, jump: far fewer bits than packed."""
    rng = np.random.default_rng(seed)
    steps = rng.choice([0, 1, 7], (n_codebooks, n_codes), p=[0.5, 0.45, 0.05])
    return (np.cumsum(steps, axis=1) % SIZE).astype(np.uint16)


@cache
def fitted(n_codebooks: int = 1) -> NgramModel:
    sequences = [likely_codes(2000, seed, n_codebooks) for seed in range(1, 6)]
    return ngram.fit(sequences, SIZE, n_context=2 * n_codebooks, width=8, units=32, steps=400)


def make(n_codes: int = 1500, **changes) -> Codes:
    fields = {
        "codes": likely_codes(n_codes),
        "codebook_size": SIZE,
        "sample_rate": 16_000,
        "hop_length": 1,
        "fingerprint": bytes.fromhex("0123456789abcdef"),
        "original_sample_rate": 16_000,
        "n_samples": n_codes,
        "gain": 0.5,
        "speaker": "p225",
        "tables": fitted(),
    }
    return Codes(**(fields | changes))


def specified(tables: NgramModel, codes: np.ndarray) -> bytes:
    """Encode as docs/format.md says, in Python's own integers."""
    t = {field.name: getattr(tables, field.name).tolist() for field in fields(tables)}
    n_books, size = len(codes), tables.codebook_size
    n_context = len(t["context"][0])
    symbols = codes.T.ravel().tolist()
    intervals = []
    for p, symbol in enumerate(symbols):
        q = p % n_books
        a = list(t["context_bias"][q])
        for i in range(1, n_context + 1):
            before = symbols[p - i] if p >= i else size
            row = t["embedding"][(p - i) % n_books][before]
            for d, value in enumerate(row):
                a = [x + value * w for x, w in zip(a, t["context"][q][i - 1][d], strict=True)]
        u = [min(max((x + 64) >> 7, 0), 255) for x in a]
        b = t["hidden_bias"][q]
        for value, row in zip(u, t["hidden"][q], strict=True):
            b = [x + value * w for x, w in zip(b, row, strict=True)]
        v = [min(max((x + 32) >> 6, 0), 255) for x in b]
        logits = t["output_bias"][q]
        for value, row in zip(v, t["output"][q], strict=True):
            logits = [x + value * w for x, w in zip(logits, row, strict=True)]
        powers = []
        for logit in logits:
            d = (max(logits) - logit) >> 3
            root = 1 << (24 * 256 - d % 256)
            for _ in range(8):
                root = isqrt(root)
            powers.append(root >> min(d // 256, 31))
        scale = ((2**24 - size) << 32) // sum(powers)
        f = [1 + (power * scale >> 32) for power in powers]
        f[logits.index(max(logits))] += 2**24 - sum(f)
        intervals.append((f[symbol], sum(f[:symbol])))
    state, words = 0, []
    for f, below in reversed(intervals):
        if state >= f << 40:
            words.append(state % 2**32)
            state >>= 32
        state = (state // f << 24) + state % f + below
    while state:
        words.append(state % 2**32)
        state >>= 32
    return b"".join(word.to_bytes(4, "little") for word in words).rstrip(b"\0")


@pytest.mark.parametrize(
    ("n_codebooks", "codebook_size", "n_context", "length"),
    [(1, 20, 3, 200), (3, 20, 4, 40), (2, 2, 1, 100), (1, 600, 9, 20), (1, 20, 3, 0)],
)
def test_bytes_are_those_that_the_format_specifies(n_codebooks, codebook_size, n_context, length):
    tables = random_model(
        length, n_codebooks=n_codebooks, codebook_size=codebook_size, n_context=n_context
    )
    codes = np.random.default_rng(1).integers(0, codebook_size, (n_codebooks, length), np.uint16)
    payload = tables.encode(codes)
    assert payload == specified(tables, codes)
    np.testing.assert_array_equal(tables.decode(payload, length), codes)


@settings(max_examples=40)
@given(
    seed=st.integers(0, 2**32),
    n_codebooks=st.integers(1, 4),
    codebook_size=st.sampled_from([2, 3, 64, 500]),
    n_context=st.integers(1, 10),
    length=st.integers(0, 60),
)
def test_what_is_encoded_comes_back(seed, n_codebooks, codebook_size, n_context, length):
    tables = random_model(
        seed, n_codebooks=n_codebooks, codebook_size=codebook_size, n_context=n_context
    )
    codes = np.random.default_rng(seed).integers(0, codebook_size, (n_codebooks, length), np.uint16)
    np.testing.assert_array_equal(tables.decode(tables.encode(codes), length), codes)


@pytest.mark.parametrize("n_codebooks", [1, 3])
def test_costs_are_the_bits_that_codes_take(n_codebooks):
    tables = random_model(2, n_codebooks=n_codebooks)
    codes = np.random.default_rng(0).integers(0, 20, (n_codebooks, 300)).astype(np.uint16)
    costs = tables.costs(codes)
    assert costs.shape == (300, n_codebooks, 20)
    assert np.exp2(-costs.astype(np.float64)).sum(-1) == pytest.approx(1, abs=1e-5)
    own = np.take_along_axis(costs, codes.T[..., None].astype(np.int64), -1)
    assert own.sum() == pytest.approx(8 * len(tables.encode(codes)), abs=40)  # the coder's words


def test_the_largest_sums_do_not_overflow():
    # All as large as a table may be, in the direction that adds up.
    tables = NgramModel(
        np.full((1, 3, 1024), -128, np.int8),
        np.full((1, 64, 1024, 4), -128, np.int8),
        np.full((1, 4), 32767, np.int16),
        np.full((1, 4, 1024), 127, np.int8),
        np.full((1, 1024), 32767, np.int16),
        np.stack([np.full(1024, 127, np.int8), np.full(1024, -128, np.int8)], axis=1)[None],
        np.array([[32767, -32768]], np.int16),
    )
    codes = np.array([[0, 0, 1, 0]], np.uint16)
    payload = tables.encode(codes)
    # Code 0 is all but certain.
    assert payload == specified(tables, codes) == b"\1\0\0\1"
    np.testing.assert_array_equal(tables.decode(payload, 4), codes)


def test_a_changed_payload_never_gives_the_same_codes():
    tables, codes = fitted(), likely_codes(100)
    payload = tables.encode(codes)
    n_refused = 0
    for bit in range(8 * len(payload)):
        changed = bytearray(payload)
        changed[bit // 8] ^= 1 << bit % 8
        try:
            assert not np.array_equal(tables.decode(bytes(changed), 100), codes)
        except ValueError:
            n_refused += 1
    assert n_refused > 0
    with pytest.raises(ValueError, match="zero byte at the end"):
        tables.decode(payload + b"\0", 100)
    with pytest.raises(ValueError, match="no codes make"):
        tables.decode(payload + bytes(8) + b"\1", 100)


SAME_BYTES = """
import sys
import numpy as np
from vqcodec.format.ngram_coder import NgramModel
assert "torch" not in sys.modules
with np.load(sys.argv[1]) as file:
    arrays = dict(file)
codes = arrays.pop("codes")
payload = NgramModel.from_tensors(arrays).encode(codes)
print(payload.hex())
"""


def test_another_processor_and_more_threads_give_the_same_bytes(tmp_path):
    tables, codes = fitted(), likely_codes(1250)
    np.savez(tmp_path / "tables.npz", codes=codes, **tables.to_tensors())
    plain = {
        "NPY_DISABLE_CPU_FEATURES": "AVX2 FMA3 AVX512F AVX512_SKX",
        "NUMBA_CPU_NAME": "generic",
        "NUMBA_CPU_FEATURES": "",
        "NUMBA_CACHE_DIR": str(tmp_path),
        "OMP_NUM_THREADS": "4",
        "NUMBA_NUM_THREADS": "4",
    }
    command = [sys.executable, "-W", "ignore", "-c", SAME_BYTES, str(tmp_path / "tables.npz")]
    done = subprocess.run(
        command, env=os.environ | plain, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == tables.encode(codes).hex()


# Tables


def test_tables_come_back_from_their_tensors():
    tables = random_model(0)
    tensors = tables.to_tensors()
    assert all(name.startswith("entropy.") for name in tensors)
    again = NgramModel.from_tensors(tensors)
    assert again.digest == tables.digest
    codes = np.arange(20, dtype=np.uint16)[None]
    assert again.encode(codes) == tables.encode(codes)


def test_every_number_of_a_table_changes_the_name_of_the_tables():
    tables = random_model(0)
    digests = {tables.digest}
    for field in fields(tables):
        changed = getattr(tables, field.name).copy()
        changed.flat[-1] ^= 1
        digests.add(replace(tables, **{field.name: changed}).digest)
    assert len(digests) == 8


def test_the_name_of_the_tables_is_the_specified_hash():
    tables = random_model(3)
    whole = hashlib.sha256()
    for field in fields(tables):
        table = getattr(tables, field.name)
        whole.update(f"entropy.{field.name} {list(table.shape)}".encode() + table.tobytes())
    assert tables.digest == whole.digest()[:4]


@pytest.mark.parametrize(
    ("name", "table", "fault"),
    [
        ("hidden", None, "entropy.hidden missing or unknown"),
        ("other", np.zeros(3, np.int8), "entropy.other missing or unknown"),
        ("hidden", np.zeros((1, 6, 5), np.float32), "hidden is not a table of int8"),
        ("hidden_bias", np.zeros((1, 5), np.int8), "hidden_bias is not a table of int16"),
        ("hidden", np.zeros((1, 0, 5), np.int8), "hidden is not a table of int8"),
        ("hidden", np.zeros((6, 5), np.int8), "another number of dimensions"),
        ("hidden", np.zeros((1, 7, 5), np.int8), r"hidden is \(1, 7, 5\), not \(1, 6, 5\)"),
        ("output", np.zeros((1, 5, 21), np.int8), r"output is \(1, 5, 21\), not \(1, 5, 20\)"),
        ("embedding", np.zeros((2, 21, 4), np.int8), r"context is \(1, 3, 4, 6\), not \(2, 3"),
        ("embedding", np.zeros((1, 2, 4), np.int8), "output is"),
    ],
)
def test_damaged_tables_are_refused_in_one_line(name, table, fault):
    tensors = random_model(0).to_tensors() | {f"entropy.{name}": table}
    if table is None:
        del tensors[f"entropy.{name}"]
    with pytest.raises(CheckpointError, match=fault) as refused:
        NgramModel.from_tensors(tensors)
    assert "\n" not in str(refused.value)


def test_tables_whose_sums_could_overflow_are_refused():
    with pytest.raises(CheckpointError, match="larger than any that vqcodec makes"):
        random_model(0, n_context=65)


def test_tables_that_would_fill_the_memory_are_refused():
    zeros = partial(np.zeros, dtype=np.int8)
    rows, context, units = 4097, 64, 1024  # 4096 would fit
    with pytest.raises(CheckpointError, match="larger than any that vqcodec makes"):
        NgramModel(
            embedding=zeros((1, rows, 1)),
            context=zeros((1, context, 1, units)),
            context_bias=np.zeros((1, units), np.int16),
            hidden=zeros((1, units, 1)),
            hidden_bias=np.zeros((1, 1), np.int16),
            output=zeros((1, 1, rows - 1)),
            output_bias=np.zeros((1, rows - 1), np.int16),
        )


# Fitting


@pytest.mark.parametrize("n_codebooks", [1, 2])
def test_fitted_tables_know_what_follows(n_codebooks):
    codes = likely_codes(1250, 99, n_codebooks)
    payload = fitted(n_codebooks).encode(codes)
    # The source has 1.23 bits a code; without the codes before it would take log2(24) = 4.6.
    assert 8 * len(payload) / codes.size < 1.6


def test_fitting_twice_gives_the_same_tables_and_leaves_torchs_own_numbers_alone():
    state = torch.random.get_rng_state()
    options = {"n_context": 2, "width": 4, "units": 8, "steps": 3}
    one, two = (ngram.fit([likely_codes(300)], SIZE, **options) for _ in range(2))
    assert one.digest == two.digest
    assert ngram.fit([likely_codes(300)], SIZE, seed=1, **options).digest != one.digest
    assert torch.equal(torch.random.get_rng_state(), state)


def test_no_codes_cannot_be_fitted_to():
    with pytest.raises(DataError, match="no codes"):
        ngram.fit([], SIZE)


# Files


def test_a_coded_file_is_smaller_and_holds_the_same():
    codes = make()
    data = codes.to_bytes()
    packed = replace(codes, tables=None).to_bytes()
    assert len(data) < 0.5 * len(packed)
    read = Codes.from_bytes(data, tables=fitted())
    np.testing.assert_array_equal(read.codes, codes.codes)
    assert read == codes == Codes.from_bytes(packed)
    assert read.to_bytes() == data
    assert read.bits_per_second == codes.bits_per_second == 8 * len(data) / codes.duration_s


def test_what_is_sent_to_a_process_does_not_grow_with_use():
    codes = make()
    before = len(pickle.dumps(codes))
    codes.to_bytes()
    assert len(pickle.dumps(codes)) == before
    assert pickle.loads(pickle.dumps(codes)).to_bytes() == codes.to_bytes()


def test_codes_that_the_tables_did_not_expect_stay_packed():
    noise = np.random.default_rng(0).integers(0, SIZE, (1, 1500))
    codes = make(codes=noise)
    assert codes.to_bytes() == replace(codes, tables=None).to_bytes()
    other_layout = make(codes=noise, codebook_size=512)
    assert other_layout.to_bytes() == replace(other_layout, tables=None).to_bytes()


def test_an_encoder_that_does_not_read_back_is_not_believed(monkeypatch):
    codes, packed = make(), make(tables=None).to_bytes()
    monkeypatch.setattr(NgramModel, "encode", lambda self, chunk: b"\1")
    assert codes.to_bytes() == packed
    monkeypatch.setattr(NgramModel, "decode", lambda self, payload, length: np.zeros((1, length)))
    assert codes.to_bytes() == packed


def test_a_coded_file_describes_itself_and_can_be_read_from_a_pipe(tmp_path):
    path, codes = tmp_path / "speech.codes", make(3000)
    size = codes.save(path)
    header = read_header(path)
    assert (header.method, header.ngram_digest) == (1, fitted().digest)
    assert (header.file_size, header.n_codes) == (size, 3000)
    assert header.packed_size == len(replace(codes, tables=None).to_bytes())
    with path.open("rb") as file:
        assert read_pipe(file, "pipe", tables=fitted()) == codes


def test_info_tells_method_and_sizes(tmp_path, capsys):
    path, codes = tmp_path / "speech.codes", make()
    size = codes.save(path)
    assert main(["info", str(path), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["method"] == "ngram-ans"
    assert told["file_size_bytes"] == size
    assert told["packed_size_bytes"] == len(replace(codes, tables=None).to_bytes())


def test_unknown_tables_are_named_with_the_remedy(tmp_path):
    path = tmp_path / "speech.codes"
    make().save(path)
    for tables in (None, random_model(0, codebook_size=SIZE)):
        with pytest.raises(CodesError) as refused:
            Codes.load(path, tables=tables)
        assert str(refused.value) == (
            f"{path}: is coded with the tables {fitted().digest.hex()} of model "
            "0123456789abcdef, which are not known; give that model (--model)"
        )


def test_commands_read_them_with_the_model(tmp_path, capsys):
    path, model = tmp_path / "speech.codes", tmp_path / "model.safetensors"
    config = ModelConfig.model_validate(
        {
            "encoder": {"n_filters": 4, "channels": 4, "code_channels": 4, "dilations": [1]},
            "quantizer": {"codebook_size": SIZE},
            "fast": {"channels": 4, "n_layers": 1},
            "wavenet": None,
        }
    )
    fingerprint = checkpoint.save(model, VQVAE(config), {}, {}, fitted())
    make(fingerprint=fingerprint, hop_length=128, n_samples=1500 * 128).save(path)
    for command in (["verify", str(path)], ["units", str(path)]):
        assert main(command) == 1
        assert "give that model (--model)" in "".join(capsys.readouterr())
        assert main([*command, "--model", str(model)]) == 0
    units = capsys.readouterr().out.splitlines()[-1]
    assert units == "speech|" + " ".join(map(str, likely_codes(1500)[0]))


def test_the_tables_of_installed_models_are_known(tmp_path, monkeypatch):
    from safetensors.numpy import save_file

    codes = make(tables=None)
    packed = codes.to_bytes()
    metadata = {"fingerprint": codes.fingerprint.hex()}
    save_file(fitted().to_tensors(), tmp_path / "model.safetensors", metadata)
    save_file({"weight": np.zeros(3)}, tmp_path / "old.safetensors")
    monkeypatch.setattr(registry.importlib.resources, "files", lambda package: tmp_path)
    ngram_coder.packaged.cache_clear()
    try:
        data = codes.to_bytes()
        assert len(data) < len(packed)
        assert Codes.from_bytes(data) == codes
        (tmp_path / "old.safetensors").write_bytes(b"{}")
        ngram_coder.packaged.cache_clear()
        with pytest.raises(CheckpointError, match=r"old\.safetensors: not a readable model file"):
            codes.to_bytes()
    finally:
        ngram_coder.packaged.cache_clear()


def with_field(data: bytes, offset: int, value: bytes, crc_at: int) -> bytes:
    """The file with other bytes in its header, whose CRC is made right."""
    data = data[:offset] + value + data[offset + len(value) :]
    return data[:crc_at] + struct.pack("<I", zlib.crc32(data[:crc_at])) + data[crc_at + 4 :]


def test_what_no_writer_makes_is_refused():
    data = make(1000).to_bytes()
    assert with_field(data, 5, b"\1", 58) == data
    for offset, value, fault in [
        (40, struct.pack("<H", 1251), "has coded chunks of 1251 time steps, over 1250; copy"),
        (36, struct.pack("<H", SIZE), "is not laid out as the model that it names"),
        (50, struct.pack("<I", 10**6), "the last .* bytes are missing"),
    ]:
        with pytest.raises(CodesError, match=fault):
            Codes.from_bytes(with_field(data, offset, value, 58), tables=fitted())
    shorter = Codes.from_bytes(with_field(data, 24, struct.pack("<Q", 999), 58), tables=fitted())
    with pytest.raises(CodesError, match="a payload that no codes make in chunk 0"):
        shorter.codes  # noqa: B018
    streamed = with_field(data, 24, bytes(8), 50)
    with pytest.raises(CodesError, match="is streamed and claims method 1, not packed bits"):
        Codes.from_bytes(streamed, tables=fitted())


def test_a_claim_costs_nothing_before_the_codes_are_asked_for(monkeypatch):
    codes = make(3000)
    data = codes.to_bytes()
    decode = NgramModel.decode
    monkeypatch.setattr(NgramModel, "decode", lambda *_: pytest.fail("it is decoded"))
    read = Codes.from_bytes(data, tables=fitted())
    assert (read.n_codes, read.n_codebooks, read.duration_s) == (3000, 1, codes.duration_s)
    assert read.speaker == "p225"
    monkeypatch.setattr(NgramModel, "decode", decode)
    sent = pickle.loads(pickle.dumps(read))
    for one in (read, sent):
        np.testing.assert_array_equal(one.codes, codes.codes)
        assert one.codes.dtype == np.uint16
        assert not one.codes.flags.writeable
        assert one.codes is one.codes
    with pytest.raises(AttributeError, match="'Codes' object has no attribute 'code'"):
        read.code  # noqa: B018


def test_verify_decodes_what_it_checks(tmp_path, capsys, monkeypatch):
    path = tmp_path / "speech.codes"
    data = with_field(make(1000).to_bytes(), 24, struct.pack("<Q", 999), 58)
    monkeypatch.setattr(ngram_coder, "packaged", lambda: {data[8:16]: fitted()})
    path.write_bytes(data)
    assert main(["verify", str(path)]) == 1
    assert "bad" in capsys.readouterr().out


def test_a_chunk_of_another_recording_is_refused_in_its_place():
    codes = make(2500)
    other = replace(codes, codes=likely_codes(2500, 5)).to_bytes()
    data = codes.to_bytes()
    start, size = 70, int(np.frombuffer(data, "<u4", 1, 50)[0])
    assert data[4:6] == other[4:6] == b"\2\1"
    mixed = data[:start] + other[start : start + size] + data[start + size :]
    with pytest.raises(CodesError, match="CRC of chunk 0 differs"):
        Codes.from_bytes(mixed, tables=fitted())


def test_coded_files_of_version_1_stay_readable(tmp_path):
    data, path = as_version_1(make(3000).to_bytes()), tmp_path / "old.codes"
    path.write_bytes(data)
    assert data[4:6] == b"\1\1"
    assert Codes.load(path, tables=fitted()) == make(3000)


def test_every_flipped_bit_and_every_truncation_is_refused():
    data = make(1300).to_bytes()
    for bit in range(8 * len(data)):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(CodesError, match=r"^speech\.codes: .*; "):
            Codes.from_bytes(bytes(flipped), "speech.codes", tables=fitted())
    for length in range(len(data)):
        with pytest.raises(CodesError, match="cut short"):
            Codes.from_bytes(data[:length], tables=fitted())
