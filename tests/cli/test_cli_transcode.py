from __future__ import annotations

import json
import re
from dataclasses import replace

import numpy as np
import pytest
import soundfile
import soxr
from command_line import Result, is_one_line
from recordings import RATE, spoken, write
from tiny_models import save_tiny_model

import vqcodec
from vqcodec import Codes
from vqcodec.weights import registry

# encode, decode, convert


@pytest.mark.parametrize(
    ("name", "sample_rate", "n_channels", "subtype"),
    [
        ("ulaw8k.wav", 8000, 1, "ULAW"),
        ("stereo48k.flac", 48000, 2, "PCM_24"),
        ("film.mp3", 44100, 2, ""),
        ("talk.ogg", 22050, 1, "VORBIS"),
    ],
)
def test_every_kind_of_recording_comes_back_as_long_as_it_was(
    run, tiny_model, tmp_path, name, sample_rate, n_channels, subtype
):
    samples = soxr.resample(spoken("slt", 0.3, 0.8), RATE, sample_rate)
    source = write(tmp_path / name, np.stack([samples] * n_channels, 1), sample_rate, subtype)
    before = sum(len(block) for block in soundfile.blocks(source, 4096))
    target, result = tmp_path / "out.codes", tmp_path / "out.wav"
    for command, *pair in (("encode", source, target), ("decode", target, result)):
        told = run(command, *pair, "--model", tiny_model)
        assert (told.status, told.stderr) == (0, "")
    decoded = soundfile.info(result)
    assert (decoded.frames, decoded.samplerate, decoded.channels) == (
        before,
        soundfile.info(source).samplerate,
        1,
    )


def test_decode_in_another_voice_rate_and_format(run, codes, tiny_model, tmp_path, clip):
    own, other = tmp_path / "own.flac", tmp_path / "other.flac"
    for target, extra in ((own, []), (other, ["--speaker", "anna"])):
        options = ["--sample-rate", "24000", "--model", tiny_model]
        assert run("decode", codes, target, *options, *extra).status == 0
        assert soundfile.info(target).samplerate == 24000
        assert soundfile.info(target).frames == soundfile.info(clip).frames * 3 // 2
    assert own.read_bytes() != other.read_bytes()


def test_encode_names_a_known_voice(run, clip, tiny_model, tmp_path):
    target = tmp_path / "out.codes"
    assert run("encode", clip, target, "--speaker", "p225", "--model", tiny_model).status == 0
    assert Codes.load(target).speaker == "p225"


def test_the_seed_decides_what_the_wavenet_draws(run, tiny_model, tmp_path):
    source = write(tmp_path / "s.wav", spoken("slt", 0.3, 0.34))

    def converted(*options: str) -> bytes:
        wavenet = ["--decoder", "wavenet", "--model", tiny_model, "-o", "-"]
        result = run("convert", source, "--speaker", "anna", *wavenet, *options)
        assert result.status == 0
        return result.data

    assert converted("--seed", "1") == converted("--seed", "1") != converted("--seed", "2")
    dull = converted("--seed", "1", "--temperature", "0")
    assert dull == converted("--seed", "2", "--temperature", "0")


@pytest.mark.parametrize(("best", "wer"), [("fast", 0.3), ("wavenet", 0.1)])
def test_the_decoder_is_the_best_by_the_model_s_measures(run, tmp_path, best, wer):
    model, source = tmp_path / "model.safetensors", tmp_path / "s.wav"
    metrics = {"wer": 0.2, "stoi": 0.9, "wavenet": {"wer": wer, "stoi": 0.1}}
    save_tiny_model(model, seed=0, provenance={"metrics": metrics})
    write(source, spoken("slt", 0.3, 0.34))

    def converted(*decoder: str) -> bytes:
        result = run("convert", source, "--speaker", "anna", "--model", model, "-o", "-", *decoder)
        assert (result.status, result.data[:4]) == (0, b"RIFF")
        return result.data

    assert converted() == converted("--decoder", "auto") == converted("--decoder", best)
    assert converted("--decoder", "fast") != converted("--decoder", "wavenet")
    assert json.loads(run("info", model, "--json").stdout)["auto_decoder"] == best
    assert re.search(rf"auto decoder +│ {best}", run("info", model).stdout)


def test_codes_name_an_enrolled_voice_and_are_decoded_with_its_file(
    run, clip, speech, tiny_model, tmp_path
):
    model, voices = ["--model", tiny_model], ["--voices", tmp_path / "voices.json"]
    assert run("enroll", "eve", speech, *model, *voices).status == 0
    source, target = tmp_path / "eve.codes", tmp_path / "eve.wav"
    assert run("encode", clip, source, "--speaker", "eve", *model, *voices).status == 0
    without = run("decode", source, target, *model)
    assert (without.status, is_one_line(without)) == (1, True)
    assert "name the voice eve, which model tiny does not know" in without.stderr
    assert run("decode", source, target, *model, *voices).status == 0
    assert soundfile.info(target).frames == soundfile.info(clip).frames


def test_convert_equals_encode_and_decode(run, clip, codes, tiny_model, tmp_path):
    decoded = tmp_path / "decoded.wav"
    assert run("decode", codes, decoded, "--speaker", "anna", "--model", tiny_model).status == 0
    result = run("convert", clip, "--speaker", "anna", "--model", tiny_model)
    converted = tmp_path / "clip.anna.wav"
    assert (result.status, result.stdout) == (0, f"{clip} → {converted}  0.50 s\n")
    assert converted.read_bytes() == decoded.read_bytes()


def test_convert_to_the_voice_of_a_recording(run, clip, speech, tiny_model, tmp_path):
    assert run("convert", clip, "--speaker", speech, "--model", tiny_model).status == 0
    assert (tmp_path / "clip.speech.wav").is_file()


def test_a_pipe_and_a_file_are_two_files(run, clip, codes, tiny_model, tmp_path):
    model = ["--model", tiny_model]
    encoded = run("encode", "-", tmp_path / "in.codes", *model, stdin=clip.read_bytes())
    assert encoded.status == 0
    assert (tmp_path / "in.codes").read_bytes() == codes.read_bytes()
    assert run("encode", clip, "-", *model).data == codes.read_bytes()
    assert run("decode", codes, tmp_path / "out.wav", *model).status == 0
    decoded = run("decode", "-", "-", *model, stdin=codes.read_bytes())
    assert decoded.data == (tmp_path / "out.wav").read_bytes()


def test_what_a_link_points_to_is_replaced(run, clip, codes, tiny_model, tmp_path):
    (tmp_path / "real.codes").write_bytes(b"old")
    (tmp_path / "real.codes").chmod(0o600)
    (tmp_path / "link.codes").symlink_to("real.codes")
    target = tmp_path / "link.codes"
    assert run("encode", clip, target, "--force", "--model", tiny_model).status == 0
    assert target.is_symlink()
    assert (tmp_path / "real.codes").read_bytes() == codes.read_bytes()
    assert (tmp_path / "real.codes").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("target", "fault"),
    [
        ("none/out.wav", "there is no folder"),
        ("out.wma", "cannot write .wma; end the name in one of .wav"),
        ("new/", "is a folder; name a file"),
    ],
)
def test_what_cannot_be_written_is_refused_before_the_work(
    run, clip, tiny_model, tmp_path, monkeypatch, target, fault
):
    def load(*_: object, **__: object) -> None:
        raise AssertionError("loads the model")

    monkeypatch.setattr(vqcodec, "load", load)
    target = f"{tmp_path}/{target}"
    result = run("convert", clip, "--speaker", "anna", "-o", target, "--model", tiny_model)
    assert (result.status, is_one_line(result)) == (1, True)
    assert f"{target}: {fault}" in result.stderr


def test_clipping_is_said(run, codes, tiny_model, tmp_path, monkeypatch):
    load = Codes.load
    monkeypatch.setattr(Codes, "load", lambda *a, **k: replace(load(*a, **k), gain=1000.0))
    result = run("decode", codes, tmp_path / "out.wav", "--model", tiny_model)
    assert (result.status, is_one_line(result)) == (0, True)
    assert "of its samples are too loud and were clipped" in result.stderr


def test_existing_files_are_kept_unless_forced(run, clip, tiny_model, tmp_path):
    target = tmp_path / "out.codes"
    target.write_bytes(b"precious")
    refused = run("encode", clip, target, "--model", tiny_model)
    assert refused.status == 1
    assert is_one_line(refused)
    assert f"{target}: exists; add --force to overwrite it, or name another" in refused.stderr
    assert target.read_bytes() == b"precious"
    assert run("encode", clip, target, "--model", tiny_model, "--force").status == 0
    assert Codes.load(target).n_samples == soundfile.info(clip).frames


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (["encode", "", "out"], "an empty path names nothing"),
        (["encode", "none.wav", "out.codes"], "none.wav: no such file or folder"),
        (["decode", "none", "out"], "none: no such file or folder"),
        (
            ["encode", "in.wav", "out.wav", "--force"],
            "out.wav: no such file or folder; check the path, or end a target in .codes",
        ),
        (["convert", "in.wav", "-o", "in.wav", "--force"], "in.wav: would replace what it is made"),
        (["convert", ".", "-o", "out.wav"], "out.wav: no folder, and . is one"),
        (["convert", "in.wav", "--speaker", "no/friend.wav"], "no/friend.wav: neither a voice nor"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    run, clip, tiny_model, tmp_path, monkeypatch, arguments, fault
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in.wav").write_bytes(clip.read_bytes())
    before = sorted(tmp_path.iterdir())
    if arguments[0] == "convert" and "--speaker" not in arguments:
        arguments = [*arguments, "--speaker", "anna"]
    result = run(*arguments, "--model", tiny_model)
    assert (result.status, is_one_line(result)) == (1, True)
    assert result.stderr.startswith(f"vqcodec: {fault}")
    assert sorted(tmp_path.iterdir()) == before
    assert (tmp_path / "in.wav").read_bytes() == clip.read_bytes()


def test_unknown_speaker_names_the_nearest(run, clip, tiny_model, tmp_path):
    result = run("convert", clip, "--speaker", "ana", "--model", tiny_model)
    assert result.status == 1
    assert is_one_line(result)
    assert "ana: neither a voice nor a recording; voices like it: anna" in result.stderr
    assert list(tmp_path.iterdir()) == [clip]


def test_codes_of_another_model_are_refused(run, codes, tiny_model, tmp_path):
    other = tmp_path / "other.safetensors"
    save_tiny_model(other, seed=1)
    result = run("decode", codes, tmp_path / "out.wav", "--model", other)
    assert result.status == 1
    assert is_one_line(result)
    assert result.stderr.startswith(f"vqcodec: {codes}: these codes were made by model")
    assert Codes.load(codes).fingerprint.hex() in result.stderr
    assert not (tmp_path / "out.wav").exists()


def test_codes_are_decoded_by_the_packaged_model_that_made_them(
    run, codes, tiny_model, tmp_path, monkeypatch
):
    save_tiny_model(tmp_path / "other.safetensors", seed=1)
    found = {"speech-1k": tmp_path / "other.safetensors", "tiny": tiny_model}
    monkeypatch.setattr(registry, "packaged", lambda: found)
    assert run("decode", codes, tmp_path / "a.wav").status == 0
    assert run("decode", codes, tmp_path / "b.wav", "--model", tiny_model).status == 0
    assert (tmp_path / "a.wav").read_bytes() == (tmp_path / "b.wav").read_bytes()
    assert run("decode", "-", tmp_path / "c.wav", stdin=codes.read_bytes()).status == 0
    refused = run("decode", codes, tmp_path / "d.wav", "--model", "speech-1k")
    assert (refused.status, is_one_line(refused)) == (1, True)


def test_unknown_model_and_unwritable_format(run, clip, codes, tiny_model, tmp_path):
    result = run("encode", clip, tmp_path / "out.codes", "--model", "speech-9k")
    assert (result.status, is_one_line(result)) == (1, True)
    assert "speech-9k: no such model" in result.stderr
    result = run("decode", codes, tmp_path / "out.doc", "--model", tiny_model)
    assert (result.status, is_one_line(result)) == (1, True)
    assert "out.doc: cannot write .doc" in result.stderr


# Folders


def counts(result: Result) -> str:
    return result.stdout.splitlines()[0]


def test_folder_goes_on_after_a_failure_and_resumes(run, folder, tiny_model, tmp_path):
    out = tmp_path / "out"
    first = run("encode", folder, out, "--model", tiny_model, "--jobs", "2")
    assert (first.status, counts(first)) == (1, "2 done, 0 already there, 1 failed")
    assert is_one_line(first)
    assert str(folder / "b.wav") in first.stderr
    results = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    assert results == {"a.codes", "deep/c.codes"}

    stamp = (out / "a.codes").stat().st_mtime_ns
    (out / "deep" / "c.codes").unlink()
    (folder / "b.wav").write_bytes((folder / "a.wav").read_bytes())
    second = run("encode", folder, out, "--model", tiny_model)
    assert (second.status, counts(second)) == (
        0,
        "2 done, 1 already there (--force makes them anew), 0 failed",
    )
    assert (out / "a.codes").stat().st_mtime_ns == stamp
    assert (out / "a.codes").read_bytes() == (out / "b.codes").read_bytes()

    forced = run("encode", folder, out, "--model", tiny_model, "--force", "--jobs", "1")
    assert (forced.status, counts(forced)) == (0, "3 done, 0 already there, 0 failed")
    assert (out / "a.codes").stat().st_mtime_ns != stamp

    decoded = tmp_path / "decoded"
    result = run("decode", out, decoded, "--model", tiny_model)
    assert (result.status, counts(result)) == (0, "3 done, 0 already there, 0 failed")
    source = soundfile.info(folder / "deep" / "c.FLAC")
    assert soundfile.info(decoded / "deep" / "c.wav").frames == source.frames


def test_folder_failure_is_traced_with_debug(run, folder, tiny_model, tmp_path, caplog):
    run("encode", folder, tmp_path / "out", "--model", tiny_model, "--debug")
    assert "AudioError" in caplog.text


def test_converted_folder_lies_beside_its_source(run, folder, tiny_model, tmp_path):
    (folder / "b.wav").unlink()
    result = run("convert", folder, "--speaker", "anna", "--model", tiny_model)
    assert result.status == 0
    converted = sorted((tmp_path / "in.anna").rglob("*.wav"))
    assert [path.name for path in converted] == ["a.wav", "c.wav"]


def test_output_folder_inside_the_source_is_no_source(run, folder, tiny_model, monkeypatch):
    hidden = folder / ".trash"
    hidden.mkdir()
    (hidden / "z.wav").write_bytes((folder / "a.wav").read_bytes())
    (folder / "b.wav").unlink()
    for expected in (
        "2 done, 0 already there",
        "0 done, 2 already there (--force makes them anew)",
    ):
        options = ["--speaker", "anna", "-o", folder / "out", "--model", tiny_model]
        assert counts(run("convert", folder, *options)) == f"{expected}, 0 failed"
    monkeypatch.chdir(folder.parent)
    options[3] = folder / "out"
    relative = run("convert", folder.name, *options, "--force")
    assert counts(relative) == "2 done, 0 already there, 0 failed"


def test_folders_that_cannot_work_are_refused_before_anything_is_done(
    run, folder, tiny_model, tmp_path
):
    convert = ["convert", folder, "--speaker", "anna", "--model", tiny_model, "--force", "-o"]
    itself = run(*convert, folder)
    assert (itself.status, is_one_line(itself)) == (1, True)
    assert "a.wav: would be overwritten" in itself.stderr
    stream = run(*convert, "-")
    assert (stream.status, stream.stdout) == (1, "")
    assert "name a folder to write to" in stream.stderr
    empty = run("decode", folder, tmp_path / "out", "--model", tiny_model)
    assert (empty.status, is_one_line(empty)) == (1, True)
    assert f"{folder}: holds no file that ends in .codes" in empty.stderr
    assert not (tmp_path / "out").exists()
