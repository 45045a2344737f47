from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import settings

from vqcodec import checkpoint
from vqcodec.models.config import ModelConfig
from vqcodec.models.vqvae import VQVAE

pytest_plugins = ["command_line"]

# A shell's background jobs ignore interrupts, and what they start would, too.
signal.signal(signal.SIGINT, signal.default_int_handler)

# An example may have to wait for a compiler, or for a core.
settings.register_profile("vqcodec", deadline=None)
settings.load_profile("vqcodec")

TINY = {
    "encoder": {"channels": 16, "code_channels": 32, "n_filters": 16},
    "fast": {"channels": 32, "n_layers": 2},
    "wavenet": {
        "n_stacks": 1,
        "layers_per_stack": 4,
        "residual_channels": 8,
        "skip_channels": 16,
        "condition_channels": 16,
    },
}


def save_tiny_model(path: Path, *, seed: int) -> None:
    """A model file with random weights and the voices p225 and anna."""
    torch.manual_seed(seed)
    model = VQVAE(ModelConfig.model_validate(TINY))
    model.quantizer.initialized.fill_(True)
    rng = np.random.default_rng(seed)
    voices = {name: rng.integers(-60, 61, 64).astype(np.int8) for name in ("p225", "anna")}
    checkpoint.save(path, model, voices, provenance={})


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model file with random weights and the voices p225 and anna."""
    path = tmp_path_factory.mktemp("model") / "tiny.safetensors"
    save_tiny_model(path, seed=0)
    return path


@pytest.fixture(scope="session")
def speech(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A WAV of a synthesizer that speaks for about two seconds, 16 kHz mono."""
    path = tmp_path_factory.mktemp("speech") / "speech.wav"
    text = "The quick brown fox jumps over the lazy dog."
    subprocess.run(["flite", "-voice", "slt", "-t", text, "-o", str(path)], check=True)
    return path
