from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# Before torch is imported, and for every process that a test starts: of models so small, threads
# would only wait for each other.
os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings
from recordings import spoken, write
from tiny_models import TINY, save_tiny_model
from training_data import prepare_speech, run, small_recipe

import vqcodec
from vqcodec import audio
from vqcodec.data.prepared import PreparedData
from vqcodec.evaluation import comparison, conversion
from vqcodec.evaluation.cache import Setup, prepare_setup
from vqcodec.models.config import ModelConfig
from vqcodec.models.graphs import export_graphs
from vqcodec.models.vqvae import VQVAE
from vqcodec.training import trainer
from vqcodec.training.prior_data import encode_clips
from vqcodec.weights import checkpoint, model_file

pytest_plugins = ["command_line"]

# A shell's background jobs ignore interrupts, and what they start would, too.
signal.signal(signal.SIGINT, signal.default_int_handler)

# An example may have to wait for a compiler, or for a core.
settings.register_profile("vqcodec", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("vqcodec")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--no-skips", action="store_true", help="a skipped test fails unless optional")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Any:
    report = yield
    is_skipped = report.skipped and not hasattr(report, "wasxfail")
    is_optional = item.get_closest_marker("optional")
    if is_skipped and not is_optional and item.config.getoption("--no-skips"):
        report.outcome, report.longrepr = "failed", report.longrepr[2]
    return report


@pytest.fixture(autouse=True, scope="session")
def _own_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What a user has set up plays no part, and is left as it is."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
        for kind in ("CACHE", "DATA", "STATE"):
            patch.delenv(f"XDG_{kind}_HOME", raising=False)
        yield


@pytest.fixture(autouse=True)
def _own_settings_folder(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.mktemp("settings")))


@pytest.fixture(autouse=True, scope="session")
def _trained_without_graphs() -> Iterator[None]:
    """Exporting them takes longer than a training of a few steps."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vqcodec.training.model_files.export_graphs", lambda model: {})
        yield


@pytest.fixture(scope="session")
def told_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As `tiny_model`, with a pitch stream that its decoders hear, and a WaveNet in bands."""
    path = tmp_path_factory.mktemp("model") / "told.safetensors"
    torch.manual_seed(0)
    wavenet = {
        **TINY["wavenet"],
        "hidden_channels": 16,
        "n_bands": 4,
        "hears_fast": True,
        "prediction_order": 2,
        "coarse_steps": 3,
    }
    model = VQVAE(ModelConfig.model_validate({**TINY, "wavenet": wavenet, "pitch": {}}))
    model.quantizer.initialized.fill_(True)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".streams." in name or "coarse" in name:
                parameter.normal_(std=0.1)
    rng = np.random.default_rng(0)
    voices = {name: rng.integers(-60, 61, 64).astype(np.int8) for name in ("p225", "anna")}
    checkpoint.save(path, model, voices, provenance={})
    return path


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model file with random weights and the voices p225 and anna."""
    path = tmp_path_factory.mktemp("model") / "tiny.safetensors"
    save_tiny_model(path, seed=0)
    return path


@pytest.fixture(scope="module")
def codec(tiny_model: Path) -> vqcodec.Codec:
    """That of `tiny_model`, which a module may override."""
    return vqcodec.load(tiny_model, device="cpu")


@pytest.fixture(scope="session")
def light_model(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`tiny_model` with graphs, so that it runs without torch; making these takes a while."""
    path = Path(shutil.copy(tiny_model, tmp_path_factory.mktemp("light") / "tiny.safetensors"))
    model_file.add_graphs(path, export_graphs(checkpoint.load(path).model))
    return path


@pytest.fixture(scope="session")
def packaged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A packaged one with the voices p225 and anna: for processes, which need no torch for it."""
    path = tmp_path_factory.mktemp("model") / "packaged.safetensors"
    known = checkpoint.load("speech-1k")
    voices = {"p225": known.voices["p225"], "anna": known.voices["ls19"]}
    graphs = model_file.read("speech-1k").graphs
    checkpoint.save(path, known.model, voices, {}, graphs=graphs)
    return path


@pytest.fixture(scope="session")
def speech(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A WAV of a woman who speaks for 2.27 seconds, 16 kHz mono."""
    path = tmp_path_factory.mktemp("speech") / "speech.wav"
    return write(path, spoken("slt", 0.0, 2.27))


@pytest.fixture(scope="session")
def samples(speech: Path) -> np.ndarray:
    """The speech as an array at 16 kHz."""
    return audio.load(speech, 16000)


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> PreparedData:
    """`prepare_speech`, for tests that only read it."""
    return prepare_speech(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="session")
def coded_clips(
    data: PreparedData, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The codes of `data`, to be put where the training of a prior looks for them."""
    codec = vqcodec.load(tiny_model, device="cpu")
    path = tmp_path_factory.mktemp("codes") / f"codes-{codec.fingerprint.hex()}.safetensors"
    encode_clips(codec, data, data.split("train"), path)
    return path


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Evaluations start no processes."""

    def map_in_processes(function: Any, tasks: list[Any], **_: Any) -> list[Any]:
        return [function(task) for task in tasks]

    for module in (comparison, conversion):
        monkeypatch.setattr(module, "map_in_processes", map_in_processes)


@pytest.fixture
def setting(tiny_model: Path) -> Setup:
    """What the fast decoder of `tiny_model` is evaluated with."""
    return prepare_setup(str(tiny_model), "fast", "pocketsphinx")


@pytest.fixture
def threads() -> Iterator[None]:
    """Their number in torch, restored after the test."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def _few_validation_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer, "VALIDATION_BATCHES", 2)


@pytest.fixture(scope="session")
def first_stage(data: PreparedData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of the first stage, after three steps."""
    return run(small_recipe(data, tmp_path_factory.mktemp("codec")))[0]
