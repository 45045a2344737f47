"""The engine without torch does what the one with torch does."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from tiny_models import TINY

import vqcodec
from vqcodec.audio import load as load_audio
from vqcodec.errors import CheckpointError, VqcodecError
from vqcodec.inference import engines
from vqcodec.inference.engines import Engine, pytorch
from vqcodec.models.config import ModelConfig
from vqcodec.models.graphs import export_graphs
from vqcodec.models.pitch import UNVOICED, PitchStream
from vqcodec.models.vqvae import VQVAE
from vqcodec.weights import checkpoint, model_file
from vqcodec.weights.onnx_files import write_onnx
from vqcodec.weights.registry import FORMAT


@pytest.fixture(autouse=True)
def _float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """bfloat16, which torch decodes in where it can, is not what the engines are compared by."""
    monkeypatch.setattr(pytorch, "multiplies_bfloat16", lambda device: False)


@pytest.fixture(scope="module")
def pair(light_model: Path) -> tuple[Engine, Engine]:
    """The engine of onnxruntime, and that of torch."""
    file = model_file.read(light_model)
    both = engines.start(file), engines.start(file, device="cpu", engine="torch")
    assert [engine.name for engine in both] == ["onnx", "torch"]
    return both


def error_db(found: np.ndarray, expected: np.ndarray) -> float:
    """Of the difference, under what is expected."""
    difference = np.square(found.astype(np.float64) - expected).sum()
    return float(10 * np.log10(difference / np.square(expected, dtype=np.float64).sum() + 1e-30))


@pytest.mark.parametrize("n_codes", [1, 2, 100])
def test_both_compute_the_same(pair: tuple[Engine, Engine], speech: Path, n_codes: int) -> None:
    light, heavy = pair
    assert light.config == heavy.config
    waveform = load_audio(speech, 16000)[3000:][: n_codes * 128]
    found, expected = light.encode_chunk(waveform), heavy.encode_chunk(waveform)
    sure = expected.margins > 1e-5
    assert np.array_equal(found.codes[:, sure], expected.codes[:, sure])
    np.testing.assert_allclose(found.margins, expected.margins, atol=1e-5)
    np.testing.assert_allclose(found.distances, expected.distances, atol=1e-5)
    codes, speaker = expected.codes, np.random.default_rng(0).normal(size=64).astype(np.float32)
    assert light.decoder_context("fast") == heavy.decoder_context("fast")
    decoded = [engine.decode_chunk("fast", codes, speaker) for engine in pair]
    assert decoded[0].shape == (n_codes * 128,)
    assert error_db(*decoded) < -60
    told = [engine.wavenet_condition(codes, speaker) for engine in pair]
    assert len(told[0]) == n_codes
    assert error_db(*told) < -60
    sampled = [
        engine.sample([one, one[:1]], seeds=[[1], [2]], temperature=1.0)
        for engine, one in zip(pair, (told[1], told[1]), strict=True)
    ]
    for one, other in zip(*sampled, strict=True):
        assert np.array_equal(one, other)


@pytest.mark.parametrize("n_samples", [2000, 8000, 32_001])
def test_both_hear_the_same_speaker(
    pair: tuple[Engine, Engine], speech: Path, n_samples: int
) -> None:
    found, expected = (
        engine.speaker_vector(load_audio(speech, 16000)[:n_samples]) for engine in pair
    )
    assert np.mean(found != expected) < 0.05
    np.testing.assert_allclose(found, expected, atol=1 / 32)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {
                "encoder": {
                    **TINY["encoder"],
                    "kernel_length": 510,
                    "strides": (30, 4),
                    "dilations": [1],
                },
                "fast": {**TINY["fast"], "upsample": 4, "n_fft": 96, "causal": True},
                "wavenet": {
                    **TINY["wavenet"],
                    "n_bands": 4,
                    "hears_fast": True,
                    "hidden_channels": 16,
                },
                "pitch": {},
            },
            {"encode", "decode.fast", "condition"},
        ),
        (
            {"encoder": {"paper": True, "strides": (2,) * 6, "channels": 8}, "fast": None},
            {"encode", "condition"},
        ),
    ],
    ids=["told the pitch", "paper"],
)
def test_other_configurations_have_graphs(
    tmp_path: Path, changes: dict[str, Any], expected: set[str]
) -> None:
    torch.manual_seed(0)
    config = {**TINY, "speaker": {"kind": "table"}, **changes}
    model = VQVAE(ModelConfig.model_validate(config), n_speakers=2).eval()
    model.quantizer.initialized.fill_(True)
    for name, parameter in model.named_parameters():
        if ".streams." in name:
            torch.nn.init.normal_(parameter, std=0.1)
    graphs = export_graphs(model)
    assert set(graphs) == expected
    path = tmp_path / "model.safetensors"
    checkpoint.save(path, model, {}, {}, graphs=graphs)
    file = model_file.read(path)
    pair = engines.start(file), engines.start(file, device="cpu", engine="torch")
    rng = np.random.default_rng(0)
    waveform = 0.1 * rng.normal(size=40 * model.config.hop_length)
    encoded = [engine.encode_chunk(waveform.astype(np.float32)) for engine in pair]
    codes, speaker = encoded[1].codes, rng.normal(size=64).astype(np.float32)
    assert np.array_equal(encoded[0].codes, codes)
    contour = np.where(rng.random(40) < 0.2, UNVOICED, np.log(rng.uniform(60, 400, 40)))
    streams = {"pitch": PitchStream.features(contour)} if model.streams else {}

    def run(engine: Engine, graph: str, *streams: Any) -> np.ndarray:
        if graph == "condition":
            return engine.wavenet_condition(codes, speaker, *streams)
        return engine.decode_chunk("fast", codes, speaker, *streams)

    for graph in expected - {"encode"}:
        told = [run(engine, graph, streams) for engine in pair]
        assert error_db(*told) < -60
        untold = [run(engine, graph) for engine in pair]
        assert error_db(*untold) < -60
        if streams:
            assert error_db(untold[0], told[1]) > -40


def test_graphs_are_added_and_all_else_stays(tiny_model: Path, light_model: Path) -> None:
    before, after = model_file.read(tiny_model), model_file.read(light_model)
    assert after.fingerprint == before.fingerprint
    assert after.provenance == before.provenance
    assert after.tensors.keys() == before.tensors.keys()
    for name, tensor in before.tensors.items():
        assert np.array_equal(after.tensors[name], tensor)
    assert set(after.graphs) == {"encode", "speaker", "decode.fast", "condition"}
    # Weights are there once.
    assert sum(len(graph.onnx) for graph in after.graphs.values()) < 150_000


def test_an_old_file_says_how_it_gets_graphs(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert vqcodec.load(tiny_model, device="cpu").engine.name == "torch"
    with pytest.raises(
        CheckpointError, match=r"no graphs .* vqcodec export graphs .*tiny.safetensors adds them"
    ):
        vqcodec.load(tiny_model, engine="onnx")
    monkeypatch.setattr(engines, "is_installed", lambda name: False)
    with pytest.raises(CheckpointError, match=r"tiny.safetensors: holds no graphs for onnxruntime"):
        vqcodec.load(tiny_model)


def test_engines_and_devices_that_do_not_go_together(light_model: Path) -> None:
    with pytest.raises(VqcodecError, match="engine tpu: choose auto or onnx or torch"):
        vqcodec.load(light_model, engine="tpu")


def test_graphs_that_do_not_fit_are_refused(light_model: Path, tmp_path: Path) -> None:
    path = Path(shutil.copy(light_model, tmp_path / "told.safetensors"))
    metadata, tensors = model_file.read_tensors(path, FORMAT)
    tensors["graphs.encode"] = tensors["graphs.encode"][:-100]
    metadata["sha256"] = model_file.checksum(tensors, metadata)
    from safetensors.numpy import save_file

    save_file(tensors, path, metadata)
    engine = engines.start(model_file.read(path))
    with pytest.raises(CheckpointError, match="weights and configuration disagree"):
        engine.encode_chunk(np.zeros(1280, np.float32))


@pytest.mark.parametrize("half", [False, True])
def test_files_for_other_programs(
    light_model: Path, pair: tuple[Engine, Engine], tmp_path: Path, half: bool
) -> None:
    file = model_file.read(light_model)
    paths = write_onnx(file, tmp_path, half=half)
    about = json.loads((tmp_path / "model.json").read_text())
    assert set(about["graphs"]) == {path.name for path in paths}
    assert about["fingerprint"] == file.fingerprint.hex()
    session = onnxruntime.InferenceSession(tmp_path / "decode.fast.onnx")
    known = session.get_modelmeta().custom_metadata_map
    assert known["fingerprint"] == file.fingerprint.hex()
    codes = np.arange(60).reshape(2, 1, 30)  # a batch
    speakers = np.random.default_rng(0).normal(size=(2, 64)).astype(np.float32)
    (found,) = session.run(None, {"codes": codes, "speaker": speakers})
    for waveform, one, speaker in zip(found, codes, speakers, strict=True):
        expected = pair[1].decode_chunk("fast", one, speaker)
        assert error_db(waveform, expected) < (-40 if half else -60)
    weights = sum(value.nbytes for value in file.weights(file.graphs["encode"].weights).values())
    size = (tmp_path / "encode.onnx").stat().st_size
    assert size < (0.7 if half else 1.1) * weights + len(file.graphs["encode"].onnx)


def test_files_of_two_models_do_not_lie_in_one_folder(light_model: Path, tmp_path: Path) -> None:
    known = model_file.read("units-25hz")
    for _ in range(2):
        write_onnx(known, tmp_path, half=False)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(CheckpointError, match="holds the graphs of units-25hz; name another"):
        write_onnx(model_file.read(light_model), tmp_path, half=False)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_files_for_other_programs_tell_what_is_beside_the_graphs(tmp_path: Path) -> None:
    file = model_file.read("speech-1k")
    write_onnx(file, tmp_path, half=True)
    about = json.loads((tmp_path / "model.json").read_text())
    assert file.config.pitch
    assert about["pitch"] == file.config.pitch.model_dump()
    assert about["about_voices"].keys() == about["voices"].keys()
    assert about["about_voices"]["p225"]["sex"] == "female"
    before, after = about["graphs"]["encode.onnx"]["context"]
    session = onnxruntime.InferenceSession(tmp_path / "encode.onnx")
    noise = np.random.default_rng(0).normal(scale=0.06, size=(1, 100 * 128)).astype(np.float32)
    seen = noise[:, (50 - before) * 128 : (51 + after) * 128]
    whole, part = (session.run(None, {"waveform": waveform}) for waveform in (noise, seen))
    assert whole[0][0, 0, 50] == part[0][0, 0, before]
    assert abs(whole[1][0, 50] - part[1][0, before]) < 1e-5
    tracker = onnxruntime.InferenceSession(tmp_path / "pitch.onnx")
    tone = np.sin(2 * np.pi * 200 * np.arange(16_000) / 16_000, dtype=np.float32)[None]
    limits = {"fmin": np.array(55, np.float32), "fmax": np.array(550, np.float32)}
    pitch, _ = tracker.run(["pitch", "confidence"], {"audio": tone, **limits})
    assert np.median(pitch) == pytest.approx(200, rel=0.01)
    assert "MIT License" in (tmp_path / "pitch.LICENSE").read_text()
