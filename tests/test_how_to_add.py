"""The page about adding parts is true: its changes, made in a copy, train and decode."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from recordings import SAMPLES
from safetensors.numpy import load_file
from training_data import WITHOUT_GRAPHS

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "how-to-add.md").read_text(encoding="utf-8")
SMALL = (
    "steps=3 unquantized_steps=1 validate_every=3 checkpoint_every=3 optimizer.warmup_steps=1 "
    "model.quantizer.codebook_size=16 model.wavenet=null data.root=data output=run"
)


def section(title: str) -> str:
    return re.split(r"^## ", PAGE, flags=re.M)[[*titles()].index(title) + 1]


def titles() -> list[str]:
    return re.findall(r"^## (.*)$", PAGE, flags=re.M)


def make_changes(text: str, tree: Path) -> set[str]:
    """Do what the blocks of a section say; which files they touch."""
    touched = set()
    for language, title, block in re.findall(
        r'^```(python|diff) title="(.*?)"\n(.*?)^```', text, flags=re.M | re.S
    ):
        touched.add(title)
        path = tree / title
        if language == "python":
            assert not path.exists()
            path.write_text(block, encoding="utf-8")
            continue
        for hunk in re.split(r"^@@\n", block, flags=re.M):
            lines = hunk.splitlines(keepends=True)
            before = "".join(line[1:] for line in lines if line[0] != "+")
            after = "".join(line[1:] for line in lines if line[0] != "-")
            source = path.read_text(encoding="utf-8")
            assert source.count(before) == 1, f"{title} does not say once:\n{before}"
            path.write_text(source.replace(before, after), encoding="utf-8")
    return touched


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of the sources, with a corpus of four short recordings beside it."""
    for folder, name in (("vqcodec", "vqcodec"), ("cli", "vqcodec_cli")):
        ignored = shutil.ignore_patterns("__pycache__", "*-2k.safetensors", "units-*", "priors")
        shutil.copytree(ROOT / folder, tmp_path / name, ignore=ignored)
    shutil.copytree(ROOT / "recipes", tmp_path / "vqcodec" / "recipes")
    for voice in ("rms", "slt"):
        (tmp_path / "wav" / voice).mkdir(parents=True)
        shutil.copy(SAMPLES / f"{voice}.wav", tmp_path / "wav" / voice / "a.wav")
        shutil.copy(SAMPLES / f"{voice}.as-p225.wav", tmp_path / "wav" / voice / "b.wav")
    return tmp_path


def run(tree: Path, *commands: str, first: str = "") -> None:
    """Prepare the corpus, and run command lines after that, in one process."""
    # The copy before what is installed.
    code = f"""
import shlex, site, sys
sys.path.insert(0, ".")
{first}
from vqcodec_cli.main import main
for command in {["prepare folder wav -o data", *commands]}:
    if main(shlex.split(command)):
        sys.exit(command)
"""
    done = subprocess.run(
        [sys.executable, "-S", "-c", code],
        cwd=tree,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tree), *sys.path])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_a_decoder_is_added_by_four_files(tree: Path) -> None:
    text = section("A decoder")
    assert len(make_changes(text, tree)) == 4
    (command,) = re.findall(r"^vqcodec (train .*)$", text, flags=re.M)
    run(
        tree,
        f"{command} {SMALL}",
        "encode wav/rms/a.wav a.codes --model run/model.safetensors",
        "decode a.codes a.wav --model run/model.safetensors --decoder toy",
    )
    assert (tree / "a.wav").stat().st_size == (tree / "wav/rms/a.wav").stat().st_size


def test_a_stream_is_added_by_three_files_and_trained(tree: Path) -> None:
    text = section("A stream")
    assert len(make_changes(text, tree)) == 3
    (command,) = re.findall(r"^vqcodec (train .*)$", text, flags=re.M)
    run(
        tree,
        f"{command} {SMALL}",
        "convert wav/rms/a.wav --speaker wav/slt/a.wav -o a.wav --model run/model.safetensors",
        first=WITHOUT_GRAPHS,
    )
    tensors = load_file(tree / "run" / "model.safetensors")
    assert tensors["fast.streams.0.convolutions.loudness.weight"].any()


def test_every_section_is_known() -> None:
    assert titles() == ["A decoder", "A stream", "A quantizer", "A recipe"]
