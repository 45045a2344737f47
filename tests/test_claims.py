"""Folders that one process at a time may write to."""

from __future__ import annotations

import platform
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import soundfile
import yaml
from command_line import Run, is_one_line
from training_data import MODEL

from vqcodec.data import corpora
from vqcodec.data.prepared import prepare
from vqcodec.errors import VqcodecError
from vqcodec.files import claim

SAMPLES = Path(__file__).parents[1] / "samples"
HOLDS = """
import sys
from vqcodec.files import claim
with claim(sys.argv[1], "resting"):
    print("ready", flush=True)
    sys.stdin.read()
"""
PREPARES = """
import sys
from vqcodec.data import corpora
from vqcodec.data.prepared import prepare
def on_progress(n_done, n_all):
    if n_done == 3:
        print("ready", flush=True)
        sys.stdin.read()
prepare(corpora.folder(sys.argv[1]), sys.argv[2], corpus="folder", on_progress=on_progress)
"""
TRAINS = """
import sys
from vqcodec.training.recipe_files import load_recipe
from vqcodec.training.stages import train
def on_report(report):
    print("ready", flush=True)
    sys.stdin.read()
train(load_recipe(sys.argv[1]), device="cpu", on_report=on_report)
"""


@contextmanager
def at_work(script: str, *arguments: str | Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that is in the middle of something, and is killed at the end."""
    process = subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=SAMPLES.parent,
    )
    with process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == b"ready\n"
            yield process
        finally:
            process.kill()


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Two speakers' seconds of speech, three each."""
    for speaker in ("rms", "slt"):
        samples, rate = soundfile.read(SAMPLES / f"{speaker}.wav", 3 * 16000)
        for number in range(3):
            path = tmp_path / "corpus" / speaker / f"{number}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(path, samples[number * rate : (number + 1) * rate], rate)
    return tmp_path / "corpus"


def contents(folder: Path) -> dict[str, bytes]:
    names = ("audio.i16", "clips.jsonl", "failed.jsonl", "dataset.json")
    return {name: (folder / name).read_bytes() for name in names}


def test_who_has_a_folder_is_told_and_death_gives_it_back(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "vctk"
    with at_work(HOLDS, folder) as holder:
        told = f"{folder}: process {holder.pid} on host {platform.node()} is resting there; wait "
        with pytest.raises(VqcodecError, match=re.escape(told)), claim(folder, "training"):
            pass
        left = folder / f".vqcodec-{32 * '0'}.safetensors"
        left.write_bytes(b"half of a checkpoint")
    with claim(folder, "training"):
        assert not left.exists()
    assert [path.name for path in folder.iterdir()] == [".vqcodec.lock"]
    with claim(folder, "training"):
        pass


def test_a_claim_ends_with_an_error_in_it(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), claim(tmp_path, "dividing"):
        raise ZeroDivisionError
    with claim(tmp_path, "dividing"):
        pass


def test_a_second_preparation_is_refused_and_a_third_goes_on(
    run: Run, corpus: Path, tmp_path: Path
) -> None:
    output = tmp_path / "prepared"
    arguments = ("prepare", "folder", corpus, "-o", output, "--jobs", "1")
    with at_work(PREPARES, corpus, output) as first:
        second = run(*arguments)
        assert (second.status, is_one_line(second)) == (1, True)
        assert f"process {first.pid} on host {platform.node()} is preparing a co" in second.stderr
    assert run(*arguments).status == 0
    whole = prepare(corpora.folder(corpus), tmp_path / "whole", corpus="folder")
    assert contents(output) == contents(whole.root)


def test_a_complete_folder_is_not_written_to(corpus: Path, tmp_path: Path) -> None:
    whole = prepare(corpora.folder(corpus), tmp_path / "whole", corpus="folder")
    with at_work(HOLDS, whole.root):
        assert prepare(corpora.folder(corpus), whole.root, corpus="folder").clips == whole.clips


def test_a_second_training_is_refused_and_a_third_trains(
    run: Run, corpus: Path, tmp_path: Path
) -> None:
    data, output, recipe = tmp_path / "data", tmp_path / "run", tmp_path / "recipe.yaml"
    prepare(corpora.folder(corpus), data, corpus="folder")
    content = {
        "output": str(output),
        "steps": 3,
        "unquantized_steps": 1,
        "precision": "float32",
        "log_every": 1,
        "data": {"root": str(data), "batch_size": 2, "segment_length": 16, "reference_s": 0.5},
        "model": MODEL,
    }
    recipe.write_text(yaml.safe_dump(content), encoding="utf-8")
    with at_work(TRAINS, recipe) as first:
        for resume in ([], ["--resume"]):
            second = run("train", recipe, "--device", "cpu", *resume)
            assert (second.status, is_one_line(second)) == (1, True)
            told = f"{output}: process {first.pid} on host {platform.node()} is training there; "
            assert told in second.stderr
    third = run("train", recipe, "--device", "cpu")
    assert (third.status, "model: " in third.stdout) == (0, True)
