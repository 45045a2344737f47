"""A corpus of five speakers, and recipes that train on it in seconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from recordings import slower, spoken, write

from vqcodec.data import corpora
from vqcodec.data.prepared import PreparedData, prepare
from vqcodec.training.config import Recipe

RECIPES = Path(__file__).parents[1] / "recipes"
SPEECH = {
    "deep": slower(spoken("slt", 0.2, 3.4), 1.3),
    "espeak": spoken("espeak"),
    "high": slower(spoken("rms", 0.2, 4.9), 1 / 1.3),
    "rms": spoken("rms", 0.2, 4.9),
    "slt": spoken("slt", 0.2, 3.4),
}
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
    """The five speakers of `SPEECH`, with three recordings of about a second each."""
    for voice, speech in SPEECH.items():
        # No two recordings are of one length.
        cuts = [round(0.3 * len(speech)), round(0.62 * len(speech))]
        for index, part in enumerate(np.split(speech, cuts)):
            write(folder / "wav" / voice / f"{index}.wav", part)
    utterances = corpora.folder(folder / "wav")
    return prepare(utterances, folder / "prepared", corpus="folder")


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
