"""Models of the hub: fetched, pinned, refused and pushed, against a stand-in on loopback."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import Run, is_one_line
from hub_server import TOKEN, Hub, serving

import vqcodec
from vqcodec.errors import CheckpointError
from vqcodec.weights import hub as hub_models
from vqcodec.weights import registry

constants = pytest.importorskip("huggingface_hub.constants")
NAME = "hf://anna/tiny"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    with serving() as server:
        address = server.address
        template = f"{address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr(constants, "ENDPOINT", address)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        yield server


@pytest.fixture
def commit(hub: Hub, tiny_model: Path) -> str:
    """Of the tiny model, on the hub."""
    return hub.commit("anna/tiny", {"tiny.safetensors": tiny_model.read_bytes()})


def test_a_model_of_the_hub_is_the_model(hub: Hub, commit: str, tiny_model: Path) -> None:
    fetched, local = vqcodec.load(NAME), vqcodec.load(tiny_model)
    assert (fetched.name, fetched.fingerprint) == ("tiny", local.fingerprint)
    assert fetched.voices.keys() == local.voices.keys()
    hub.commit("anna/tiny", {"tiny.safetensors": b"what came later"})
    assert vqcodec.load(f"{NAME}@{commit}").fingerprint == local.fingerprint
    with pytest.raises(CheckpointError, match="not a readable model file"):
        vqcodec.load(NAME)


def test_info_names_the_commit(run: Run, hub: Hub, commit: str, codes: Path) -> None:
    assert json.loads(run("info", codes, "--json").stdout)["model"] is None
    pulled = run("model", "pull", NAME)
    assert pulled.status == 0, pulled.stderr
    assert pulled.stdout.startswith(f"{NAME}@{commit} → ")
    for file in (NAME, f"{NAME}@{commit}", pulled.stdout.split(" → ")[1].strip()):
        assert json.loads(run("info", file, "--json").stdout)["name"] == f"{NAME}@{commit}"
    assert json.loads(run("info", codes, "--json").stdout)["model"] == f"{NAME}@{commit}"


@pytest.mark.parametrize("status", [0, 503])
def test_without_the_hub_the_cache_is_used(
    run: Run, hub: Hub, commit: str, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    path = hub_models.fetch(NAME)
    if status:
        hub.status = status
    else:
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", "http://127.0.0.1:9/{repo_id}/{filename}"
        )
    assert hub_models.fetch(NAME) == hub_models.fetch(f"{NAME}@{commit}") == path
    refused = run("speakers", "--model", "hf://anna/other")
    assert (refused.status, refused.stdout) == (1, "")
    assert is_one_line(refused)
    assert f"hub answers {status}" in refused.stderr or "cannot be reached" in refused.stderr


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("hf://anna/other", "the hub does not know it, or not you"),
        (f"{NAME}@v9", "the hub has no such revision"),
        ("hf://anna/empty", r"holds no empty\.safetensors"),
        ("hf://anna", "no name of the hub"),
        ("hf://anna/../x", "no name of the hub"),
        (f"{NAME}@../main", "no name of the hub"),
    ],
)
def test_what_is_not_there_is_told_in_a_line(run: Run, hub: Hub, commit: str, name, told) -> None:
    hub.commit("anna/empty", {"README.md": b"nothing"})
    with pytest.raises(CheckpointError, match=told):
        vqcodec.load(name)
    assert is_one_line(run("model", "pull", name))


def test_a_damaged_download_is_removed(hub: Hub, commit: str) -> None:
    hub.is_damaging = True
    with pytest.raises(CheckpointError, match="came damaged"):
        hub_models.fetch(NAME)
    hub.is_damaging = False
    assert vqcodec.load(NAME).name == "tiny"


def test_what_is_pushed_comes_back(run: Run, hub: Hub, tiny_model: Path) -> None:
    for commit in range(2):  # into a new repository, and into one that is there
        pushed = run("model", "push", tiny_model, NAME)
        assert pushed.status == 0, pushed.stderr
        name = f"{NAME}@{hub.commits['anna/tiny'][commit][0]}"
        assert (pushed.stdout, pushed.stderr) == (f"{tiny_model} → {name}\n", "")
    assert vqcodec.load(name).fingerprint == vqcodec.load(tiny_model).fingerprint
    assert hub.commits["anna/tiny"][0][1]["tiny.safetensors"] == tiny_model.read_bytes()


def test_a_process_of_its_own_pushes_and_pulls(hub: Hub, tiny_model: Path, tmp_path: Path) -> None:
    # Here other tests have imported every part of huggingface_hub, which it does when asked for.
    settings = {"HF_ENDPOINT": hub.address, "HF_HUB_CACHE": str(tmp_path / "cache")}
    settings |= {"HF_HUB_DISABLE_XET": "1", "NO_PROXY": "127.0.0.1"}
    for arguments in (["push", str(tiny_model), NAME], ["pull", NAME]):
        done = subprocess.run(
            [sys.executable, "-m", "vqcodec", "model", *arguments],
            env=os.environ | settings,
            capture_output=True,
            text=True,
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert f"{NAME}@{hub.commits['anna/tiny'][0][0]}" in done.stdout


def test_the_card_is_told_by_the_file(run: Run, hub: Hub) -> None:
    assert run("model", "push", "speech-1k", "hf://anna/speech").status == 0
    files = hub.commits["anna/speech"][-1][1]
    card = files["README.md"].decode()
    assert "license: cc-by-4.0" in card.split("---")[1]
    assert 'vqcodec.load("hf://anna/speech")' in card
    assert hashlib.sha256(files["speech.safetensors"]).hexdigest() in card
    stoi = registry.read_header(registry.find("speech-1k")).provenance["metrics"]["stoi"]
    for word in ("LibriSpeech", "CC BY 4.0", f"| stoi | {stoi} |", "fast, wavenet", "p225"):
        assert word in card


def test_nothing_is_pushed_by_a_stranger(
    run: Run, hub: Hub, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(tiny_model.read_bytes()[:-1])
    assert is_one_line(run("model", "push", broken, NAME))
    assert "leave @ out" in run("model", "push", tiny_model, f"{NAME}@main").stderr
    monkeypatch.setenv("HF_TOKEN", "another")
    refused = run("model", "push", tiny_model, NAME)
    assert is_one_line(refused)
    assert "log in" in refused.stderr
    assert not hub.commits
