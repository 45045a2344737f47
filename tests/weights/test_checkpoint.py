"""Model files: what they keep, whom their fingerprint names, and what is refused."""

from __future__ import annotations

import json
import math
import re
import resource
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from code_files import random_model
from safetensors import safe_open
from safetensors.numpy import save_file

import vqcodec
from vqcodec import files
from vqcodec.errors import CheckpointError
from vqcodec.models.config import ModelConfig
from vqcodec.models.vqvae import VQVAE
from vqcodec.weights import checkpoint, model_file
from vqcodec.weights.registry import FORMAT, find

TINY = {
    "encoder": {"n_filters": 4, "channels": 8, "code_channels": 8, "dilations": (1,)},
    "quantizer": {"dim": 8, "codebook_size": 16, "codebook_dim": 4},
    "speaker": {"channels": 4},
    "fast": {"channels": 8, "n_layers": 1},
    "wavenet": {"n_stacks": 1, "layers_per_stack": 2, "residual_channels": 8},
}
VOICES = {"p225": np.arange(-32, 32).astype(np.int8), "anna": np.full(64, 7, np.int8)}
PROVENANCE = {"licence": "CC BY 4.0", "steps": 12, "data": ["a", "ü"]}
REPOSITORY = Path(__file__).parents[2]


def make(seed: int = 0, **changes) -> VQVAE:
    torch.manual_seed(seed)
    model = VQVAE(ModelConfig.model_validate(TINY | changes))
    model.quantizer.initialized.fill_(True)
    return model


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.safetensors"
    checkpoint.save(path, make(), VOICES, PROVENANCE)
    return path


def forged(path: Path, **changes: Any) -> Path:
    """The file with other metadata (text) and tensors (arrays), and the checksum of those."""
    metadata, tensors = model_file.read_tensors(path, FORMAT)
    for key, value in changes.items():
        (metadata if isinstance(value, str) else tensors)[key] = value
    metadata["sha256"] = model_file.checksum(tensors, metadata)
    save_file(tensors, path, metadata)
    return path


def forged_config(path: Path, part: str, **changes: Any) -> Path:
    config = json.loads(model_file.read_tensors(path, FORMAT)[0]["config"])
    config[part] |= changes
    return forged(path, config=json.dumps(config))


def refusal(path: Path) -> str:
    with pytest.raises(CheckpointError) as refused:
        checkpoint.load(path)
    message = str(refused.value)
    assert message.startswith(str(path))
    assert "\n" not in message
    return message


def test_what_is_saved_comes_back(path):
    loaded, model = checkpoint.load(path), make()
    assert loaded.name == "tiny"
    assert loaded.config == model.config
    assert loaded.provenance == PROVENANCE
    assert sorted(loaded.voices) == ["anna", "p225"]
    for name, vector in VOICES.items():
        assert np.array_equal(loaded.voices[name], vector)
    state, kept = model.state_dict(), loaded.model.state_dict()
    assert state.keys() == kept.keys()
    for name, value in state.items():
        exact = ("norm.", "quantizer.", "speaker.mel.")  # in full, or not stored at all
        whole = name.startswith(exact) or not value.is_floating_point()
        if name.endswith(("expand.weight", "project.weight")):  # of the fast decoder: int8
            largest = value.abs().amax(dim=1, keepdim=True)
            assert ((kept[name] - value).abs() <= 0.51 / 127 * largest).all(), name
        else:
            assert torch.equal(kept[name], value if whole else value.half().float()), name
    assert not loaded.model.training
    assert not any(parameter.requires_grad for parameter in loaded.model.parameters())
    assert all(value.dtype == torch.float32 for value in loaded.model.parameters())


def test_tables_of_the_entropy_coder_are_kept_and_no_part_of_the_fingerprint(path, tmp_path):
    assert checkpoint.load(path).tables is None
    coded = tmp_path / "coded.safetensors"
    tables = random_model(0, codebook_size=16)
    fingerprint = checkpoint.save(coded, make(), VOICES, PROVENANCE, tables)
    loaded = checkpoint.load(coded)
    assert loaded.fingerprint == fingerprint == checkpoint.load(path).fingerprint
    assert loaded.tables is not None
    assert loaded.tables.digest == tables.digest
    with safe_open(coded, framework="numpy") as file:
        assert file.metadata()["fingerprint"] == fingerprint.hex()


def test_damaged_tables_of_the_entropy_coder_are_refused(path):
    tensors = random_model(0, codebook_size=16).to_tensors()
    tensors["entropy.hidden"] = tensors["entropy.hidden"][:, 1:]
    tables = SimpleNamespace(to_tensors=lambda: tensors)
    checkpoint.save(path, make(), VOICES, PROVENANCE, tables)
    message = refusal(path)
    assert "tables of the entropy coder are damaged: hidden is (1, 5, 5), not (1, 6, 5)" in message


def test_saving_again_changes_nothing(path, tmp_path):
    loaded = checkpoint.load(path)
    again = tmp_path / "again.safetensors"
    checkpoint.save(again, loaded.model, loaded.voices, loaded.provenance)
    before, after = (model_file.read_tensors(file, FORMAT) for file in (path, again))
    assert after[0] == before[0]
    assert after[1].keys() == before[1].keys()
    assert all(np.array_equal(after[1][name], before[1][name]) for name in after[1])


def test_weights_take_two_bytes_each(tmp_path):
    path = tmp_path / "larger.safetensors"
    model = make(fast={"channels": 96, "n_layers": 4})
    checkpoint.save(path, model, VOICES, PROVENANCE)
    n_values = sum(value.numel() for value in model.state_dict().values())
    assert path.stat().st_size < 2 * n_values + 20_000


def test_a_speaker_table_is_kept(tmp_path):
    torch.manual_seed(0)
    config = ModelConfig.model_validate(TINY | {"speaker": {"kind": "table"}})
    model = VQVAE(config, n_speakers=3)
    checkpoint.save(tmp_path / "table.safetensors", model, VOICES, {})
    rows = checkpoint.load(tmp_path / "table.safetensors").model.speaker.embedding.weight
    assert torch.equal(rows, model.speaker.embedding.weight.half().float())


def test_no_voices_are_kept_as_none(tmp_path):
    checkpoint.save(tmp_path / "none.safetensors", make(), {}, {})
    assert checkpoint.load(tmp_path / "none.safetensors").voices == {}


def fingerprint(tmp_path: Path, model: VQVAE) -> bytes:
    saved = checkpoint.save(tmp_path / "model.safetensors", model, VOICES, {})
    assert checkpoint.load(tmp_path / "model.safetensors").fingerprint == saved
    assert len(saved) == 8
    return saved


@pytest.mark.parametrize("part", ["fast", "wavenet"])
def test_a_decoder_trained_further_reads_the_same_codes(tmp_path, part):
    model = make()
    before = fingerprint(tmp_path, model)
    for parameter in getattr(model, part).parameters():
        parameter.data.add_(0.1)
    assert fingerprint(tmp_path, model) == before
    assert fingerprint(tmp_path, make(**{part: None})) == before


@pytest.mark.parametrize("name", ["encoder.", "norm.mean", "quantizer.codebook", "speaker.output."])
def test_whatever_gives_codes_their_meaning_changes_the_fingerprint(tmp_path, name):
    model = make()
    before = fingerprint(tmp_path, model)
    for key, value in model.state_dict().items():
        if key.startswith(name):
            value.flatten()[0].add_(0.5)
            break
    assert fingerprint(tmp_path, model) != before


def test_voices_and_provenance_are_no_part_of_the_fingerprint(path, tmp_path):
    assert fingerprint(tmp_path, make()) == checkpoint.load(path).fingerprint
    other = checkpoint.save(tmp_path / "other.safetensors", make(), {}, {"steps": 13})
    assert other == checkpoint.load(path).fingerprint


def test_the_same_weights_in_another_frame_are_another_model(tmp_path):
    encoder = TINY["encoder"] | {"kernel_length": 510, "strides": (30, 4)}
    model, other = make(), make(encoder=encoder)
    assert fingerprint(tmp_path, model) != fingerprint(tmp_path, other)


def test_a_flipped_bit_of_a_weight_is_noticed(path):
    whole = path.read_bytes()
    header_size = 8 + int.from_bytes(whole[:8], "little")
    for share in (0.0, 0.2, 0.5, 0.8, 1.0):
        position = header_size + round(share * (len(whole) - header_size - 1))
        damaged = bytearray(whole)
        damaged[position] ^= 1
        path.write_bytes(damaged)
        assert "damaged (its SHA-256 does not match): fetch it again" in refusal(path)


@pytest.mark.parametrize("word", ["sha256", "version", "config", "voices", "provenance", "format"])
def test_a_flipped_bit_of_the_header_is_noticed(path, word):
    whole = path.read_bytes()
    damaged = bytearray(whole)
    damaged[whole.index(f'"{word}":"'.encode()) + 1] ^= 1
    path.write_bytes(damaged)
    refusal(path)


@pytest.mark.parametrize(
    ("key", "damaged"),
    [
        ("config", lambda text: text.replace('"sample_rate":16000', '"sample_rate":16001')),
        ("sha256", lambda text: "0" + text[1:] if text[0] != "0" else "1" + text[1:]),
        ("voices", lambda text: text[:-1]),
        ("voices", lambda text: json.dumps(json.loads(text)[:1])),
        ("voices", lambda text: text.replace("p225", "p226")),
        ("provenance", lambda text: text[1:]),
        ("provenance", lambda text: '{"licence": "none"}'),
        ("version", lambda text: "one"),
        ("config", lambda text: None),
    ],
)
def test_damaged_metadata_is_refused(path, key, damaged):
    metadata, tensors = model_file.read_tensors(path, FORMAT)
    before = metadata.pop(key)
    after = damaged(before)
    assert after != before
    save_file(tensors, path, metadata if after is None else metadata | {key: after})
    assert "damaged" in refusal(path)


@pytest.mark.parametrize("n_bytes", [0, 4, 8, 500, 20_000, -1])
def test_a_truncated_file_is_refused(path, n_bytes):
    path.write_bytes(path.read_bytes()[:n_bytes])
    assert "not a readable model file" in refusal(path)


def test_a_newer_format_is_refused_with_the_remedy(path):
    message = refusal(forged(path, version="4"))
    assert "model format 4 is newer than 3: upgrade vqcodec" in message


def test_other_files_are_refused(path, tmp_path):
    huge_header = (2**60).to_bytes(8, "little") + path.read_bytes()[8:]
    for data in (b"Dear diary, today I trained a model. " * 10, huge_header):
        path.write_bytes(data)
        assert "not a readable model file" in refusal(path)
    weights = tmp_path / "weights.safetensors"
    save_file({"weight": np.ones(2)}, weights)
    assert "not a vqcodec-model file" in refusal(weights)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("config", "[]"),
        ("config", "[" * 100_000),
        ("voices", "5"),
        ("voices", '["anna", "\\u001b[2J"]'),
        ("voices", '["anna", 5]'),
        ("provenance", "5"),
        ("version", "1e400"),
        ("voices", np.zeros((2, 3), np.int8)),
        ("voices", np.zeros((2, 64))),
    ],
)
def test_contents_that_no_save_wrote_are_refused(path, key, value):
    assert "damaged" in refusal(forged(path, **{key: value}))


@pytest.mark.parametrize(
    ("name", "value", "fault"),
    [
        ("encoder.output.weight", np.zeros((3, 3)), "weights and configuration disagree"),
        ("fast.blocks.0.expand.weight.scale8", np.ones((1, 1 << 20)), "is [1, 1048576]"),
    ],
)
def test_weights_of_other_shapes_are_refused(path, name, value, fault):
    assert name in model_file.read_tensors(path, FORMAT)[1]
    assert fault in refusal(forged(path, **{name: value.astype(np.float16)}))


@pytest.mark.parametrize(
    "change", [{"n_filters": 10**30}, {"code_channels": 10**30}, {"dilations": [1] * 3000}]
)
def test_a_model_of_absurd_size_is_refused_before_it_is_built(path, change, monkeypatch):
    monkeypatch.setattr(checkpoint, "VQVAE", lambda *_, **__: pytest.fail("it is built"))
    assert f"encoder.{next(iter(change))}" in refusal(forged_config(path, "encoder", **change))


@pytest.mark.parametrize(
    ("part", "changes", "fault"),
    [
        ("fast", {"channels": 4096, "n_layers": 64}, "asks for more values than the file holds"),
        ("wavenet", {"skip_channels": 4096, "residual_channels": 4096}, "asks for more values"),
        ("encoder", {"n_filters": 4096, "kernel_length": 65536}, "are more than 4194304 values"),
        ("quantizer", {"codebook_size": 65536, "codebook_dim": 4096}, "more than 16777216 values"),
        ("quantizer", {"kind": "residual_vq", "num_quantizers": 33}, "33 codebooks; code files"),
        (
            "quantizer",
            {"kind": "residual_vq", "num_quantizers": 32, "codebook_size": 65536},
            "asks for more values",
        ),
    ],
)
def test_a_model_that_asks_for_more_than_its_file_holds_is_refused(path, part, changes, fault):
    forged_config(path, part, **changes)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert fault in refusal(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # KiB


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("name", ["encoder.output.weight", "quantizer.codebook", "fast.head.bias"])
def test_weights_that_are_no_numbers_are_refused(path, name, value):
    tensor = model_file.read_tensors(path, FORMAT)[1][name]
    tensor.flat[-1] = value
    message = refusal(forged(path, **{name: tensor}))
    assert f"{name} has values that are no finite numbers" in message


def test_an_unknown_name_lists_what_there_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match=r"speach: no such model; give a \.safetensors file"):
        checkpoint.load("speach")
    with pytest.raises(CheckpointError, match="no such model"):
        checkpoint.load(tmp_path)
    for name in vqcodec.list_models():
        assert find(name).is_file()


def test_an_interrupted_save_leaves_the_old_file_alone(path, monkeypatch):
    before = path.read_bytes()

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(files.os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        checkpoint.save(path, make(1), VOICES, {})
    assert path.read_bytes() == before
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_nothing_is_ever_unpickled():
    forbidden = re.compile(
        r"\b(import pickle|from pickle|torch\.load\(|joblib|allow_pickle=True|weights_only=False)"
    )
    sources = [*REPOSITORY.glob("vqcodec/**/*.py"), *REPOSITORY.glob("cli/**/*.py")]
    assert len(sources) > 30
    for source in sources:
        assert not forbidden.search(source.read_text(encoding="utf-8")), source
