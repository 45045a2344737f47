"""Voices as users meet them: listed, enrolled, renamed, removed, and kept by further training."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from command_line import is_one_line
from filelock import FileLock
from tiny_models import save_tiny_model
from training_data import prepare_speech, small_recipe

import vqcodec
from vqcodec.data.prepared import PreparedData
from vqcodec.errors import SpeakerError
from vqcodec.training.stages import train
from vqcodec.weights import checkpoint, registry, voices
from vqcodec.weights.voices import Speaker, VoiceInfo, VoicesFile, default_path

SAMPLES = Path(__file__).parents[2] / "samples"
RMS, SLT = SAMPLES / "rms.wav", SAMPLES / "slt.wav"
ANNA = VoiceInfo(pitch_hz=210.5, seconds=34.0, source="enrolled from 2 recordings")


def vector(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(-60, 61, 64).astype(np.int8)


@pytest.fixture
def two_models(tmp_path, tiny_model, monkeypatch) -> dict[str, Path]:
    """Two packaged models, small ones, with the voices p225 and anna, and their names."""
    save_tiny_model(tmp_path / "large.safetensors", seed=1)
    found = {"tiny": tiny_model, "large": tmp_path / "large.safetensors"}
    monkeypatch.setattr(registry, "packaged", lambda: found)
    return found


def fingerprint(path: Path) -> bytes:
    return registry.read_header(path).fingerprint


# What is packaged


def test_the_packaged_voices_are_described():
    for path in registry.packaged().values():
        assert set(voices.packaged_info()) == set(registry.read_header(path).voices)
    for info in voices.packaged_info().values():
        low, high = (80, 165) if info.sex == "male" else (165, 260)
        assert low < info.pitch_hz < high
        assert info.seconds > 15
        assert info.source.startswith(("VCTK", "LibriSpeech"))
    assert voices.packaged_info()["p225"].accent == "English (Southern England)"


def test_listing_voices_and_models_needs_no_torch():
    code = """
import sys
from vqcodec_cli.main import main
for command in "speakers", "models", "info speech-1k", "voices remove p225":
    main(command.split())
sys.exit("torch" in sys.modules)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert (result.returncode, result.stderr.count(b"\n")) == (0, 1)


def test_speakers_says_what_is_known(run, tiny_model):
    VoicesFile(default_path()).add(fingerprint(tiny_model), Speaker(vector(2), "eve", ANNA))
    lines = run("speakers", "--model", tiny_model).stdout.splitlines()
    assert lines[0] == "anna"
    assert lines[1].split() == [
        "eve",
        "210",
        "Hz",
        "34",
        "s",
        "enrolled",
        "from",
        "2",
        "recordings",
    ]
    listed = json.loads(run("speakers", "--model", tiny_model, "--json").stdout)
    unknown = dict.fromkeys(("sex", "pitch_hz", "accent", "seconds", "source"))
    assert listed[0] == {"name": "anna", "enrolled": False, **unknown}
    assert listed[1] == {
        **unknown,
        **{"name": "eve", "enrolled": True, "pitch_hz": 210.5, "seconds": 34.0},
        "source": "enrolled from 2 recordings",
    }
    packaged = json.loads(run("speakers", "--json").stdout)
    assert [one["name"] for one in packaged] == sorted(voices.packaged_info())
    (p239,) = (one for one in packaged if one["name"] == "p239")
    assert (p239["sex"], p239["accent"]) == ("female", "English (South West England)")


def test_voices_say_what_they_are():
    assert repr(Speaker(vector(0), "eve", ANNA)) == (
        "<Speaker eve: 210 Hz, 34 s, enrolled from 2 recordings>"
    )
    assert repr(Speaker(vector(0))) == "<Speaker of a recording>"


# Where enrolled ones are kept


def test_enrolled_voices_lie_where_programs_keep_their_settings(monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", "/x")
    assert default_path() == Path("/x/vqcodec/voices.json")


def test_what_the_command_line_enrolls_python_knows(run, tiny_model):
    assert run("enroll", "eve", SLT, RMS, "--model", tiny_model).status == 0
    codec = vqcodec.load(tiny_model, device="cpu")
    voice = codec.voices["eve"]
    assert voice.info.source == "enrolled from 2 recordings"
    assert voice.info.seconds == pytest.approx(6.5, abs=0.7)
    assert 90 < voice.info.pitch_hz < 180
    without = vqcodec.load(tiny_model, device="cpu", voices=False)
    assert without.voices.keys() == {"anna", "p225"}
    again = vqcodec.load(tiny_model, device="cpu", voices=default_path())
    assert np.array_equal(again.voices["eve"].vector, voice.vector)
    assert again.voices["eve"].info == voice.info


def test_voices_files_of_before_can_be_read(tmp_path):
    path = tmp_path / "voices.json"
    old = {"model": "01" * 8, "name": "anna", "vector": "AAAA" * 21 + "AA=="}
    path.write_text(json.dumps({"format": "vqcodec-voices", "version": 1, "voices": [old]}))
    kept = VoicesFile(path)
    assert kept.voices(b"\1" * 8)["anna"].info == VoiceInfo()
    kept.add(b"\1" * 8, Speaker(vector(0), "eve", ANNA))
    assert json.loads(path.read_text())["version"] == 1
    assert json.loads(path.read_text())["voices"][0] == old
    assert VoicesFile(path).voices(b"\1" * 8)["eve"].info == ANNA


@pytest.mark.parametrize("change", [{"pitch_hz": "high"}, {"source": "\x1b[2J"}, {"sex": 5}])
def test_a_damaged_description_is_refused(tmp_path, change):
    path = tmp_path / "voices.json"
    voice = {"model": "01" * 8, "name": "anna", "vector": "AAAA" * 21 + "AA==", **change}
    path.write_text(json.dumps({"format": "vqcodec-voices", "version": 1, "voices": [voice]}))
    with pytest.raises(SpeakerError, match="not a readable voices file"):
        VoicesFile(path)


# Renaming and removing


def test_a_renamed_voice_is_found_by_whoever_asks_for_the_old_name(run, clip, two_models, tmp_path):
    model = fingerprint(two_models["tiny"])
    VoicesFile(default_path()).add(model, Speaker(vector(2), "eve", ANNA))
    codes = tmp_path / "eve.codes"
    assert run("encode", clip, codes, "--speaker", "eve", "--model", "tiny").status == 0
    result = run("voices", "rename", "eve", "eva")
    assert (result.status, result.stderr) == (0, "")
    assert result.stdout == f"eve: renamed to eva in {default_path()} (tiny)\n"
    voice = VoicesFile(default_path()).voices(model)["eva"]
    assert (voice.name, voice.info) == ("eva", ANNA)
    refused = run("decode", codes, tmp_path / "out.wav")
    assert (refused.status, is_one_line(refused)) == (1, True)
    assert "the voice eve, which is called eva now: give it as --speaker eva" in refused.stderr
    assert run("decode", codes, tmp_path / "out.wav", "--speaker", "eva").status == 0
    convert = run("convert", clip, "--speaker", "eve", "--model", "tiny")
    assert "eve: is a voice that is called eva now" in convert.stderr
    # Renamed again, it is still known by its first name, until that is given to another.
    assert run("voices", "rename", "eva", "eef").status == 0
    assert VoicesFile(default_path()).renamed(model, "eve") == "eef"
    VoicesFile(default_path()).add(model, Speaker(vector(3), "eve"))
    assert VoicesFile(default_path()).renamed(model, "eve") is None
    assert VoicesFile(default_path()).renamed(model, "eva") == "eef"


def test_a_voice_can_be_removed_of_one_model_or_of_all(run, two_models):
    models = [fingerprint(path) for path in two_models.values()]
    for model in models:
        for name in ("eve", "ben"):
            VoicesFile(default_path()).add(model, Speaker(vector(2), name))
    result = run("voices", "remove", "eve", "--model", "large")
    assert (result.status, result.stdout) == (0, f"eve: removed from {default_path()} (large)\n")
    assert VoicesFile(default_path()).models("eve") == [models[0]]
    refused = run("voices", "remove", "eve", "--model", "large")
    assert "eve: is enrolled for tiny, not for large" in refused.stderr
    assert run("voices", "remove", "ben").status == 0
    assert VoicesFile(default_path()).models("ben") == []
    assert VoicesFile(default_path()).models("eve") == [models[0]]


def test_what_cannot_be_renamed_or_removed_is_said(run, two_models):
    model = fingerprint(two_models["tiny"])
    for name in ("eve", "ben"):
        VoicesFile(default_path()).add(model, Speaker(vector(2), name))
    before = default_path().read_bytes()
    for arguments, fault in (
        (["remove", "p225"], "p225: is a voice of tiny, large as packaged, and stays"),
        (["rename", "anna", "hanna"], "anna: is a voice of tiny, large as packaged, and stays"),
        (["remove", "eva"], "eva: is not enrolled in"),
        (["rename", "eve", "ben"], "ben: is a voice already"),
        (["rename", "eve", "p225"], "p225: is a packaged voice already"),
        (["rename", "eve", "a/b"], "'a/b' cannot name a voice"),
    ):
        result = run("voices", *arguments)
        assert (result.status, is_one_line(result)) == (1, True)
        assert fault in result.stderr
    assert default_path().read_bytes() == before


def test_who_keeps_the_voices_locked_is_waited_for_only_so_long(tmp_path, monkeypatch):
    monkeypatch.setattr(voices, "PATIENCE_S", 0.0)
    path = tmp_path / "voices.json"
    kept = VoicesFile(path)
    kept.add(b"model", Speaker(vector(0), "eve"))
    changes = (
        lambda: kept.add(b"model", Speaker(vector(0), "ben")),
        lambda: kept.remove("eve", [b"model"]),
        lambda: kept.rename("eve", "eva", [b"model"]),
    )
    with FileLock(path.with_name(".voices.json.lock")):
        for change in changes:
            with pytest.raises(SpeakerError, match=r"json: another process keeps it locked"):
                change()
    assert VoicesFile(path).names() == ["eve"]


# Voices of other models


def test_a_voice_of_another_model_says_of_which(run, clip, two_models, tmp_path):
    VoicesFile(default_path()).add(fingerprint(two_models["large"]), Speaker(vector(2), "eve"))
    VoicesFile(default_path()).add(b"\7" * 8, Speaker(vector(2), "ben"))
    result = run("convert", clip, "--speaker", "eve", "--model", "tiny")
    assert (result.status, is_one_line(result)) == (1, True)
    assert "eve: is a voice of large, not of tiny: use such a model (--model)" in result.stderr
    assert run("convert", clip, "--speaker", "eve", "--model", "large").status == 0
    own = run("convert", clip, "--speaker", "ben", "--model", "tiny")
    assert "ben: is a voice of a model of your own (0707070707070707), not of tiny" in own.stderr


# References


# Pitch and seconds


# Further training


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> PreparedData:
    return prepare_speech(tmp_path_factory.mktemp("prepared"))


@pytest.fixture(scope="module")
def base(prepared, tmp_path_factory) -> Path:
    """A model with the voices anna, of whom the data has nothing, and rms, of whom it has."""
    folder = tmp_path_factory.mktemp("base")
    loaded = checkpoint.load(train(small_recipe(prepared, folder / "run"), device="cpu"))
    path = folder / "base.safetensors"
    voices = {"anna": vector(0), "rms": vector(1)}
    checkpoint.save(path, loaded.model, voices, {})
    return path


def test_a_model_trained_further_decodes_codes_that_name_a_voice(base, prepared, tmp_path, caplog):
    before = vqcodec.load(base, device="cpu")
    named = before.encode(RMS, speaker="anna")
    recipe = small_recipe(prepared, tmp_path / "run", stage="fast", initial_model=str(base))
    caplog.set_level(logging.INFO, "vqcodec.training")
    after = vqcodec.load(train(recipe, device="cpu"), device="cpu")
    assert after.fingerprint == before.fingerprint
    for name, stored in (("anna", vector(0)), ("rms", vector(1))):
        assert np.array_equal(after.voices[name].vector, stored)
    told = after.decode(replace(named, speaker=vector(0)))
    assert np.array_equal(after.decode(named), told)
    assert "rms stay as" in caplog.text


def test_new_codes_leave_old_voices_out_and_say_so(base, prepared, tmp_path, caplog):
    recipe = small_recipe(prepared, tmp_path / "run", initial_model=str(base))
    caplog.set_level(logging.INFO, "vqcodec.training")
    path = train(recipe, device="cpu")
    assert fingerprint(path) != fingerprint(base)
    assert "anna" not in checkpoint.load(path).voices
    assert "new codes need new voices: anna of" in caplog.text
