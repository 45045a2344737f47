"""A minute of synthetic speech, and recipes that train on it in seconds."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

from vqcodec.data import corpora
from vqcodec.data.prepared import PreparedData, prepare
from vqcodec.training.config import Recipe

RECIPES = Path(__file__).parents[1] / "recipes"
SENTENCES = (
    "The birch canoe slid on the smooth planks, and the boy glued the sheet to the wall.",
    "It is easy to tell the depth of a well when these days a chicken leg is a rare dish.",
    "Rice is often served in round bowls, but the juice of lemons makes fine punch too.",
)
MODEL: dict[str, Any] = {
    "encoder": {"n_filters": 16, "channels": 16, "code_channels": 16, "dilations": [1]},
    "quantizer": {"dim": 16, "codebook_size": 16, "codebook_dim": 4},
    "speaker": {"channels": 8},
    "fast": {"channels": 16, "n_layers": 1},
    "wavenet": {
        "n_stacks": 1,
        "layers_per_stack": 3,
        "residual_channels": 8,
        "skip_channels": 8,
        "condition_channels": 8,
    },
}


def prepare_speech(folder: Path) -> PreparedData:
    """Five speakers of two synthesizers, a minute in all."""
    for voice in ("slt", "rms", "awb", "kal16"):
        for index, text in enumerate(SENTENCES):
            target = _target(folder, voice, index)
            subprocess.run(["flite", "-voice", voice, "-t", text, "-o", target], check=True)
    for index, text in enumerate(SENTENCES):
        target = _target(folder, "espeak", index)
        subprocess.run(["espeak-ng", "-v", "en+f2", "-w", target, text], check=True)
    utterances = corpora.folder(folder / "wav")
    return prepare(utterances, folder / "prepared", corpus="folder")


def _target(folder: Path, speaker: str, index: int) -> Path:
    path = folder / "wav" / speaker / f"{index}.wav"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def small_recipe(prepared: PreparedData, output: Path, **changes: Any) -> Recipe:
    """A recipe that takes a few milliseconds a step; `changes` replace whole top-level keys."""
    return Recipe.model_validate(
        {
            "output": str(output),
            "steps": 3,
            "unquantized_steps": 1,
            "precision": "float32",
            "log_every": 1,
            "data": data_section(prepared),
            "model": MODEL,
            **changes,
        }
    )


def data_section(prepared: PreparedData, **changes: Any) -> dict[str, Any]:
    section = {"root": str(prepared.root), "batch_size": 2, "segment_length": 16}
    return {**section, "reference_s": 0.5, **changes}


def model_with(**sections: dict[str, Any] | None) -> dict[str, Any]:
    """`MODEL` with some keys of its sections changed, or sections absent."""
    changed = {
        name: section if section is None else {**MODEL[name], **section}
        for name, section in sections.items()
    }
    return {**MODEL, **changed}
