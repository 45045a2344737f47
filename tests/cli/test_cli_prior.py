from __future__ import annotations

import json
import re
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import soundfile
from command_line import Run, is_one_line
from vqcodec_cli.main import main

from vqcodec.data.prepared import PreparedData
from vqcodec.prior import Prior
from vqcodec.weights import checkpoint

RECIPE = {
    "stage": "prior",
    "steps": 2,
    "precision": "float32",
    "data": {"batch_size": 2, "segment_length": 24},
    "model": {"channels": 16, "n_layers": 1, "n_heads": 2, "context": 8},
}


@pytest.fixture(scope="module")
def folder(data: PreparedData, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe, and the prior that it makes."""
    path = tmp_path_factory.mktemp("prior")
    recipe = {**RECIPE, "codec": str(tiny_model), "output": str(path / "run")}
    recipe["data"] = {**recipe["data"], "root": str(data.root)}
    (path / "mine.yaml").write_text(json.dumps(recipe), encoding="utf-8")  # JSON is YAML
    assert main(["train", str(path / "mine.yaml"), "--device", "cpu"]) == 0
    return path


@pytest.fixture
def options(folder: Path, tiny_model: Path) -> list[str | Path]:
    return ["--prior", folder / "run/prior.safetensors", "--model", tiny_model, "--device", "cpu"]


def test_train_says_how_the_prior_is_used(run: Run, folder: Path, tiny_model: Path) -> None:
    result = run("train", folder / "mine.yaml", "steps=4", "--resume")
    path = folder / "run" / "prior.safetensors"
    assert result.status == 0
    assert re.fullmatch(
        r"vqcodec: resumed with other settings: steps 4, was 2\n"
        r"vqcodec: training on .*\n"
        r"vqcodec: nothing to validate on: .*\n"
        r"step 4/4  \d+\.\d{3} bits per code  validation \d+\.\d{3}\n",
        result.stderr,
    )
    assert result.stdout == (
        f"model: {path}\nuse it: vqcodec sample -o out.wav --prior {path} --model {tiny_model}\n"
    )


def test_train_names_the_key_that_was_meant(run: Run, folder: Path) -> None:
    result = run("train", folder / "mine.yaml", "model.n_laers=4")
    assert result.status == 1
    assert "unknown key model.n_laers; did you mean model.n_layers?" in result.stderr


@pytest.mark.parametrize("scheme", ["prior", "histogram", "uniform"])
def test_sample_writes_speech_of_the_wanted_length(
    run: Run, options: list[str | Path], tmp_path: Path, scheme: str
) -> None:
    path = tmp_path / "made.wav"
    arguments = ["sample", "--seconds", "0.5", "--scheme", scheme, "-o", path, *options]
    result = run(*arguments)
    assert (result.status, result.stdout, result.stderr) == (0, f"→ {path}  0.50 s\n", "")
    samples, sample_rate = soundfile.read(path)
    assert (len(samples), sample_rate) == (8064, 16000)  # 63 whole codes
    assert np.abs(samples).max() > 1e-3
    again = run(*arguments)
    assert again.status == 1
    assert f"{path}: exists; add --force to overwrite it" in again.stderr
    first = path.read_bytes()
    assert run(*arguments, "--force").status == 0
    assert path.read_bytes() == first
    assert run(*arguments, "--force", "--seed", "1").status == 0
    assert path.read_bytes() != first


def test_clipping_is_said(
    run: Run, options: list[str | Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sample = Prior.sample
    monkeypatch.setattr(Prior, "sample", lambda *a, **k: replace(sample(*a, **k), gain=1000.0))
    result = run("sample", "--seconds", "0.2", "-o", tmp_path / "made.wav", *options)
    assert (result.status, is_one_line(result)) == (0, True)
    assert f"{tmp_path / 'made.wav'}: " in result.stderr
    assert "of its samples are too loud and were clipped; try another --seed" in result.stderr


def test_a_prompt_is_heard_before_what_follows(
    run: Run, options: list[str | Path], speech: Path
) -> None:
    arguments = ["--temperature", "0", "--top-k", "3", "--top-p", "0.9", "-o", "-", *options]
    wav = speech.read_bytes()
    made = run("sample", "--prompt", "-", "--seconds", "0.2", *arguments, stdin=wav)
    assert made.status == 0, made.stderr
    samples, _ = soundfile.read(BytesIO(made.data))
    n_prompt = -(-soundfile.info(speech).frames // 128) * 128
    assert len(samples) == n_prompt + 3200


def test_sample_speaks_with_the_voice_that_is_asked_for(
    run: Run, options: list[str | Path], speech: Path
) -> None:
    made = {}
    for voice in ([], ["--speaker", "anna"], ["--speaker", "p225"], ["--speaker", speech]):
        result = run("sample", "--seconds", "0.2", "-o", "-", *voice, *options)
        assert result.status == 0
        made[str(voice)] = result.data
    assert made["[]"] == made["['--speaker', 'anna']"]  # the first of its voices
    assert len(set(made.values())) == 3
    unknown = run("sample", "-o", "-", "--speaker", "ann", *options)
    assert unknown.status == 1
    assert "ann: neither a voice nor a recording; voices like it: anna" in unknown.stderr


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--top-p", "0"),
        ("--top-k", "0"),
        ("--temperature", "-1"),
        ("--seconds", "0"),
        ("--seconds", "inf"),
    ],
)
def test_impossible_draws_are_refused(
    run: Run, options: list[str | Path], option: str, value: str
) -> None:
    result = run("sample", "-o", "-", option, value, *options)
    assert result.status == 2
    assert f"{option}" in result.stderr


def test_score_in_lines_and_in_json(
    run: Run, options: list[str | Path], speech: Path, tmp_path: Path
) -> None:
    quiet = tmp_path / "quiet.wav"
    soundfile.write(quiet, np.zeros(8000), 16000)
    lines = run("score", speech, quiet, *options).stdout.splitlines()
    found = json.loads(run("score", speech, quiet, "--json", *options).stdout)
    assert [entry["file"] for entry in found] == [str(speech), str(quiet)]
    for line, entry in zip(lines, found, strict=True):
        bits, anomaly = entry["bits_per_code"], entry["anomaly"]
        assert line == f"{bits:.3f} bits per code  anomaly {anomaly:.2f}  {entry['file']}"
        assert bits > 0
    assert found[0]["bits_per_code"] != found[1]["bits_per_code"]


def test_score_for_a_given_voice(
    run: Run, options: list[str | Path], speech: Path, tiny_model: Path
) -> None:
    def bits(*more: str | Path) -> float:
        result = run("score", speech, "--json", *options, *more)
        return float(json.loads(result.stdout)[0]["bits_per_code"])

    names = sorted(checkpoint.load(str(tiny_model)).voices)[:2]
    assert len({bits(), *(bits("--speaker", name) for name in names)}) == 3
    assert bits("--speaker", speech) == bits()
    assert run("score", speech, *options, "--speaker", "nobody").status == 1


def test_the_others_are_scored_all_the_same(
    run: Run, options: list[str | Path], speech: Path, tmp_path: Path
) -> None:
    result = run("score", tmp_path / "none.wav", speech, "--json", *options)
    assert result.status == 1
    assert "none.wav: cannot be opened" in result.stderr
    assert [entry["file"] for entry in json.loads(result.stdout)] == [str(speech)]


def test_what_cannot_be_scored(
    run: Run, options: list[str | Path], speech: Path, tiny_model: Path, tmp_path: Path
) -> None:
    text = tmp_path / "text.wav"
    text.write_text("no sound")
    unreadable = run("score", text, *options)
    assert unreadable.status == 1
    assert unreadable.stderr.startswith(f"vqcodec: {text}: ")
    without = run("score", speech, "--model", tiny_model)
    assert without.status == 1
    assert "tiny: no prior is packaged for this model" in without.stderr
