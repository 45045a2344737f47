"""Entropy-coded code files: what they hold, what reads them and what is refused."""

from __future__ import annotations

import json
import pickle
import struct
import zlib
from dataclasses import replace

import numpy as np
import pytest
from code_files import METADATA, as_version_1, flipped, random_model, repeating_model, with_crc
from vqcodec_cli.main import main

from vqcodec.errors import CheckpointError, CodesError
from vqcodec.format import ngram_coder
from vqcodec.format.ans_coder import AnsCoder
from vqcodec.format.codes import Codes, decode_together, read_header, read_pipe
from vqcodec.format.ngram_coder import NgramModel
from vqcodec.models.config import ModelConfig
from vqcodec.models.vqvae import VQVAE
from vqcodec.weights import checkpoint, registry

SIZE = 24
MODEL = repeating_model(1, SIZE)


def steady_codes(n_codes: int, seed: int = 0) -> np.ndarray:
    """Codes that come about ten times each: far fewer bits than packed."""
    rng = np.random.default_rng(seed)
    steps = rng.choice([0, 7], (1, n_codes), p=[0.9, 0.1])
    return (np.cumsum(steps, axis=1) % SIZE).astype(np.uint16)


def make(n_codes: int = 1500, **changes) -> Codes:
    fields = {
        "codes": steady_codes(n_codes),
        "codebook_size": SIZE,
        "n_samples": n_codes,
        "tables": MODEL,
    }
    return Codes(**(METADATA | fields | changes))


def test_a_coded_file_is_smaller_and_holds_the_same():
    codes = make()
    data = codes.to_bytes()
    packed = replace(codes, tables=None).to_bytes()
    assert len(data) < 0.5 * len(packed)
    read = Codes.from_bytes(data, tables=MODEL)
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


def test_codes_that_the_model_did_not_expect_stay_packed():
    noise = np.random.default_rng(0).integers(0, SIZE, (1, 1500))
    codes = make(codes=noise)
    assert codes.to_bytes() == replace(codes, tables=None).to_bytes()
    other_layout = make(codes=noise, codebook_size=512)
    assert other_layout.to_bytes() == replace(other_layout, tables=None).to_bytes()


def test_a_coder_that_does_not_read_back_is_not_believed(monkeypatch):
    codes, packed = make(), make(tables=None).to_bytes()
    assert codes.to_bytes() != packed

    monkeypatch.setattr(AnsCoder, "pop", lambda *_: 0)
    assert codes.to_bytes() == packed


def test_a_coded_file_describes_itself_and_can_be_read_from_a_pipe(tmp_path):
    path, codes = tmp_path / "speech.codes", make(3000)
    size = codes.save(path)
    header = read_header(path)
    assert (header.method, header.ngram_digest) == (1, MODEL.digest)
    assert (header.file_size, header.n_codes) == (size, 3000)
    assert header.packed_size == len(replace(codes, tables=None).to_bytes())
    with path.open("rb") as file:
        assert read_pipe(file, "pipe", tables=MODEL) == codes


def test_info_tells_method_and_sizes(tmp_path, capsys):
    path, codes = tmp_path / "speech.codes", make()
    size = codes.save(path)
    assert main(["info", str(path), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["method"] == "ngram-ans"
    assert told["file_size_bytes"] == size
    assert told["packed_size_bytes"] == len(replace(codes, tables=None).to_bytes())


def test_unknown_models_are_named_with_the_remedy(tmp_path):
    path = tmp_path / "speech.codes"
    make().save(path)
    for tables in (None, random_model(0, codebook_size=SIZE)):
        with pytest.raises(CodesError) as refused:
            Codes.load(path, tables=tables)
        assert str(refused.value) == (
            f"{path}: is coded with the tables {MODEL.digest.hex()} of model "
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
    fingerprint = checkpoint.save(model, VQVAE(config), {}, {}, MODEL)
    make(fingerprint=fingerprint, hop_length=128, n_samples=1500 * 128).save(path)
    for command in (["verify", str(path)], ["units", str(path)]):
        assert main(command) == 1
        assert "give that model (--model)" in "".join(capsys.readouterr())
        assert main([*command, "--model", str(model)]) == 0
    units = capsys.readouterr().out.splitlines()[-1]
    assert units == "speech|" + " ".join(map(str, steady_codes(1500)[0]))


def test_the_ngram_models_of_installed_models_are_known(tmp_path, monkeypatch):
    from safetensors.numpy import save_file

    codes = make(tables=None)
    packed = codes.to_bytes()
    metadata = {"fingerprint": codes.fingerprint.hex()}
    save_file(MODEL.to_tensors(), tmp_path / "model.safetensors", metadata)
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
    return with_crc(data[:crc_at]) + data[crc_at + 4 :]


def test_what_no_writer_makes_is_refused():
    data = make(1000).to_bytes()
    assert with_field(data, 5, b"\1", 58) == data
    for offset, value, fault in [
        (40, struct.pack("<H", 1251), "has coded chunks of 1251 time steps, over 1250; copy"),
        (36, struct.pack("<H", SIZE), "is not laid out as the model that it names"),
        (50, struct.pack("<I", 10**6), "the last .* bytes are missing"),
    ]:
        with pytest.raises(CodesError, match=fault):
            Codes.from_bytes(with_field(data, offset, value, 58), tables=MODEL)
    shorter = Codes.from_bytes(with_field(data, 24, struct.pack("<Q", 900), 58), tables=MODEL)
    with pytest.raises(CodesError, match="a payload that no codes make in chunk 0"):
        shorter.codes  # noqa: B018
    streamed = with_field(data, 24, bytes(8), 50)
    with pytest.raises(CodesError, match="is streamed and claims method 1, not packed bits"):
        Codes.from_bytes(streamed, tables=MODEL)


def test_a_claim_costs_nothing_before_the_codes_are_asked_for(monkeypatch):
    codes = make(3000)
    data = codes.to_bytes()
    decode = NgramModel.decode
    monkeypatch.setattr(NgramModel, "decode", lambda *_: pytest.fail("it is decoded"))
    read = Codes.from_bytes(data, tables=MODEL)
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


def test_files_decoded_together_hold_what_each_alone_does(monkeypatch):
    all_codes = [make(n_codes) for n_codes in (3000, 1, 1250, 1700)]
    read = [Codes.from_bytes(codes.to_bytes(), tables=MODEL) for codes in all_codes]
    data = with_field(make(1000).to_bytes(), 24, struct.pack("<Q", 900), 58)
    impossible = Codes.from_bytes(data, tables=MODEL)
    decode_together([*read, impossible, make(10)])
    with pytest.raises(CodesError, match="a payload that no codes make in chunk 0"):
        impossible.codes  # noqa: B018
    monkeypatch.setattr(NgramModel, "decode", lambda *_: pytest.fail("it is decoded again"))
    for one, codes in zip(read, all_codes, strict=True):
        np.testing.assert_array_equal(one.codes, codes.codes)
        assert not one.codes.flags.writeable


def test_a_damaged_file_leaves_those_beside_it_as_they_are():
    data, codes = bytearray(make(3000).to_bytes()), make(2000)
    start, size = 78, int(np.frombuffer(data, "<u4", 1, 50)[0])
    data[start + size - 1] += 1
    crc = zlib.crc32(bytes(8) + data[start : start + size])
    impossible = with_field(bytes(data), 54, struct.pack("<I", crc), start - 4)
    read = [Codes.from_bytes(each, tables=MODEL) for each in (impossible, codes.to_bytes())]
    decode_together(read)
    np.testing.assert_array_equal(read[1].codes, codes.codes)
    with pytest.raises(CodesError, match="a payload that no codes make in chunk 0"):
        read[0].codes  # noqa: B018


def test_verify_decodes_what_it_checks(tmp_path, capsys, monkeypatch):
    path = tmp_path / "speech.codes"
    data = with_field(make(1000).to_bytes(), 24, struct.pack("<Q", 900), 58)
    monkeypatch.setattr(ngram_coder, "packaged", lambda: {data[8:16]: MODEL})
    path.write_bytes(data)
    assert main(["verify", str(path)]) == 1
    assert "bad" in capsys.readouterr().out


def test_a_chunk_of_another_recording_is_refused_in_its_place():
    codes = make(2500)
    other = replace(codes, codes=steady_codes(2500, 5)).to_bytes()
    data = codes.to_bytes()
    start, size = 70, int(np.frombuffer(data, "<u4", 1, 50)[0])
    assert data[4:6] == other[4:6] == b"\2\1"
    mixed = data[:start] + other[start : start + size] + data[start + size :]
    with pytest.raises(CodesError, match="CRC of chunk 0 differs"):
        Codes.from_bytes(mixed, tables=MODEL)


def test_coded_files_of_version_1_stay_readable(tmp_path):
    data, path = as_version_1(make(3000).to_bytes()), tmp_path / "old.codes"
    path.write_bytes(data)
    assert data[4:6] == b"\1\1"
    assert Codes.load(path, tables=MODEL) == make(3000)


def test_every_flipped_bit_and_every_truncation_is_refused():
    data = make(1300).to_bytes()
    for damaged in flipped(data):
        with pytest.raises(CodesError, match=r"^speech\.codes: .*; "):
            Codes.from_bytes(damaged, "speech.codes", tables=MODEL)
    for length in range(len(data)):
        with pytest.raises(CodesError, match="cut short"):
            Codes.from_bytes(data[:length], tables=MODEL)
