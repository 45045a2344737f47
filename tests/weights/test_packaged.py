"""The packaged model, out of the box, as the README promises."""

from __future__ import annotations

import json
import runpy
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer
from code_files import random_model
from command_line import ROOT, Run
from recordings import RATE, spoken
from tiny_models import save_tiny_model

import vqcodec
from vqcodec.data.prepared import PreparedData
from vqcodec.errors import CheckpointError
from vqcodec.evaluation import quality
from vqcodec.format.stream_records import CodeBlock
from vqcodec.models.interfaces import Graph
from vqcodec.training import entropy_coder
from vqcodec.training.entropy_coder import fit_entropy_coder, fit_tables
from vqcodec.weights import checkpoint, model_file
from vqcodec.weights.model_file import CODES_OF
from vqcodec.weights.registry import DEFAULT_MODEL, packaged

VOICES = {"p225", "p226", "p227", "p228", "p239", "ls19", "ls26", "ls27"}


@pytest.fixture(scope="module")
def codec() -> vqcodec.Codec:
    return vqcodec.load(device="cpu")


def test_what_is_packaged_fits() -> None:
    assert DEFAULT_MODEL in vqcodec.list_models()
    sizes = [path.stat().st_size for path in packaged().values()]
    assert max(sizes) < 16_000_000
    assert sum(sizes) < 40_000_000


def test_it_is_the_codec_that_is_documented(codec: vqcodec.Codec) -> None:
    assert codec.voices.keys() >= VOICES
    assert codec.decoders == ("fast", "wavenet")
    assert {"attribution", "licence", "data", "hardware", "metrics"} <= codec.provenance.keys()
    assert codec.sample_rate / codec.hop_length == 125
    assert codec.config.quantizer.codebook_size == 2048


def test_provenance_names_no_folder_of_a_trainer() -> None:
    for name in vqcodec.list_models():
        assert '"/' not in json.dumps(checkpoint.load(name).provenance)


@pytest.mark.parametrize(("name", "code_rate"), [("speech-1k", 125), ("speech-2k", 250)])
def test_speech_comes_back_intelligible(name: str, code_rate: int) -> None:
    codec, original = vqcodec.load(name, device="cpu"), spoken("rms")
    codes = codec.encode(original, RATE)
    assert codes.n_codes == pytest.approx(code_rate * codes.duration_s, abs=1)
    assert codes.bits_per_second < 9 * code_rate  # entropy-coded, header included
    assert codec.voices.keys() >= VOICES
    decoded = codec.decode(codes, sample_rate=16000)
    assert len(decoded) == len(original)
    # A wrong voice, a shuffled code or a shifted frame falls far below.
    assert quality.stoi(original, decoded) > 0.7
    shuffled = np.random.default_rng(0).permutation(codes.codes, axis=1)
    assert (
        quality.stoi(original, codec.decode(replace(codes, codes=shuffled), sample_rate=16000))
        < 0.4
    )


def test_conversion_changes_the_voice_and_not_the_codes(codec: vqcodec.Codec, speech: Path) -> None:
    codes = codec.encode(speech)
    own = codec.decode(codes, sample_rate=16000)
    target = codec.decode(codes, speaker="ls26", sample_rate=16000)
    other = codec.decode(codes, speaker="p225", sample_rate=16000)
    assert quality.speaker_similarity(own, target) < 0.95
    assert quality.speaker_similarity(target, other) < 0.95


def test_the_wavenet_follows_the_codes(codec: vqcodec.Codec, speech: Path) -> None:
    codes = codec.encode(speech)
    fast = codec.decode(codes, sample_rate=16000)
    sampled = codec.decode(codes, decoder="wavenet", sample_rate=16000)

    def envelope(waveform: np.ndarray) -> np.ndarray:
        frames = waveform[: len(waveform) // 320 * 320].reshape(-1, 320)
        return np.log(np.square(frames).sum(1) + 1e-3)

    assert np.corrcoef(envelope(fast), envelope(sampled))[0, 1] > 0.7
    assert np.array_equal(sampled, codec.decode(codes, decoder="wavenet", sample_rate=16000))
    reseeded = codec.decode(codes, decoder="wavenet", seed=1, sample_rate=16000)
    assert not np.array_equal(sampled, reseeded)


def test_a_model_of_another_rate_begins_from_a_packaged_one(
    run_script: Run, tmp_path: Path
) -> None:
    start = tmp_path / "start.safetensors"
    recipe = ["vctk.yaml", "model.encoder.strides=[32,2]", "data.segment_length=128"]
    grown = run_script("tools/models.py", "grow", "speech-1k", *recipe, "-o", start)
    assert grown.status == 0, grown.stderr
    begun, trained = checkpoint.load(start).model, checkpoint.load("speech-1k").model
    assert begun.config.hop_length == 64
    own, old = begun.state_dict(), trained.state_dict()
    changed = {name for name in own.keys() & old.keys() if not torch.equal(own[name], old[name])}
    strided = "encoder.layers.3.conv.weight"
    codebook = {"codebook", "cluster_size", "cluster_sum", "initialized"}
    assert changed == {strided, *(f"quantizer.{name}" for name in codebook)}
    assert begun.config.quantizer.codebook_size == 512
    assert own[strided].shape == (256, 128, 4)
    # Half the taps, each larger by the square root of two.
    gain = own[strided].sum(-1) / old[strided].sum(-1)
    assert gain.median() == pytest.approx(2**-0.5, rel=0.05)


@pytest.fixture
def _without_graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vqcodec.models.graphs.export_graphs", lambda model: {})


@pytest.mark.usefixtures("_without_graphs")
def test_decoders_of_the_same_codes_are_averaged(
    run_script: Run, tiny_model: Path, tmp_path: Path
) -> None:
    other, mean, stranger = (tmp_path / f"{name}.safetensors" for name in ("a", "b", "c"))
    tiny = checkpoint.load(str(tiny_model))
    before = {name: each.clone() for name, each in tiny.model.state_dict().items()}
    with torch.no_grad():
        for parameter in (*tiny.model.fast.parameters(), *tiny.model.wavenet.parameters()):
            parameter.add_(1.0)
    checkpoint.save(other, tiny.model, tiny.voices, {})
    average = ["tools/models.py", "average", "-o", mean, tiny_model, other]
    assert run_script(*average).status == 0
    for name, after in checkpoint.load(str(mean)).model.state_dict().items():
        moved = 0.5 if name.startswith("fast.") and "window" not in name else 0.0
        assert torch.allclose(after.float(), before[name].float() + moved, atol=0.02), name
    save_tiny_model(stranger, seed=1)
    refused = run_script(*average, stranger)
    assert refused.status == 1
    assert "its codes are not those of" in refused.stderr
    assert run_script(*average, stranger, "--moved-codes").status == 0
    assert checkpoint.load(str(mean)).fingerprint == tiny.fingerprint


def test_what_an_encoder_of_before_wrote_is_decoded(codec: vqcodec.Codec) -> None:
    """The encoder of speech-1k was trained on; its codebook and decoders were not."""
    before = vqcodec.Codes.load(ROOT / "tests" / "format" / "goldens" / "rms_of_before.codes")
    assert before.fingerprint == codec.fingerprint
    speech = spoken("rms")
    now = codec.encode(speech, RATE)
    assert not np.array_equal(before.codes, now.codes)
    found = [quality.stoi(speech, codec.decode(codes, sample_rate=RATE)) for codes in (before, now)]
    assert min(found) > 0.7
    assert abs(found[0] - found[1]) < 0.05


@pytest.mark.usefixtures("_without_graphs")
def test_encoders_of_the_same_codes_are_averaged(
    run_script: Run, told_model: Path, tmp_path: Path
) -> None:
    told = checkpoint.load(told_model)
    before = {name: each.clone() for name, each in told.model.state_dict().items()}
    with torch.no_grad():
        for parameter in (*told.model.encoder.parameters(), *told.model.speaker.parameters()):
            parameter.add_(1.0)
    provenance = {CODES_OF: told.fingerprint.hex()}
    other, mean = tmp_path / "a.safetensors", tmp_path / "mean.safetensors"
    checkpoint.save(other, told.model, told.voices, provenance)
    command = ["tools/models.py", "average", "-o", mean, told_model, other]
    assert run_script(*command).status == 0
    found = checkpoint.load(mean)
    assert found.fingerprint == told.fingerprint
    # The WaveNet hears the fast decoder, which is the same in both.
    assert found.model.wavenet is not None
    for name, after in found.model.state_dict().items():
        moved = 0.5 if name.startswith(("encoder.", "speaker.")) and ".mel." not in name else 0.0
        assert torch.allclose(after.float(), before[name].float() + moved, atol=0.02), name


@pytest.fixture
def models() -> dict[str, Any]:
    return runpy.run_path(str(ROOT / "tools" / "models.py"))


def test_tables_are_fitted_to_refined_codes_too(
    data: PreparedData,
    tiny_model: Path,
    models: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    codec = vqcodec.load(tiny_model, device="cpu")
    for clip in data.split("train"):
        codes = codec.encode(data.read(clip), data.sample_rate)
        path = tmp_path / "codes" / f"{clip.name}.codes"
        path.parent.mkdir(parents=True, exist_ok=True)
        # What no encoder makes of speech.
        replace(codes, codes=np.full_like(codes.codes, 3)).save(path)
    monkeypatch.setattr(entropy_coder, "fit_tables", partial(fit_tables, n_context=2, units=32))
    refined = models["codes_in"](tmp_path / "codes", codec, data)
    plain = fit_entropy_coder(codec, data, steps=200)
    both = fit_entropy_coder(codec, data, steps=200, more=refined)
    encoded = codec.encode(data.read(data.clips[0]), data.sample_rate).codes
    same, usual = (CodeBlock(codes) for codes in (np.full_like(encoded, 3), encoded))
    assert len(both.encode(same)) < len(plain.encode(same))
    assert len(both.encode(usual)) < 1.5 * len(plain.encode(usual))


def test_tables_for_the_pitch_are_added_to_those_of_the_codes(
    data: PreparedData,
    told_model: Path,
    models: dict[str, Any],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    start, path = tmp_path / "start.safetensors", tmp_path / "model.safetensors"
    told = checkpoint.load(told_model)
    tables = random_model(0, codebook_size=512)
    graphs = {"encode": Graph(b"as it was", (), (1, 2))}
    fingerprint = checkpoint.save(start, told.model, told.voices, {}, tables, graphs)
    models["PITCH_TABLES"]["steps"] = 200
    models["pitch_tables"](str(start), data.root, path)
    after = checkpoint.load(path)
    assert after.fingerprint == fingerprint
    assert after.tables is not None
    assert after.tables.digest == tables.digest
    assert model_file.read(path).graphs == graphs
    codec = vqcodec.load(path, device="cpu", engine="torch")
    codes = codec.encode(data.read(data.clips[0]), data.sample_rate)
    own = CodeBlock(codes.symbols["pitch"][None])
    assert len(after.tables.streams["pitch"].encode(own)) < 0.75 * own.codes.size * 6 / 8
    with pytest.raises(CheckpointError, match="has no pitch stream, or no tables"):
        models["pitch_tables"](str(told_model), data.root, path)


def test_a_packaged_model_takes_the_wavenet_trained_apart(
    tiny_model: Path,
    models: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    package = models["package"]
    monkeypatch.setitem(package.__globals__, "WEIGHTS", tmp_path)
    tiny = checkpoint.load(str(tiny_model))
    before = {name: each.clone() for name, each in tiny.model.state_dict().items()}
    with torch.no_grad():
        for parameter in (*tiny.model.fast.parameters(), *tiny.model.wavenet.parameters()):
            parameter.add_(1.0)
    checkpoint.save(tmp_path / "other.safetensors", tiny.model, tiny.voices, {})
    save_tiny_model(tmp_path / "stranger.safetensors", seed=1)
    tiny.model.wavenet = None
    tiny.model.config = tiny.config.model_copy(update={"wavenet": None})
    checkpoint.save(tmp_path / "fast.safetensors", tiny.model, tiny.voices, {})
    (tmp_path / "more.json").write_text('{"licence": "none", "data": {"root": "/home/me/corpus"}}')
    voice = next(iter(tiny.voices))
    arguments = [str(tmp_path / "fast.safetensors"), "packed", voice, tmp_path / "more.json"]
    with pytest.raises(CheckpointError, match="its codes are not those of"):
        package(*arguments, wavenet=str(tmp_path / "stranger.safetensors"))
    with pytest.raises(typer.BadParameter, match="--codes needs --train-data"):
        package(*arguments, codes=tmp_path)
    package(*arguments, wavenet=str(tmp_path / "other.safetensors"))
    packed = checkpoint.load(str(tmp_path / "packed.safetensors"))
    assert list(packed.voices) == [voice]
    assert packed.provenance["licence"] == "none"
    assert packed.provenance["data"] == {"root": "corpus"}
    for name, after in packed.model.state_dict().items():
        moved = 1.0 if name.startswith(("fast.", "wavenet.")) and "window" not in name else 0.0
        assert torch.allclose(after.float(), before[name].float() + moved, atol=0.02), name
