"""A corpus of five speakers, and recipes that train on it in seconds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from pydantic import BaseModel
from recordings import slower, spoken, write
from safetensors import safe_open
from safetensors.torch import load_file

from vqcodec.data import corpora
from vqcodec.data.prepared import PreparedData, prepare
from vqcodec.training.loop import STATE_FILE, Report
from vqcodec.training.recipe import Recipe, RunConfig
from vqcodec.training.session import Processes
from vqcodec.training.stages import train
from vqcodec.training.trainer import Trainer

# For scripts, as in conftest.py: exporting graphs takes longer than all that they train.
WITHOUT_GRAPHS = """
from vqcodec.training import model_files
model_files.export_graphs = lambda model: {}
"""
ON_CPU = Processes(0, 1, torch.device("cpu"))
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


def run(recipe: Recipe, *, resume: bool = False) -> tuple[Path, list[Report]]:
    """The model of a training on the CPU, and its reports."""
    reports: list[Report] = []
    path = train(recipe, device="cpu", resume=resume, on_report=reports.append)
    return path, reports


def trainer_of(
    recipe: Recipe, on_report: Callable[[Report], None] = lambda report: None
) -> Trainer:
    """One that has not begun, on the CPU."""
    return Trainer(recipe, ON_CPU, on_report)


def state_of(recipe: RunConfig) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """What a training would go on from: tensors and metadata."""
    path = Path(recipe.output) / STATE_FILE
    with safe_open(path, framework="pt") as file:
        return load_file(path), file.metadata()


def rows(reports: Sequence[Report]) -> list[list[float]]:
    """Of each report the losses, that of a validation or zero, and which codes were used."""
    return [
        [*report.losses.values(), report.validation or 0.0, *map(float, report.usage or ())]
        for report in reports
    ]


def in_two_processes(
    training: str, recipes: Sequence[BaseModel], folder: Path
) -> list[list[float]]:
    """`rows` of a training by torchrun: of the list `reports`, by recipes in the files `paths`."""
    script, result = folder / "train.py", folder / "rows.json"
    paths = [str(folder / f"recipe-{number}.yaml") for number in range(len(recipes))]
    for path, recipe in zip(paths, recipes, strict=True):
        tree = recipe.model_dump(mode="json", exclude_unset=True)
        Path(path).write_text(yaml.safe_dump(tree), encoding="utf-8")
    script.write_text(
        f"""
import json
from pathlib import Path
from training_data import rows
paths, reports = {paths}, []
{WITHOUT_GRAPHS}
{training}
if reports:
    Path({str(result)!r}).write_text(json.dumps(rows(reports)))
""",
        encoding="utf-8",
    )
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [*launcher, script], env=environment, stderr=subprocess.PIPE, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found: list[list[float]] = json.loads(result.read_text(encoding="utf-8"))
    return found
