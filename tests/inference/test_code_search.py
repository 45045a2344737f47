"""Refined codes: nearer to the recording, the same again, as long, and refused where impossible."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from recordings import RATE, spoken
from tiny_models import TINY
from vqcodec_cli.main import main

import vqcodec
from vqcodec import audio
from vqcodec.errors import VqcodecError
from vqcodec.evaluation import quality
from vqcodec.format.codes import Codes
from vqcodec.inference import code_search
from vqcodec.models.config import ModelConfig
from vqcodec.models.vqvae import VQVAE
from vqcodec.weights import checkpoint


@pytest.fixture(scope="module")
def codec() -> vqcodec.Codec:
    return vqcodec.load(device="cpu")


@pytest.fixture(scope="module")
def refined(codec: vqcodec.Codec, speech: Path) -> Codes:
    return codec.encode(speech, refine=True)


def test_refined_codes_decode_to_what_is_nearer_to_the_recording(
    codec: vqcodec.Codec, speech: Path, refined: Codes
) -> None:
    plain, original = codec.encode(speech), audio.load(speech, 16000)
    before, after = (codec.decode(codes, sample_rate=16000) for codes in (plain, refined))
    assert refined.n_codes == plain.n_codes
    assert refined.n_samples == plain.n_samples
    assert quality.stoi(original, after) > quality.stoi(original, before)
    # No loss knows these.
    assert quality.pesq_wb(original, after) > quality.pesq_wb(original, before)
    distortions = [quality.mel_cepstral_distortion(original, one) for one in (before, after)]
    assert distortions[1] < distortions[0]


def test_what_refined_codes_cost_is_bounded(
    codec: vqcodec.Codec, speech: Path, refined: Codes, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = len(refined.to_bytes())
    assert size < 1.35 * len(codec.encode(speech).to_bytes())
    monkeypatch.setattr(code_search, "BIT_PENALTY", 0.0)
    assert len(codec.encode(speech, refine=True).to_bytes()) > size


def test_a_bit_costs_in_proportion_to_the_sound_that_a_code_stands_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    paid = []
    for sample_rate, strides in ((16000, (32, 4)), (16000, (32, 2)), (32000, (32, 4))):
        encoder = TINY["encoder"] | {"strides": strides}
        config = TINY | {"encoder": encoder, "sample_rate": sample_rate}
        model = VQVAE(ModelConfig.model_validate(config)).eval()
        quantize = model.quantizer.quantize

        def noted(
            vectors: torch.Tensor,
            penalty: torch.Tensor,
            quantize: Callable[..., Any] = quantize,
        ) -> Any:
            paid.append(penalty.unique().item())
            return quantize(vectors, penalty)

        monkeypatch.setattr(model.quantizer, "quantize", noted)
        search = code_search.CodeSearch(model, lambda codes: torch.ones(*codes.shape, 512), 1)
        search(torch.randn(1, sample_rate), torch.zeros(1, 64))
    assert paid[0] == pytest.approx(code_search.BIT_PENALTY)
    assert paid[1:] == pytest.approx([paid[0] / 2, paid[0] / 2])


def test_the_same_codes_for_any_number_of_threads(
    codec: vqcodec.Codec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(code_search, "STEPS", 5)
    longer = spoken("rms")  # of two windows
    before, found = torch.get_num_threads(), []
    try:
        for n_threads in (1, 3):
            torch.set_num_threads(n_threads)
            found.append(codec.encode(longer, RATE, refine=True).codes)
    finally:
        torch.set_num_threads(before)
    assert np.array_equal(*found)


@pytest.mark.parametrize("n_samples", [1, 127, 129, 16000 * 4 + 1, 16000 * 8 + 777])
@pytest.mark.parametrize("level", [0.0, 0.1])
def test_every_length_comes_back_even_silence(
    tiny_model: Path, n_samples: int, level: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(code_search, "STEPS", 2)
    codec = vqcodec.load(tiny_model, device="cpu")
    waveform = level * np.random.default_rng(0).standard_normal(n_samples).astype(np.float32)
    codes = codec.encode(waveform, 16000, refine=True)
    assert codes.n_codes == -(-n_samples // codec.hop_length)
    assert codes.codes.max() < codec.config.quantizer.codebook_size
    decoded = codec.decode(codes)
    assert len(decoded) == n_samples
    assert np.isfinite(decoded).all()


def test_nothing_of_the_model_changes(tiny_model: Path, speech: Path) -> None:
    codec = vqcodec.load(tiny_model, device="cpu")
    weights = {name: tensor.clone() for name, tensor in codec.model.state_dict().items()}
    codec.encode(speech, refine=True)
    assert all(torch.equal(weights[k], v) for k, v in codec.model.state_dict().items())
    assert all(weight.grad is None for weight in codec.model.parameters())


def test_codes_are_refined_for_the_voice_that_they_name(tiny_model: Path, speech: Path) -> None:
    codec = vqcodec.load(tiny_model, device="cpu")
    anna, p225 = (codec.encode(speech, speaker=name, refine=True) for name in ("anna", "p225"))
    assert anna.speaker == "anna"
    assert not np.array_equal(anna.codes, p225.codes)


@pytest.mark.parametrize(
    "changes",
    [{"fast": None}, {"quantizer": {"kind": "residual_vq", "num_quantizers": 2}}],
    ids=["no fast decoder", "residual"],
)
def test_models_that_cannot_are_told(
    changes: dict[str, object], speech: Path, tmp_path: Path
) -> None:
    model = VQVAE(ModelConfig.model_validate(TINY | changes))
    path = tmp_path / "model.safetensors"
    checkpoint.save(path, model, {}, provenance={})
    with pytest.raises(VqcodecError, match="cannot be refined"):
        vqcodec.load(path, device="cpu").encode(speech, refine=True)


def test_the_command_writes_them(
    tiny_model: Path, speech: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(code_search, "STEPS", 3)
    plain, better = tmp_path / "plain.codes", tmp_path / "refined.codes"
    common = ["--model", str(tiny_model)]
    assert main(["encode", str(speech), str(plain), *common]) == 0
    assert main(["encode", str(speech), str(better), "--refine", *common]) == 0
    assert main(["decode", str(better), str(tmp_path / "out.wav"), *common]) == 0
    found = [Codes.load(path) for path in (plain, better)]
    assert found[0].codes.shape == found[1].codes.shape
    assert not np.array_equal(found[0].codes, found[1].codes)


def test_conversions_are_of_refined_codes_where_they_shall_be(
    tiny_model: Path, speech: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(code_search, "STEPS", 3)
    codec = vqcodec.load(tiny_model, device="cpu")
    plain = codec.convert(speech, speaker="anna")
    refined = codec.convert(speech, speaker="anna", refine=True)
    assert refined.shape == plain.shape
    assert not np.array_equal(refined, plain)
    codes = codec.encode(speech, refine=True)
    assert np.array_equal(refined, codec.decode(codes, speaker="anna"))
    written = tmp_path / "out.wav"
    command = ["convert", str(speech), "--speaker", "anna", "--refine", "-o", str(written)]
    assert main([*command, "--model", str(tiny_model)]) == 0
    assert audio.load(written, 16000) == pytest.approx(refined, abs=1e-3)


@pytest.mark.parametrize("live", [["encode", "-", "-"], ["convert", "-", "-o", "-"]])
def test_a_live_recording_cannot_be_refined(
    live: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    speaker = ["--speaker", "p225"] if live[0] == "convert" else []
    assert main([*live, *speaker, "--refine"]) == 2
    assert "needs the whole recording" in " ".join(capsys.readouterr().err.split())
