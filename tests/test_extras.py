"""What works without the extras, what says which extra it wants, and what needs no torch."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import soundfile

from vqcodec.errors import VqcodecError
from vqcodec.extras import EXTRAS, library

SAMPLES = Path(__file__).parents[1] / "samples"
# Runs command lines, the first argument, where the libraries of the extras are missing.
BARE = """
import contextlib, io, json, sys
for name in json.loads(sys.argv[2]):
    sys.modules[name] = None  # which is how Python remembers that there is no such module
from vqcodec_cli.main import main
results = []
for arguments in json.loads(sys.argv[1]):
    with contextlib.redirect_stderr(io.StringIO()) as told, contextlib.redirect_stdout(told):
        status = main(arguments)
    results.append((status, told.getvalue()))
print(json.dumps(results))
"""
# Of the extras' own names, the top-level ones; and what some of them bring.
MISSING = [
    *("torch", "torchaudio", "tensorboard", "vector_quantize_pytorch", "yaml"),
    *("onnx", "onnxscript", "numba", "llvmlite"),
    *("librosa", "pesq", "pystoi", "pyworld", "resemblyzer", "sklearn", "scipy", "speechmos"),
    *("pocketsphinx", "jiwer", "matplotlib"),
]


def bare(*command_lines: list[str | Path], missing: list[str]) -> list[Any]:
    lines = [[str(word) for word in line] for line in command_lines]
    done = subprocess.run(
        [sys.executable, "-c", BARE, json.dumps(lines), json.dumps(missing)],
        cwd=SAMPLES.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    result: list[Any] = json.loads(done.stdout)
    return result


def test_the_codec_needs_no_extra_and_the_rest_says_which(packaged: Path, tmp_path: Path) -> None:
    samples, rate = soundfile.read(SAMPLES / "slt.wav", 3 * 16000)
    clip, codes, voices = (tmp_path / name for name in ("a.wav", "a.codes", "voices.json"))
    soundfile.write(clip, samples, rate)
    labels, speaker = tmp_path / "labels", tmp_path / "corpus" / "slt"
    labels.mkdir()
    speaker.mkdir(parents=True)
    soundfile.write(speaker / "a.wav", samples, rate)
    model: list[str | Path] = ["--model", packaged]
    results = bare(
        ["encode", clip, codes, *model],
        ["decode", codes, tmp_path / "b.wav", "--decoder", "fast", *model],
        ["convert", clip, "--speaker", "anna", "-o", tmp_path / "c.wav", *model],
        ["enroll", "slt", clip, "-o", voices, *model],
        ["verify", packaged],
        ["prepare", "folder", tmp_path / "corpus", "-o", tmp_path / "data", "--jobs", "1"],
        ["recipes"],
        missing=MISSING,
    )
    assert [status for status, _ in results] == [0] * 7, results
    refused: list[tuple[str, str, list[str | Path]]] = [
        ("torch", "train", ["encode", clip, tmp_path / "b.codes", "--refine", *model]),
        ("torch", "train", ["enroll", "two", clip, "--tune", "-o", voices, *model]),
        ("torch", "train", ["export", "graphs", packaged]),
        ("numba", "wavenet", ["decode", codes, "d.wav", "--decoder", "wavenet", *model]),
        ("yaml", "train", ["train", "vctk.yaml"]),
    ]
    results = bare(*(line for *_, line in refused), missing=MISSING)
    for (status, told), (name, extra, _) in zip(results, refused, strict=True):
        last = told.splitlines()[-1]
        assert status == 1, told
        assert re.search(rf": {name}: (is not installed|cannot be imported)", last)
        assert last.endswith(f"; pip install 'vqcodec[{extra}]'")


def test_a_program_without_torch_is_told_which_extra_it_needs(packaged: Path) -> None:
    asks = """
import sys
sys.modules["torch"] = None
import vqcodec, vqcodec.prior
codec = vqcodec.load(sys.argv[1], voices=False)
for ask in (
    lambda: codec.encode(sys.argv[2], refine=True),
    lambda: codec.enroll("two", [sys.argv[2]], tune=True),
    lambda: vqcodec.prior.load(codec),
):
    try:
        ask()
    except vqcodec.VqcodecError as error:
        print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", asks, packaged, SAMPLES / "slt.wav"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.count("; pip install 'vqcodec[train]'\n") == 3


def test_evaluation_says_which_extra_it_needs(tiny_model: Path, tmp_path: Path) -> None:
    model: list[str | Path] = ["--model", tiny_model]
    results = bare(
        ["eval", tmp_path, *model],
        ["leakage", tmp_path, *model],
        ["units-eval", tmp_path, *model],
        missing=MISSING,
    )
    told = "vqcodec: librosa: is not installed; pip install 'vqcodec[eval]'\n"
    assert results == [[1, told]] * 3


def test_a_misspelt_recipe_is_told_without_torch(tmp_path: Path) -> None:
    recipe = tmp_path / "prior.yaml"
    recipe.write_text("stage: prior\nsteps: 10\n")
    (listed, _), *faults = bare(
        ["recipes"],
        ["train", "vctk.yaml", "data.bach_size=4"],
        ["train", recipe, "model.chanels=4"],
        missing=["torch"],
    )
    assert listed == 0
    for (status, told), meant in zip(faults, ("data.batch_size", "model.channels"), strict=True):
        assert (status, told.count("\n")) == (1, 1)
        assert f"did you mean {meant}?" in told


@pytest.mark.parametrize("extra", EXTRAS)
def test_every_library_is_known_to_an_extra(extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in EXTRAS[extra]:
        monkeypatch.setitem(sys.modules, name, None)
        with pytest.raises(VqcodecError, match=rf"^{name}: .*'vqcodec\[{extra}\]'$"):
            library(name)


def test_a_library_that_does_not_load_is_told_like_a_missing_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def unloadable(name: str) -> None:
        raise OSError(f"{name}.so: undefined symbol: x")

    monkeypatch.setattr("importlib.import_module", unloadable)
    told = (
        r"torchaudio: cannot be imported \(.*undefined symbol: x\); pip install 'vqcodec\[train\]'"
    )
    with pytest.raises(VqcodecError, match=told):
        library("torchaudio")
