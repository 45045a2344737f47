"""Imports point one way, and what reads and writes files does without torch."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# From the ground up: a module may import what stands in its own line or above it. A package
# stands for its modules, except for those that have a line of their own.
LAYERS = [
    ["vqcodec.errors", "vqcodec.files", "vqcodec.extras", "vqcodec.compilation"],
    ["vqcodec.audio", "vqcodec.weights.registry", "vqcodec.weights.hub"],
    ["vqcodec.format"],
    ["vqcodec.models"],
    ["vqcodec.weights"],
    ["vqcodec.data"],
    ["vqcodec.inference"],
    ["vqcodec.codec", "vqcodec.prior", "vqcodec"],
    ["vqcodec.scale", "vqcodec.datasets"],
    ["vqcodec.serving"],
    ["vqcodec.evaluation"],
    ["vqcodec.training"],
    ["vqcodec_cli", "vqcodec.__main__"],
]
APART = [  # may not import each other, whichever stands higher
    ("vqcodec.evaluation", "vqcodec.training"),
    ("vqcodec.serving", "vqcodec.evaluation"),
    ("vqcodec.serving", "vqcodec.training"),
    ("vqcodec.inference", "vqcodec.data"),
    ("vqcodec.models", "vqcodec.format"),
    ("vqcodec.models", "vqcodec.files"),
    ("vqcodec.models", "vqcodec.audio"),
]


def modules() -> dict[str, Path]:
    found = {}
    for folder, package in (("vqcodec", "vqcodec"), ("cli", "vqcodec_cli")):
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = [package, *path.relative_to(ROOT / folder).with_suffix("").parts]
            found[".".join(parts).removesuffix(".__init__")] = path
    return found


MODULES = modules()


def imported(path: Path) -> set[str]:
    """Modules of the project that a file imports, those of type checking aside."""
    names = set()

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            return
        if isinstance(node, ast.ImportFrom) and node.module:
            for name in node.names:
                full = f"{node.module}.{name.name}"
                names.add(full if full in MODULES else node.module)
        elif isinstance(node, ast.Import):
            names.update(name.name for name in node.names)
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(path.read_text(encoding="utf-8")))
    return names & MODULES.keys()


def home(module: str) -> str:
    """The entry of LAYERS that a module belongs to: the longest that names it."""
    entries = [entry for layer in LAYERS for entry in layer]
    return max(
        (entry for entry in entries if module == entry or module.startswith(entry + ".")), key=len
    )


def layer_of(module: str) -> int:
    (layer,) = (number for number, layer in enumerate(LAYERS) if home(module) in layer)
    return layer


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_one_way(module: str) -> None:
    for other in imported(MODULES[module]):
        if module == "vqcodec" or other == "vqcodec":
            continue  # the front door, which opens its rooms when they are asked for
        assert layer_of(other) <= layer_of(module), f"{module} imports {other}"
        assert (home(module), home(other)) not in APART, f"{module} imports {other}"
        assert (home(other), home(module)) not in APART, f"{module} imports {other}"


WITH_TORCH = {  # follow gradients, or use a GPU
    "vqcodec.inference.code_search",
    "vqcodec.inference.voice_tuning",
    "vqcodec.inference.engines.batched",
    "vqcodec.inference.engines.pytorch",
    "vqcodec.inference.wavenet.graph",
}


def test_reading_writing_and_inference_import_no_torch() -> None:
    packages = "vqcodec.audio", "vqcodec.format", "vqcodec.inference"
    names = [name for name in MODULES if name.startswith(packages) and name not in WITH_TORCH]
    weights = [f"vqcodec.weights.{name}" for name in ("registry", "voices", "model_file")]
    script = f"""
import importlib, sys
for name in {[*names, *weights, "vqcodec.codec"]}:
    importlib.import_module(name)
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", script], check=True)


def test_inference_needs_no_training() -> None:
    names = [name for name in MODULES if name.startswith("vqcodec.inference")]
    script = f"""
import importlib, sys
for name in {names}:
    importlib.import_module(name)
higher = ("vqcodec.training", "vqcodec.evaluation", "vqcodec.data", "torchaudio")
assert not [name for name in sys.modules if name.startswith(higher)]
"""
    subprocess.run([sys.executable, "-c", script], check=True)


def test_the_command_line_starts_without_what_few_commands_need() -> None:
    script = """
import sys, vqcodec, vqcodec_cli.main
assert not {"torch", "huggingface_hub", "fastapi", "gradio", "uvicorn"} & sys.modules.keys()
"""
    subprocess.run([sys.executable, "-c", script], check=True)


def test_no_two_modules_share_a_name() -> None:
    # `vqcodec units` is a command and inference/units.py what it calls: commands do not count.
    names = [name.rpartition(".")[2] for name in MODULES if name.startswith("vqcodec.")]
    # models/wavenet.py is the network, inference/wavenet/ its sampler.
    twice = {name for name in names if names.count(name) > 1} - {"wavenet"}
    assert not twice
