from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from command_line import is_one_line
from tiny_models import TINY

from vqcodec import Codes


@pytest.fixture
def recipe(tmp_path) -> Path:
    path = tmp_path / "recipe.yaml"
    content = {
        "steps": 3,
        "unquantized_steps": 1,
        "log_every": 1,
        "precision": "float32",
        "output": str(tmp_path / "run"),
        "data": {
            "root": str(tmp_path / "data"),
            "batch_size": 2,
            "segment_length": 16,
            "reference_s": 0.3,
        },
        "model": {**TINY, "wavenet": None, "quantizer": {"codebook_size": 16}},
    }
    path.write_text(json.dumps(content))  # JSON is YAML
    return path


def test_prepare_train_and_encode(run, folder, recipe, clip, tmp_path, monkeypatch):
    prepared = run("prepare", "folder", tmp_path, "-o", tmp_path / "data", "--jobs", "1")
    assert prepared.status == 0
    rows = {
        cells[0].strip(): cells[1].strip()
        for line in prepared.stdout.splitlines()
        if len(cells := line.strip("│┌└").split("│")) > 1
    }
    assert (rows["clips"], rows["speakers"], rows["splits"]) == ("2", "1", "train: 2")
    assert rows["left out"].startswith("1, see")

    trained = run("train", recipe, "--device", "cpu")
    model = tmp_path / "run" / "model.safetensors"
    assert trained.status == 0, trained.stderr
    start, warning, *_, last = trained.stderr.splitlines()
    assert start.startswith("vqcodec: training on cpu")
    assert warning.startswith("vqcodec: nothing to validate on: ")  # while it can be mended
    assert "  validation " in last
    assert trained.stdout == (
        f"model: {model}\nuse it: vqcodec encode in.wav out.codes --model {model}\n"
    )
    assert run("encode", clip, tmp_path / "out.codes", "--model", model).status == 0
    assert Codes.load(tmp_path / "out.codes").codebook_size == 16

    again = run("train", recipe, "--device", "cpu")
    assert (again.status, is_one_line(again)) == (1, True)
    assert "continue it with --resume" in again.stderr
    monkeypatch.setenv("RANK", "1")
    assert run("train", recipe, "steps=4", "--resume", "--device", "cpu").stdout == ""


def test_train_shows_each_kind_of_warning_once(run, recipe, monkeypatch, tmp_path):
    from vqcodec.training import loop as loop
    from vqcodec.training import stages

    def train(*recipes, on_report, **options):
        assert [recipe.max_minutes for recipe in recipes] == [2.5]
        for step, warning in enumerate((None, "collapsing: 1.5", "collapsing: 1.4", "slow: 3"), 1):
            usage = SimpleNamespace(perplexity=1.0)
            on_report(loop.Report(step, 4, {"total": 1.0}, usage, None, warning))
        return tmp_path / "model.safetensors"

    monkeypatch.setattr(stages, "train", train)
    result = run("train", recipe, "--max-minutes", "2.5")
    assert result.status == 0
    assert result.stderr == "vqcodec: collapsing: 1.5\nvqcodec: slow: 3\n"
    assert result.stdout == "no model yet, the time was too short: go on with --resume\n"


def test_train_names_the_key_that_was_meant(run, recipe):
    result = run("train", recipe, "data.bach_size=4")
    assert (result.status, is_one_line(result)) == (1, True)
    assert "unknown key data.bach_size; did you mean data.batch_size?" in result.stderr


def test_a_corpus_that_is_not_there_is_told(run, tmp_path):
    result = run("prepare", "folder", tmp_path / "nowhere", "-o", tmp_path / "data")
    assert result.status == 1
    fault = "nowhere: no such file or folder; check the path\n"
    assert result.stderr == f"vqcodec: {tmp_path}/{fault}"
    assert not (tmp_path / "data").exists()


def test_prepare_without_recordings(run, tmp_path):
    result = run("prepare", "vctk", tmp_path, "-o", tmp_path / "data")
    assert (result.status, is_one_line(result)) == (1, True)
    assert "no VCTK recording found" in result.stderr


def test_nothing_to_download_for_a_folder(run, tmp_path):
    result = run("prepare", "folder", tmp_path, "-o", tmp_path / "data", "--download")
    assert (result.status, is_one_line(result)) == (1, True)
    assert "nothing to download" in result.stderr


def test_recipes_are_listed_with_what_they_are_for(run):
    lines = run("recipes").stdout.splitlines()
    assert any(line.startswith("vctk.yaml ") and "16 kHz" in line for line in lines)
