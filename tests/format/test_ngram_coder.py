"""The entropy coder: its bytes, its laws, its n-gram model and what it refuses."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from dataclasses import fields, replace
from functools import cache, partial
from math import isqrt

import numpy as np
import pytest
import torch
from code_files import flipped, random_model
from hypothesis import given, settings
from hypothesis import strategies as st

from vqcodec.errors import CheckpointError, DataError
from vqcodec.format.chunks import Payload
from vqcodec.format.ngram_coder import NgramModel
from vqcodec.format.stream_records import CodeBlock
from vqcodec.training.entropy_coder import fit_tables

SIZE = 24


def likely_codes(n_codes: int, seed: int = 0, n_codebooks: int = 1) -> np.ndarray:
    """Codes that go up by one, stay, or, seldom, jump: far fewer bits than packed."""
    rng = np.random.default_rng(seed)
    steps = rng.choice([0, 1, 7], (n_codebooks, n_codes), p=[0.5, 0.45, 0.05])
    return (np.cumsum(steps, axis=1) % SIZE).astype(np.uint16)


@cache
def fitted(n_codebooks: int = 1) -> NgramModel:
    sequences = [likely_codes(2000, seed, n_codebooks) for seed in range(1, 6)]
    return fit_tables(sequences, SIZE, n_context=2 * n_codebooks, width=8, units=32, steps=400)


def decoded(model: NgramModel, payload: bytes, length: int) -> np.ndarray:
    (block,) = model.decode([Payload(payload, length)])
    if isinstance(block, ValueError):
        raise block
    return block.codes


def specified(model: NgramModel, codes: np.ndarray) -> bytes:
    """Encode as docs/format.md says, in Python's own integers."""
    t = {field.name: getattr(model, field.name).tolist() for field in fields(model)[:7]}
    n_books, size = len(codes), model.codebook_size
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
    model = random_model(
        length, n_codebooks=n_codebooks, codebook_size=codebook_size, n_context=n_context
    )
    codes = np.random.default_rng(1).integers(0, codebook_size, (n_codebooks, length), np.uint16)
    payload = model.encode(CodeBlock(codes))
    assert payload == specified(model, codes)
    np.testing.assert_array_equal(decoded(model, payload, length), codes)


@settings(max_examples=40)
@given(
    seed=st.integers(0, 2**32),
    n_codebooks=st.integers(1, 4),
    codebook_size=st.sampled_from([2, 3, 64, 500]),
    n_context=st.integers(1, 10),
    length=st.integers(0, 60),
)
def test_what_is_encoded_comes_back(seed, n_codebooks, codebook_size, n_context, length):
    model = random_model(
        seed, n_codebooks=n_codebooks, codebook_size=codebook_size, n_context=n_context
    )
    codes = np.random.default_rng(seed).integers(0, codebook_size, (n_codebooks, length), np.uint16)
    np.testing.assert_array_equal(decoded(model, model.encode(CodeBlock(codes)), length), codes)


@pytest.mark.parametrize("n_codebooks", [1, 3])
def test_chunks_side_by_side_are_decoded_as_each_alone(n_codebooks):
    model = random_model(5, n_codebooks=n_codebooks)
    rng = np.random.default_rng(0)
    # More than are decoded at a time, in no order of their lengths.
    lengths = [int(length) for length in rng.permutation(36)]
    codes = [rng.integers(0, 20, (n_codebooks, length), np.uint16) for length in lengths]
    chunks = [
        Payload(model.encode(CodeBlock(own)), length)
        for own, length in zip(codes, lengths, strict=True)
    ]
    chunks[7] = chunks[7]._replace(data=chunks[7].data + bytes(8) + b"\1")
    found = model.decode(chunks)
    assert isinstance(found.pop(7), ValueError)
    for block, own in zip(found, codes[:7] + codes[8:], strict=True):
        assert isinstance(block, CodeBlock)
        np.testing.assert_array_equal(block.codes, own)
    assert model.decode([]) == []


@pytest.mark.parametrize("n_codebooks", [1, 3])
def test_costs_are_the_bits_that_codes_take(n_codebooks):
    model = random_model(2, n_codebooks=n_codebooks)
    codes = np.random.default_rng(0).integers(0, 20, (n_codebooks, 300)).astype(np.uint16)
    costs = model.costs(codes)
    assert costs.shape == (300, n_codebooks, 20)
    assert np.exp2(-costs.astype(np.float64)).sum(-1) == pytest.approx(1, abs=1e-5)
    own = np.take_along_axis(costs, codes.T[..., None].astype(np.int64), -1)
    assert own.sum() == pytest.approx(
        8 * len(model.encode(CodeBlock(codes))), abs=40
    )  # the coder's words


def test_the_largest_sums_do_not_overflow():
    # All as large as they may be, in the direction that adds up.
    model = NgramModel(
        np.full((1, 3, 1024), -128, np.int8),
        np.full((1, 64, 1024, 4), -128, np.int8),
        np.full((1, 4), 32767, np.int16),
        np.full((1, 4, 1024), 127, np.int8),
        np.full((1, 1024), 32767, np.int16),
        np.stack([np.full(1024, 127, np.int8), np.full(1024, -128, np.int8)], axis=1)[None],
        np.array([[32767, -32768]], np.int16),
    )
    codes = np.array([[0, 0, 1, 0]], np.uint16)
    payload = model.encode(CodeBlock(codes))
    # Code 0 is all but certain.
    assert payload == specified(model, codes) == b"\1\0\0\1"
    np.testing.assert_array_equal(decoded(model, payload, 4), codes)


def test_a_changed_payload_never_gives_the_same_codes():
    model, codes = fitted(), likely_codes(100)
    payload = model.encode(CodeBlock(codes))
    n_refused = 0
    for changed in flipped(payload):
        try:
            assert not np.array_equal(decoded(model, changed, 100), codes)
        except ValueError:
            n_refused += 1
    assert n_refused > 0
    with pytest.raises(ValueError, match="zero byte at the end"):
        decoded(model, payload + b"\0", 100)
    with pytest.raises(ValueError, match="no codes make"):
        decoded(model, payload + bytes(8) + b"\1", 100)


SAME_BYTES = """
import sys
import numpy as np
from vqcodec.format.ngram_coder import NgramModel
from vqcodec.format.stream_records import CodeBlock
assert "torch" not in sys.modules
with np.load(sys.argv[1]) as file:
    arrays = dict(file)
codes = arrays.pop("codes")
payload = NgramModel.from_tensors(arrays).encode(CodeBlock(codes))
print(payload.hex())
"""


def test_another_processor_and_more_threads_give_the_same_bytes(tmp_path):
    model, codes = fitted(), likely_codes(1250)
    np.savez(tmp_path / "model.npz", codes=codes, **model.to_tensors())
    plain = {
        "NPY_DISABLE_CPU_FEATURES": "AVX2 FMA3 AVX512F AVX512_SKX",
        "NUMBA_CPU_NAME": "generic",
        "NUMBA_CPU_FEATURES": "",
        "NUMBA_CACHE_DIR": str(tmp_path),
        "OMP_NUM_THREADS": "4",
        "NUMBA_NUM_THREADS": "4",
    }
    command = [sys.executable, "-W", "ignore", "-c", SAME_BYTES, str(tmp_path / "model.npz")]
    done = subprocess.run(
        command, env=os.environ | plain, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == model.encode(CodeBlock(codes)).hex()


# The model


def test_a_model_comes_back_from_its_tensors():
    model = random_model(0)
    tensors = model.to_tensors()
    assert all(name.startswith("entropy.") for name in tensors)
    again = NgramModel.from_tensors(tensors)
    assert again.digest == model.digest
    codes = np.arange(20, dtype=np.uint16)[None]
    assert again.encode(CodeBlock(codes)) == model.encode(CodeBlock(codes))


def test_every_number_of_a_model_changes_its_digest():
    model = random_model(0)
    digests = {model.digest}
    for field in fields(model)[:7]:
        changed = getattr(model, field.name).copy()
        changed.flat[-1] ^= 1
        digests.add(replace(model, **{field.name: changed}).digest)
    assert len(digests) == 8


def test_the_digest_is_the_specified_hash():
    model = random_model(3)
    whole = hashlib.sha256()
    for field in fields(model)[:7]:
        table = getattr(model, field.name)
        whole.update(f"entropy.{field.name} {list(table.shape)}".encode() + table.tobytes())
    assert model.digest == whole.digest()[:4]


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
def test_damaged_models_are_refused_in_one_line(name, table, fault):
    tensors = random_model(0).to_tensors() | {f"entropy.{name}": table}
    if table is None:
        del tensors[f"entropy.{name}"]
    with pytest.raises(CheckpointError, match=fault) as refused:
        NgramModel.from_tensors(tensors)
    assert "\n" not in str(refused.value)


def test_models_whose_sums_could_overflow_are_refused():
    with pytest.raises(CheckpointError, match="larger than any that vqcodec makes"):
        random_model(0, n_context=65)


def test_models_that_would_fill_the_memory_are_refused():
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
def test_fitted_models_know_what_follows(n_codebooks):
    codes = likely_codes(1250, 99, n_codebooks)
    payload = fitted(n_codebooks).encode(CodeBlock(codes))
    # The source has 1.23 bits a code; without the codes before it would take log2(24) = 4.6.
    assert 8 * len(payload) / codes.size < 1.6


def test_fitting_twice_gives_the_same_model_and_leaves_torchs_own_numbers_alone():
    state = torch.random.get_rng_state()
    options = {"n_context": 2, "width": 4, "units": 8, "steps": 3}
    one, two = (fit_tables([likely_codes(300)], SIZE, **options) for _ in range(2))
    assert one.digest == two.digest
    assert fit_tables([likely_codes(300)], SIZE, seed=1, **options).digest != one.digest
    assert torch.equal(torch.random.get_rng_state(), state)


def test_no_codes_cannot_be_fitted_to():
    with pytest.raises(DataError, match="no codes"):
        fit_tables([], SIZE)
