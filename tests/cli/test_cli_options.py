"""What a command is told is what the library gets: of its calls there are doubles."""

from __future__ import annotations

import inspect
import json
import os
import shutil
from pathlib import Path
from pkgutil import resolve_name
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from command_line import Run, is_one_line
from vqcodec_cli.evaluate import BASELINES
from vqcodec_cli.jobs import map_unordered
from vqcodec_cli.options import files_at_a_time

import vqcodec
from vqcodec import Codes
from vqcodec.prior import Prior, Score
from vqcodec.weights.voices import Speaker, VoicesFile

LOAD, MANY = "vqcodec.load", "vqcodec_cli.batch.map_unordered"
ENCODE, DECODE = "vqcodec.codec.Codec.encode", "vqcodec.codec.Codec.decode_to"
ENROLL = "vqcodec.codec.Codec.enroll"
PRIOR, SAMPLE = "vqcodec.prior.load", "vqcodec.prior.Prior.sample"
SCORE = "vqcodec.prior.Prior.score"
COMPARE = "vqcodec.evaluation.comparison.compare"
CONVERT_PAIRS = "vqcodec.evaluation.conversion.convert_pairs"
LEAKAGE = "vqcodec.evaluation.leakage.leakage"
UNITS_EVAL = "vqcodec.evaluation.unit_report.evaluate"
PREPARE = "vqcodec.data.prepared.prepare"
TRAIN, TRAIN_PRIOR = "vqcodec.training.stages.train", "vqcodec.training.prior_trainer.train"

Received = dict[str, dict[str, Any]]


@pytest.fixture
def received(
    clip: Path, codes: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Received:
    """By the name of a call, what it was given last; nothing is computed.

    The working directory has what the commands name.
    """
    monkeypatch.chdir(tmp_path)
    VoicesFile("voices.json").add(bytes(8), Speaker(np.zeros(64, np.int8), "ben"))
    Path("prior.safetensors").touch()
    for folder, file in (("corpus/anna", clip), ("coded", codes)):
        Path(folder).mkdir(parents=True)
        shutil.copy(file, folder)
    for name in ("codec", "prior"):
        recipe = {"data": {"root": "data"}} | ({"stage": "prior"} if name == "prior" else {})
        Path(f"{name}.yaml").write_text(json.dumps(recipe), encoding="utf-8")  # JSON is YAML

    codec, made = vqcodec.load(tiny_model, device="cpu"), Codes.load(codes)
    found: Received = {}

    def replace(call: str, result: Any) -> None:
        signature = inspect.signature(resolve_name(call))

        def double(*values: Any, **named: Any) -> Any:
            given = signature.bind(*values, **named).arguments
            found[call] = given | given.pop("options", {})
            return result

        monkeypatch.setattr(call, double)

    results = {
        LOAD: codec,
        ENCODE: made,
        DECODE: 0.0,
        ENROLL: codec.voices["anna"],
        PRIOR: object.__new__(Prior),
        SAMPLE: made,
        SCORE: Score(8.0, 0.5),
        PREPARE: SimpleNamespace(failures=[], clips=[], audio=[], sample_rate=1),
        **dict.fromkeys((TRAIN, TRAIN_PRIOR), Path("none.safetensors")),
        **dict.fromkeys((COMPARE, CONVERT_PAIRS, LEAKAGE, UNITS_EVAL), "# Report"),
    }
    for call, result in results.items():
        replace(call, result)

    def one_at_a_time(*values: Any) -> Any:
        found[MANY] = inspect.signature(map_unordered).bind(*values).arguments
        return map_unordered(*values[:2], 1)

    monkeypatch.setattr(MANY, one_at_a_time)
    monkeypatch.setattr("vqcodec_cli.batch.is_gpu", lambda device: False)
    return found


CODEC = "--model mine --device cuda"
MEASURE = (
    "eval corpus -o report --model mine --split valid --decoder wavenet --refine --limit 3 "
    "--jobs 77"
)
MEASURED = {
    "corpus": Path("corpus"),
    "output": Path("report"),
    "model": "mine",
    "split": "valid",
    "decoder": "wavenet",
    "refine": True,
    "limit": 3,
    "jobs": 77,
}
LOADED = {"model": "mine", "device": "cuda"}
VOICES = {"voices": Path("voices.json")}
DRAWS = {"decoder": "wavenet", "seed": 3, "temperature": 0.5}

OPTIONS: list[tuple[str, Received]] = [
    (
        f"encode corpus out --refine {CODEC} --voices voices.json --jobs 77",
        {LOAD: LOADED | VOICES, ENCODE: {"refine": True}, MANY: {"n_jobs": 77}},
    ),
    (
        "decode coded out --decoder wavenet --seed 3 --temperature 0.5 --sample-rate 8000 "
        f"{CODEC} --voices voices.json --jobs 77",
        {
            LOAD: LOADED | VOICES,
            DECODE: DRAWS | {"sample_rate": 8000},
            MANY: {"n_jobs": 77},
        },
    ),
    (
        "convert corpus -o out --speaker anna --refine --decoder wavenet --seed 3 "
        f"--temperature 0.5 --sample-rate 8000 {CODEC} --voices voices.json --jobs 77",
        {
            LOAD: LOADED | VOICES,
            ENCODE: {"refine": True},
            DECODE: DRAWS | {"sample_rate": 8000},
            MANY: {"n_jobs": 77},
        },
    ),
    (
        f"enroll eve clip.wav --tune {CODEC} --voices voices.json",
        {LOAD: LOADED | VOICES, ENROLL: {"name": "eve", "tune": True}},
    ),
    (
        "sample -o out.wav --seconds 2 --scheme uniform --temperature 0.5 --top-k 7 "
        f"--top-p 0.9 --seed 3 --prior prior.safetensors {CODEC} --voices voices.json",
        {
            LOAD: LOADED | VOICES,
            PRIOR: {"path": Path("prior.safetensors")},
            SAMPLE: {
                "seconds": 2,
                "scheme": "uniform",
                "temperature": 0.5,
                "top_k": 7,
                "top_p": 0.9,
                "seed": 3,
            },
        },
    ),
    (
        f"score clip.wav --prior prior.safetensors {CODEC} --voices voices.json",
        {LOAD: LOADED | VOICES, PRIOR: {"path": Path("prior.safetensors")}},
    ),
    (f"units clip.wav {CODEC}", {LOAD: LOADED}),
    (
        f"units-eval coded --audio corpus -o report {CODEC}",
        {
            LOAD: LOADED,
            UNITS_EVAL: {
                "labels": Path("coded"),
                "recordings": Path("corpus"),
                "output": Path("report"),
            },
        },
    ),
    (
        f"leakage corpus -o report {CODEC} --min-clips 3 --max-clips 4",
        {
            LOAD: LOADED,
            LEAKAGE: {
                "corpus": Path("corpus"),
                "output": Path("report"),
                "min_clips": 3,
                "max_clips": 4,
            },
        },
    ),
    (
        f"{MEASURE} --baselines opus-6,codec2-1200",
        {
            COMPARE: {**MEASURED, "baselines": ["opus-6", "codec2-1200"]},
        },
    ),
    ("eval corpus --baselines=", {COMPARE: {"baselines": []}}),
    (
        "eval corpus --baselines=opus-6 --baseline a=f.py:f --baseline b={input}{output}",
        {COMPARE: {"baselines": ["opus-6", "a=f.py:f", "b={input}{output}"]}},
    ),
    ("eval corpus --recognizer tiny", {COMPARE: {"recognizer": "tiny"}}),
    ("eval corpus --conversion --recognizer tiny", {CONVERT_PAIRS: {"recognizer": "tiny"}}),
    ("eval corpus", {COMPARE: {"baselines": BASELINES.split(",")}}),
    (
        f"{MEASURE} --conversion --speakers ben,anna",
        {
            CONVERT_PAIRS: {**MEASURED, "speakers": ["ben", "anna"]},
        },
    ),
    (
        "prepare folder corpus -o out --sample-rate 8000 --jobs 77",
        {PREPARE: {"output": Path("out"), "sample_rate": 8000, "jobs": 77, "corpus": "folder"}},
    ),
    (
        "train codec.yaml --resume --device cuda",
        {TRAIN: {"resume": True, "device": "cuda"}},
    ),
    (
        "train prior.yaml --resume --device cuda",
        {TRAIN_PRIOR: {"resume": True, "device": "cuda"}},
    ),
]


@pytest.mark.parametrize(
    ("command", "expected"), OPTIONS, ids=[command.split()[0] for command, _ in OPTIONS]
)
def test_every_option_reaches_the_library(
    run: Run, received: Received, command: str, expected: Received
) -> None:
    result = run(*command.split())
    assert result.status == 0, result.stderr
    for call, arguments in expected.items():
        assert {name: received[call][name] for name in arguments} == arguments


@pytest.mark.parametrize(
    ("command", "call", "name"),
    [
        ("encode corpus out", MANY, "n_jobs"),
        ("eval corpus", COMPARE, "jobs"),
        ("prepare folder corpus -o out", PREPARE, "jobs"),
    ],
)
def test_as_many_files_at_a_time_as_cores_are_available(
    run: Run,
    received: Received,
    monkeypatch: pytest.MonkeyPatch,
    command: str,
    call: str,
    name: str,
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 2, 5}, raising=False)
    assert run(*command.split()).status == 0
    assert received[call][name] == 3


def test_a_system_that_confines_no_process_has_all_its_cores(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 5)
    assert files_at_a_time(None) == 5


def test_no_gpu_is_said_before_anything_is_encoded(
    run: Run, clip: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    target = tmp_path / "out.codes"
    result = run("encode", clip, target, "--model", tiny_model, "--device", "cuda")
    assert (result.status, is_one_line(result)) == (1, True)
    assert "device cuda: torch sees no GPU" in result.stderr
    assert not target.exists()
