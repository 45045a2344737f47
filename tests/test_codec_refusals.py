"""Models of other kinds, and what a codec refuses: other models' codes, impossible choices."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import vqcodec
from vqcodec import Codes
from vqcodec.codec import Codec
from vqcodec.errors import AudioError, CheckpointError, CodesError, SpeakerError, VqcodecError
from vqcodec.inference import engines
from vqcodec.models.config import ModelConfig
from vqcodec.models.interfaces import DecodeOptions
from vqcodec.models.vqvae import VQVAE
from vqcodec.weights import checkpoint


@pytest.fixture(scope="module", params=["onnx", "torch"])
def codec(light_model: Path, request: pytest.FixtureRequest) -> Codec:
    return vqcodec.load(light_model, device="cpu", engine=request.param)


@pytest.fixture(scope="module")
def codes(codec: Codec, speech: Path) -> Codes:
    return codec.encode(speech)


def test_codes_of_another_model_are_refused(codec, codes):
    foreign = replace(codes, fingerprint=b"\xab" * 8)
    with pytest.raises(
        CodesError, match=f"by model {'ab' * 8}, and tiny is {codec.fingerprint.hex()}"
    ):
        codec.decode(foreign)


@pytest.mark.parametrize(
    ("n_codebooks", "codebook_size", "hop_length"), [(2, 512, 128), (1, 600, 128), (1, 512, 127)]
)
def test_codes_that_only_claim_to_be_of_the_model_are_refused(
    codec, codes, n_codebooks, codebook_size, hop_length
):
    forged = replace(
        codes,
        codes=np.zeros((n_codebooks, -(-codes.n_samples // hop_length)), np.uint16),
        codebook_size=codebook_size,
        hop_length=hop_length,
    )
    with pytest.raises(CodesError, match="not laid out as it does: they are damaged"):
        codec.decode(forged)


def table_model(path: Path, **parts) -> Path:
    torch.manual_seed(0)
    config = {
        "encoder": {"n_filters": 4, "channels": 8, "code_channels": 8, "dilations": (1,)},
        "speaker": {"kind": "table"},
        "fast": {"channels": 8, "n_layers": 1},
        "wavenet": None,
    }
    model = VQVAE(ModelConfig.model_validate(config | parts), n_speakers=2)
    model.quantizer.initialized.fill_(True)
    checkpoint.save(path, model, {"p225": np.ones(64, np.int8)}, {})
    return path


def test_a_model_with_a_table_needs_a_name(samples, tmp_path):
    codec = vqcodec.load(table_model(tmp_path / "table.safetensors"), device="cpu")
    with pytest.raises(SpeakerError, match="knows speakers only by name; say who speaks"):
        codec.encode(samples, 16000)
    codes = codec.encode(samples, 16000, speaker="p225")
    decoded = codec.decode(codes)
    assert len(decoded) == len(samples)
    assert np.array_equal(codec.convert(samples, 16000, speaker="p225"), decoded)
    with pytest.raises(SpeakerError, match="knows speakers only by name"):
        codec.decode(codes, speaker=(16_000, samples))


def test_several_codebooks_travel_too(samples, tmp_path):
    quantizer = {"kind": "residual_vq", "num_quantizers": 3, "codebook_size": 32}
    path = table_model(tmp_path / "residual.safetensors")
    torch.manual_seed(0)
    config = checkpoint.load(path).config.model_dump() | {"quantizer": quantizer}
    model = VQVAE(ModelConfig.model_validate(config), n_speakers=2)
    model.train().quantizer(torch.randn(4, 64, 100))
    checkpoint.save(path, model, {"p225": np.ones(64, np.int8)}, {})
    codec = vqcodec.load(path, device="cpu")
    codes = codec.encode(samples, 16000, speaker="p225")
    assert codes.codes.shape[0] == 3
    assert len(np.unique(codes.codes)) > 3
    assert len(codec.decode(Codes.from_bytes(codes.to_bytes()))) == len(samples)


def test_a_decoder_that_is_not_there_is_refused(codes, tmp_path):
    codec = vqcodec.load(table_model(tmp_path / "fast.safetensors"), device="cpu")
    assert codec.decoders == ("fast",)
    mine = codec.encode(np.zeros(1000), 16000, speaker="p225")
    with pytest.raises(VqcodecError, match="model fast has no decoder 'wavenet'; it has fast"):
        codec.decode(mine, decoder="wavenet")
    with pytest.raises(VqcodecError, match="model fast has no decoder ''"):
        codec.decode(mine, decoder="")
    with pytest.raises(AudioError, match=r"output: a sample rate of 16000\.5 Hz is impossible"):
        codec.check_options(DecodeOptions(sample_rate=16000.5))


@pytest.mark.parametrize(
    "choice",
    [
        *({"seed": -1}, {"temperature": -1}, {"temperature": math.nan}),
        *({"seed": "1"}, {"seed": 1.5}, {"temperature": "1"}),
    ],
)
def test_impossible_draws_are_refused(codec, codes, choice):
    with pytest.raises(VqcodecError, match="the seed must be 0 or more"):
        codec.decode(codes, decoder="wavenet", **choice)


def test_a_misspelt_choice_is_refused_before_any_work(codec):
    with pytest.raises(TypeError, match="sede"):
        codec.decode([], sede=1)
    with pytest.raises(TypeError, match="sede"):
        codec.convert("missing.wav", speaker="anna", sede=1)


def test_a_model_without_a_name_is_no_model():
    with pytest.raises(CheckpointError, match="no such model"):
        vqcodec.load("")


def test_no_gpu_is_said(tiny_model, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(VqcodecError, match="device cuda: torch sees no GPU; use device cpu"):
        vqcodec.load(tiny_model, device="cuda")
    assert vqcodec.load(tiny_model).device == "cpu"
    monkeypatch.setattr(engines, "is_installed", lambda name: False)
    with pytest.raises(VqcodecError, match=r"torch is not there, vqcodec\[train\] brings it"):
        vqcodec.load(tiny_model, device="cuda")
