from __future__ import annotations

import json
import os
import re

import numpy as np
import pytest
import soundfile
from command_line import is_one_line
from recordings import spoken, write
from tiny_models import save_tiny_model

import vqcodec
from vqcodec.weights import registry

# info, verify, models, speakers


def test_info_of_codes(run, clip, codes, tiny_model, monkeypatch):
    found = json.loads(run("info", codes, "--json").stdout)
    samples = soundfile.info(clip).frames
    assert found["n_samples"] == samples
    assert found["file_size_bytes"] == codes.stat().st_size
    assert found["bits_per_second"] == pytest.approx(8 * codes.stat().st_size * 16000 / samples)
    assert found["nominal_bits_per_second"] == 1125
    assert (found["speaker"], found["model"]) == (None, None)
    monkeypatch.setattr(registry, "packaged", lambda: {"tiny": tiny_model})
    assert json.loads(run("info", codes, "--json").stdout)["model"] == "tiny"
    assert found["fingerprint"] in run("info", codes).stdout


def test_info_knows_codes_by_their_content(run, codes, tmp_path):
    renamed = codes.rename(tmp_path / "renamed.bin")
    assert json.loads(run("info", renamed, "--json").stdout)["kind"] == "codes"


def test_info_of_a_recording(run, tmp_path):
    path = write(tmp_path / "tone.flac", np.zeros((4410, 2)), 44100)
    found = json.loads(run("info", path, "--json").stdout)
    assert (found["sample_rate"], found["channels"], found["n_samples"]) == (44100, 2, 4410)


def test_info_of_a_model_is_what_models_lists(run, tiny_model, monkeypatch):
    assert json.loads(run("models", "--json").stdout) == [
        json.loads(run("info", name, "--json").stdout) for name in vqcodec.list_models()
    ]
    monkeypatch.setattr(registry, "packaged", lambda: {"tiny": tiny_model})
    (model,) = json.loads(run("models", "--json").stdout)
    assert model == json.loads(run("info", tiny_model, "--json").stdout)
    assert model == json.loads(run("info", "tiny", "--json").stdout)
    assert model["size_bytes"] == tiny_model.stat().st_size
    assert (model["decoders"], model["auto_decoder"]) == (["fast", "wavenet"], "fast")
    assert (model["frame_rate"], model["bits_per_second"]) == (125, 1125)
    assert set(model["cost"]) == {"encoder", "quantizer", "speaker", "fast", "wavenet"}
    assert model["cost"]["encoder"]["look_ahead_ms"] == pytest.approx(149, abs=0.5)
    assert set(model["latency_ms"]) == {"fast", "wavenet"}
    text = run("info", "tiny").stdout
    assert model["fingerprint"] in text
    assert re.search(r"wavenet: parameters \d+, macs per second [\d.]+ million", text)


def test_models_are_listed_in_a_line_each(run):
    lines = run("models").stdout.splitlines()
    assert [line.split()[0] for line in lines] == list(vqcodec.list_models())
    assert re.fullmatch(r"speech-1k +125 codes/s of 2048 +\d+\.\d MB  fast, wavenet", lines[0])


def test_info_of_what_is_none_of_these(run, tmp_path):
    for name, content in (("x.codes", b"\x89VQC"), ("x.safetensors", b"{}"), ("x.wav", b"words")):
        path = tmp_path / name
        path.write_bytes(content)
        result = run("info", path)
        assert (result.status, is_one_line(result)) == (1, True)
        assert str(path) in result.stderr


def test_verify_finds_the_damaged_file(run, codes, tiny_model, tmp_path):
    whole = run("verify", codes, tiny_model)
    assert (whole.status, whole.stdout) == (0, f"OK {codes}\nOK {tiny_model}\n")
    archive = tmp_path / "archive"
    archive.mkdir()
    data = bytearray(codes.read_bytes())
    (archive / "good.codes").write_bytes(data)
    (archive / "short.codes").write_bytes(data[:-1])
    data[-5] ^= 1
    (archive / "flipped.codes").write_bytes(data)
    model = bytearray(tiny_model.read_bytes())
    model[-1] ^= 1
    (tmp_path / "bad.safetensors").write_bytes(model)
    result = run("verify", archive, tmp_path / "bad.safetensors")
    assert result.status == 1
    lines = result.stdout.splitlines()
    assert lines[0].startswith(f"bad {archive}/flipped.codes: is damaged: the CRC of chunk 0")
    assert lines[1] == f"OK {archive}/good.codes"
    assert lines[2].startswith(f"bad {archive}/short.codes: is cut short")
    assert lines[3].startswith(f"bad {tmp_path}/bad.safetensors: damaged")
    assert len(lines) == 4


def test_names_need_not_be_utf_8(run, clip, codes, tiny_model, tmp_path):
    name = os.fsdecode(b"a\xff")
    odd = tmp_path / "odd"
    odd.mkdir()
    (odd / f"{name}.codes").write_bytes(codes.read_bytes())
    assert run("verify", odd).data == b"OK " + os.fsencode(odd / f"{name}.codes") + b"\n"
    lines = run("units", odd, "-o", tmp_path / "units.txt", "--model", tiny_model)
    assert (lines.status, lines.stderr) == (0, "")
    assert (tmp_path / "units.txt").read_bytes().startswith(b"a\xff|")
    refused = run("enroll", name, clip, "--model", tiny_model)
    assert (refused.status, is_one_line(refused)) == (1, True)
    assert "cannot name a voice" in refused.stderr


def test_verify_of_an_empty_folder_is_no_success(run, tmp_path):
    result = run("verify", tmp_path)
    assert (result.status, result.stdout) == (1, f"bad {tmp_path}: holds no .codes file\n")


# enroll


def test_an_enrolled_voice_can_be_used_at_once(run, clip, speech, tiny_model, tmp_path):
    enrolled = run("enroll", "eve", speech, clip, "--model", tiny_model)
    assert enrolled.status == 0
    assert "use it: vqcodec convert in.wav --speaker eve" in enrolled.stdout
    assert "vqcodec: eve: has only" in enrolled.stderr
    assert "enrolled from 2 recordings" in run("speakers", "--model", tiny_model).stdout
    assert run("convert", clip, "--speaker", "eve", "--model", tiny_model).status == 0
    assert (tmp_path / "clip.eve.wav").is_file()
    refused = run("enroll", "eve", clip, "--model", tiny_model)
    assert refused.status == 1
    assert "eve: is a voice already; add --force" in refused.stderr
    assert run("enroll", "eve", clip, "--model", tiny_model, "--force").status == 0


def test_voices_in_a_file_of_their_own(run, clip, tiny_model, tmp_path):
    voices = tmp_path / "kept" / "voices.json"
    long = write(tmp_path / "long.wav", np.tile(spoken("rms"), 3))
    enrolled = run("enroll", "eve", long, "--model", tiny_model, "--voices", voices)
    assert (enrolled.status, enrolled.stderr) == (0, "")
    assert f"--voices {voices}" in enrolled.stdout
    convert = ["convert", clip, "--speaker", "eve", "--model", tiny_model]
    assert run(*convert).status == 1
    assert run(*convert, "--voices", voices).status == 0
    other = tmp_path / "other.safetensors"
    save_tiny_model(other, seed=1)
    assert "eve" not in run("speakers", "--model", other, "--voices", voices).stdout


def test_names_that_look_like_files_cannot_be_enrolled(run, clip, tiny_model):
    result = run("enroll", "eve.wav", clip, "--model", tiny_model)
    assert (result.status, is_one_line(result)) == (1, True)
    assert "'eve.wav' cannot name a voice" in result.stderr
