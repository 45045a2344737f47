from __future__ import annotations

import contextlib
import io
import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple, get_args

import numpy as np
import pytest
import soundfile
from conftest import TINY, save_tiny_model
from vqcodec_cli.main import app, main
from vqcodec_cli.options import DecoderName
from vqcodec_cli.prepare import CorpusName

import vqcodec
from vqcodec import Codes, checkpoint
from vqcodec.codec import Decoder
from vqcodec.codes import read_pipe
from vqcodec.data.corpora import CORPORA

COMMANDS = [
    command.name or command.callback.__name__.replace("_", "-")
    for command in app.registered_commands
    if command.callback
]


class Stream(io.BytesIO):
    name = "<stdin>"


class Result(NamedTuple):
    status: int
    stdout: str
    stderr: str
    data: bytes


Run = Callable[..., Result]


@pytest.fixture(autouse=True)
def _own_settings_folder(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.mktemp("settings")))


@pytest.fixture
def run(capsysbinary, monkeypatch) -> Run:
    """Runs a command line in this process."""

    def run(*arguments: str | Path, stdin: bytes = b"") -> Result:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(Stream(stdin)))
        capsysbinary.readouterr()
        status = main([str(argument) for argument in arguments])
        stdout, stderr = capsysbinary.readouterr()
        return Result(status, stdout.decode(errors="replace"), stderr.decode(), stdout)

    return run


@pytest.fixture
def clip(speech, tmp_path) -> Path:
    """Half a second of speech."""
    return made(tmp_path / "clip.wav", "sox", speech, tmp_path / "clip.wav", "trim", "0.3", "0.5")


@pytest.fixture
def codes(run, clip, tiny_model, tmp_path) -> Path:
    path = tmp_path / "clip.codes"
    assert run("encode", clip, path, "--model", tiny_model).status == 0
    return path


@pytest.fixture
def folder(clip, tmp_path) -> Path:
    """Two recordings and one that is none."""
    root = tmp_path / "in"
    (root / "deep").mkdir(parents=True)
    (root / "a.wav").write_bytes(clip.read_bytes())
    (root / "b.wav").write_bytes(b"no audio")
    made(root / "deep" / "c.FLAC", "ffmpeg", "-i", clip, "-f", "flac", root / "deep" / "c.FLAC")
    (root / "notes.txt").write_text("no recording")
    (root / "._a.wav").write_bytes(b"what an archive leaves")
    return root


def made(path: Path, *command: str | Path) -> Path:
    subprocess.run([str(word) for word in command], check=True, capture_output=True)
    return path


def process(*arguments: str | Path, **options) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "vqcodec", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, check=False, **options)


def is_one_line(result: Result) -> bool:
    return result.stderr.startswith("vqcodec: ") and result.stderr.count("\n") == 1


# The frame


def test_help_imports_nothing_heavy():
    program = (
        "import sys; from vqcodec_cli.main import main; status = main(['encode', '--help']);"
        "heavy = {'torch', 'numpy', 'librosa', 'soundfile'} & set(sys.modules);"
        "sys.exit(f'{status} {heavy}' if status or heavy else 0)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, stdout=subprocess.DEVNULL)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_every_command_has_an_example(run, command):
    result = run(command, "--help")
    assert result.status == 0
    assert f"Example: vqcodec {command}" in result.stdout


def test_no_argument_is_a_call_for_help(run):
    assert run() == run("--help")


def test_version(run):
    assert run("--version").stdout == f"vqcodec {vqcodec.__version__}\n"


def test_choices_are_those_of_the_library():
    assert [name.value for name in CorpusName] == list(CORPORA)
    assert [name.value for name in DecoderName] == list(get_args(Decoder))


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (["encode", "in.wav"], "Missing argument 'target'; see vqcodec encode --help"),
        (["decode", "a", "b", "--seed", "x"], "Invalid value for '--seed'"),
        (["decode", "a", "b", "--sample-rate", "0"], "Invalid value for '--sample-rate'"),
        (["convert", "in.wav"], "Missing option '--speaker'"),
        (["encode", "a", "b", "--device", "tpu"], "Invalid value for '--device'"),
        (["encode", "a", "b", "--forc"], "--force"),
        (["encode", "a", "b", "--voices", "no.json"], "'no.json' does not exist"),
        (["fly"], "No such command 'fly'"),
    ],
)
def test_bad_arguments_are_one_line_and_status_2(run, arguments, fault):
    result = run(*arguments)
    assert result.status == 2
    assert is_one_line(result)
    assert fault in result.stderr


@pytest.mark.parametrize("place", [0, 1, 5])
def test_debug_shows_the_traceback_wherever_it_stands(run, tmp_path, tiny_model, place):
    arguments = ["encode", "missing.wav", str(tmp_path / "x"), "--model", str(tiny_model)]
    plain = run(*arguments)
    assert plain.status == 1
    assert is_one_line(plain)
    assert "missing.wav: cannot be opened" in plain.stderr
    arguments.insert(place, "--debug")
    debugged = run(*arguments)
    assert debugged.status == 1
    assert "Traceback (most recent call last)" in debugged.stderr
    assert debugged.stderr.endswith(plain.stderr)


def test_an_error_of_ours_says_so(run, clip, tmp_path, monkeypatch):
    def broken(*args: object, **options: object) -> None:
        raise KeyError("two\nlines")

    monkeypatch.setattr(vqcodec, "load", broken)
    result = run("encode", clip, tmp_path / "out.codes")
    assert result.status == 1
    assert is_one_line(result)
    assert "this is a bug (KeyError:" in result.stderr


def test_a_system_error_is_no_bug(run, clip, tiny_model, tmp_path):
    (tmp_path / "file").write_text("in the way")
    voices = tmp_path / "file" / "voices.json"
    result = run("enroll", "eve", clip, "--model", tiny_model, "-o", voices)
    assert result.status == 1
    assert result.stderr.splitlines()[-1].startswith(f"vqcodec: {tmp_path / 'file'}: ")
    assert "this is a bug" not in result.stderr


# encode, decode, convert


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("ulaw8k.wav", ["sox", "IN", "-r", "8000", "-e", "u-law", "OUT"]),
        ("stereo48k.flac", ["sox", "IN", "-r", "48000", "-c", "2", "OUT"]),
        ("film.mp3", ["ffmpeg", "-i", "IN", "-ar", "44100", "-b:a", "64k", "OUT"]),
        ("talk.ogg", ["ffmpeg", "-i", "IN", "-ar", "22050", "-c:a", "libvorbis", "OUT"]),
    ],
)
def test_every_kind_of_recording_comes_back_as_long_as_it_was(
    run, clip, tiny_model, tmp_path, name, command
):
    source = tmp_path / name
    made(source, *({"IN": clip, "OUT": source}.get(word, word) for word in command))
    before = sum(len(block) for block in soundfile.blocks(source, 4096))
    target, result = tmp_path / "out.codes", tmp_path / "out.wav"
    assert run("encode", source, target, "--model", tiny_model) == (0, "", "", b"")
    assert run("decode", target, result, "--model", tiny_model) == (0, "", "", b"")
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


def test_the_seed_decides_what_the_wavenet_draws(run, clip, tiny_model, tmp_path):
    source = made(tmp_path / "s.wav", "sox", clip, tmp_path / "s.wav", "trim", "0", "0.04")

    def converted(*options: str) -> bytes:
        wavenet = ["--decoder", "wavenet", "--model", tiny_model, "-o", "-"]
        result = run("convert", source, "--speaker", "anna", *wavenet, *options)
        assert result.status == 0
        return result.data

    assert converted("--seed", "1") == converted("--seed", "1") != converted("--seed", "2")
    dull = converted("--seed", "1", "--temperature", "0")
    assert dull == converted("--seed", "2", "--temperature", "0")


def test_convert_equals_encode_and_decode(run, clip, codes, tiny_model, tmp_path):
    decoded = tmp_path / "decoded.wav"
    assert run("decode", codes, decoded, "--speaker", "anna", "--model", tiny_model).status == 0
    result = run("convert", clip, "--speaker", "anna", "--model", tiny_model)
    converted = tmp_path / "clip.anna.wav"
    assert (result.status, result.stdout) == (0, f"{converted}\n")
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


def test_from_pipe_to_pipe_everything_is_live(run, clip, codes, tiny_model, tmp_path):
    """A clip of less than four seconds is heard whole before its level is known: it is the same."""
    model = ["--model", str(tiny_model)]
    encoded = process("encode", "-", "-", *model, input=clip.read_bytes())
    assert (encoded.returncode, encoded.stderr) == (0, b"")
    assert Codes.from_bytes(encoded.stdout) == Codes.load(codes)
    decoded = process("decode", "-", "-", *model, input=encoded.stdout)
    assert (decoded.returncode, decoded.stderr) == (0, b"")
    assert run("decode", codes, tmp_path / "out.wav", *model).status == 0
    assert decoded.stdout[44:] == (tmp_path / "out.wav").read_bytes()[44:]
    converted = process("convert", "-", "--speaker", "anna", *model, input=clip.read_bytes())
    assert run("convert", clip, "--speaker", "anna", *model).status == 0
    assert converted.stdout[44:] == (tmp_path / "clip.anna.wav").read_bytes()[44:]
    (tmp_path / "live.codes").write_bytes(encoded.stdout)
    assert run("verify", tmp_path / "live.codes").status == 0
    assert run("decode", "-", tmp_path / "live.wav", *model, stdin=encoded.stdout).status == 0


def test_a_live_stream_is_answered_before_it_ends(clip, tiny_model):
    """The level needs four seconds; then codes come as they are made."""
    command = [sys.executable, "-m", "vqcodec", "encode", "-", "-", "--speaker", "anna"]
    child = subprocess.Popen(
        [*command, "--model", str(tiny_model)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert child.stdin is not None
    assert child.stdout is not None
    samples, sample_rate = soundfile.read(clip, dtype="int16")
    file = io.BytesIO()
    soundfile.write(file, np.tile(samples, 1 + 5 * sample_rate // len(samples)), sample_rate,
                    format="WAV", subtype="PCM_16")  # fmt: skip
    child.stdin.write(file.getvalue()[:-2])
    child.stdin.flush()
    stream = read_pipe(child.stdout, "pipe")  # blocks for ever if nothing comes
    heard = iter(stream)
    assert next(heard).shape == (1, 25)
    child.stdin.write(file.getvalue()[-2:])
    child.stdin.close()
    list(heard)
    assert stream.n_samples == (len(file.getvalue()) - 44) // 2
    assert child.wait() == 0


def test_a_live_stream_that_breaks_off_says_so(run, codes, clip, tiny_model):
    encoded = process("encode", "-", "-", "--model", tiny_model, input=clip.read_bytes())
    result = process("decode", "-", "-", "--model", tiny_model, input=encoded.stdout[:-20])
    assert result.returncode == 1
    assert b"<stdin>: is cut short: the recording's end is missing" in result.stderr


def test_stdin_that_is_no_audio_is_named(run, tiny_model):
    result = run("encode", "-", "-", "--model", tiny_model, stdin=b"words")
    assert (result.status, result.data) == (1, b"")
    assert is_one_line(result)
    assert result.stderr.startswith("vqcodec: <stdin>: is not audio")
    result = run("decode", "-", "-", "--model", tiny_model, stdin=b"words")
    assert (result.status, result.data) == (1, b"")
    assert result.stderr.startswith("vqcodec: <stdin>: is not a .codes file")


def test_existing_files_are_kept_unless_forced(run, clip, tiny_model, tmp_path):
    target = tmp_path / "out.codes"
    target.write_bytes(b"precious")
    refused = run("encode", clip, target, "--model", tiny_model)
    assert refused.status == 1
    assert refused.stderr == f"vqcodec: {target}: exists; add --force to overwrite it\n"
    assert target.read_bytes() == b"precious"
    assert run("encode", clip, target, "--model", tiny_model, "--force").status == 0
    assert Codes.load(target).n_samples == soundfile.info(clip).frames


def test_a_folder_as_output_of_a_file_is_refused(run, clip, tiny_model, tmp_path):
    result = run("encode", clip, tmp_path, "--model", tiny_model, "--force")
    assert result.status == 1
    assert result.stderr == f"vqcodec: {tmp_path}: is a folder; name a file\n"


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


def test_unknown_model_and_unwritable_format(run, clip, codes, tiny_model, tmp_path):
    result = run("encode", clip, tmp_path / "out.codes", "--model", "speech-9k")
    assert (result.status, is_one_line(result)) == (1, True)
    assert "speech-9k: no such model" in result.stderr
    result = run("decode", codes, tmp_path / "out.doc", "--model", tiny_model)
    assert (result.status, is_one_line(result)) == (1, True)
    assert "out.doc: cannot write .doc" in result.stderr


# Folders


def test_folder_goes_on_after_a_failure_and_resumes(run, folder, tiny_model, tmp_path):
    out = tmp_path / "out"
    first = run("encode", folder, out, "--model", tiny_model, "--jobs", "2")
    assert (first.status, first.stdout) == (1, "2 done, 0 already there, 1 failed\n")
    assert is_one_line(first)
    assert str(folder / "b.wav") in first.stderr
    results = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    assert results == {"a.codes", "deep/c.codes"}

    stamp = (out / "a.codes").stat().st_mtime_ns
    (out / "deep" / "c.codes").unlink()
    (folder / "b.wav").write_bytes((folder / "a.wav").read_bytes())
    second = run("encode", folder, out, "--model", tiny_model)
    assert (second.status, second.stdout) == (0, "2 done, 1 already there, 0 failed\n")
    assert (out / "a.codes").stat().st_mtime_ns == stamp
    assert (out / "a.codes").read_bytes() == (out / "b.codes").read_bytes()

    forced = run("encode", folder, out, "--model", tiny_model, "--force", "--jobs", "1")
    assert (forced.status, forced.stdout) == (0, "3 done, 0 already there, 0 failed\n")
    assert (out / "a.codes").stat().st_mtime_ns != stamp

    decoded = tmp_path / "decoded"
    result = run("decode", out, decoded, "--model", tiny_model)
    assert (result.status, result.stdout) == (0, "3 done, 0 already there, 0 failed\n")
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


def test_output_folder_inside_the_source_is_no_source(run, folder, tiny_model):
    (folder / "b.wav").unlink()
    for counts in ("2 done, 0 already there", "0 done, 2 already there"):
        options = ["--speaker", "anna", "-o", folder / "out", "--model", tiny_model]
        assert run("convert", folder, *options).stdout == f"{counts}, 0 failed\n"


def test_folders_that_cannot_work_are_refused_before_anything_is_done(
    run, folder, tiny_model, tmp_path
):
    convert = ["convert", folder, "--speaker", "anna", "--model", tiny_model, "--force", "-o"]
    itself = run(*convert, folder)
    assert (itself.status, is_one_line(itself)) == (1, True)
    assert "a.wav: would be overwritten" in itself.stderr
    (folder / "a.flac").write_bytes(b"")
    clash = run(*convert, tmp_path / "out")
    assert (clash.status, is_one_line(clash)) == (1, True)
    assert "rename one" in clash.stderr
    stream = run(*convert, "-")
    assert (stream.status, stream.stdout) == (1, "")
    assert "name a folder to write to" in stream.stderr
    empty = run("decode", folder, tmp_path / "out", "--model", tiny_model)
    assert (empty.status, is_one_line(empty)) == (1, True)
    assert f"{folder}: holds no file that ends in .codes" in empty.stderr
    assert not (tmp_path / "out").exists()


# The process


@pytest.mark.parametrize("is_folder", [False, True])
def test_interrupt_leaves_nothing_behind(speech, tiny_model, tmp_path, is_folder):
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    out.mkdir()
    samples, rate = soundfile.read(speech)
    for name in ("a.wav", "b.wav"):
        # Minutes of audio: nothing may be finished before the interrupt.
        soundfile.write(source / name, np.tile(samples, 80), rate)
    pair = (source, out) if is_folder else (source / "a.wav", out / "a.wav")
    options = ["--speaker", "anna", "--decoder", "wavenet", "--model", tiny_model]
    command = [sys.executable, "-m", "vqcodec", "convert", pair[0], "-o", pair[1], *options]
    with subprocess.Popen([str(word) for word in command], stderr=subprocess.PIPE) as child:
        assert child.stderr is not None
        while not list(out.iterdir()):  # the unfinished file shows that decoding has begun
            assert child.poll() is None
            time.sleep(0.05)
        child.send_signal(signal.SIGINT)
        stderr = child.stderr.read()
    assert child.returncode == 130
    assert b"Traceback" not in stderr
    assert list(out.iterdir()) == []


def test_a_reader_that_leaves_causes_no_complaint(tiny_model):
    command = [sys.executable, "-m", "vqcodec", "speakers", "--model", str(tiny_model)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        child.stdout.close()
        stderr = child.stderr.read()
    assert (child.returncode, stderr) == (1, b"")


def test_progress_goes_to_the_terminal_and_codes_to_stdout(clip, codes, tiny_model):
    terminal, stderr = pty.openpty()
    command = [sys.executable, "-m", "vqcodec", "encode", str(clip), "-", "--model", tiny_model]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr)
    os.close(stderr)
    shown = b""
    with contextlib.suppress(OSError):  # which is how a terminal ends
        # Read on, or a slow child would wait for ever for room to draw its bar in.
        while data := os.read(terminal, 65536):
            shown += data
    os.close(terminal)
    assert child.communicate()[0] == codes.read_bytes()
    assert child.returncode == 0
    assert b"encoding" in shown


def test_compiling_the_sampler_is_announced_once(clip, codes, tiny_model, tmp_path):
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    notice = b"compiling the sampler for this processor, once: some seconds\n"
    for name, shown in (("a.wav", notice), ("b.wav", b"")):
        arguments = ["decode", codes, tmp_path / name, "--decoder", "wavenet"]
        done = process(*arguments, "--model", tiny_model, env=environment)
        assert (done.returncode, done.stderr) == (0, shown)


# info, verify, models, speakers


def test_info_of_codes(run, clip, codes, tiny_model, monkeypatch):
    found = json.loads(run("info", codes, "--json").stdout)
    samples = soundfile.info(clip).frames
    assert found["n_samples"] == samples
    assert found["file_size_bytes"] == codes.stat().st_size
    assert found["bits_per_second"] == pytest.approx(8 * codes.stat().st_size * 16000 / samples)
    assert found["nominal_bits_per_second"] == 1125
    assert (found["speaker"], found["model"]) == (None, None)
    monkeypatch.setattr(checkpoint, "packaged", lambda: {"tiny": tiny_model})
    assert json.loads(run("info", codes, "--json").stdout)["model"] == "tiny"
    assert found["fingerprint"] in run("info", codes).stdout


def test_info_knows_codes_by_their_content(run, codes, tmp_path):
    renamed = codes.rename(tmp_path / "renamed.bin")
    assert json.loads(run("info", renamed, "--json").stdout)["kind"] == "codes"


def test_info_of_a_recording(run, tmp_path):
    path = tmp_path / "tone.flac"
    made(path, "sox", "-n", "-r", "44100", "-c", "2", path, "synth", "0.1", "sine", "300")
    found = json.loads(run("info", path, "--json").stdout)
    assert (found["sample_rate"], found["channels"], found["n_samples"]) == (44100, 2, 4410)


def test_info_of_a_model_is_what_models_lists(run, tiny_model, monkeypatch):
    assert json.loads(run("models", "--json").stdout) == [
        json.loads(run("info", name, "--json").stdout) for name in vqcodec.list_models()
    ]
    monkeypatch.setattr(checkpoint, "packaged", lambda: {"tiny": tiny_model})
    (model,) = json.loads(run("models", "--json").stdout)
    assert model == json.loads(run("info", tiny_model, "--json").stdout)
    assert model == json.loads(run("info", "tiny", "--json").stdout)
    assert model["size_bytes"] == tiny_model.stat().st_size
    assert model["decoders"] == ["fast", "wavenet"]
    assert (model["frame_rate"], model["bits_per_second"]) == (125, 1125)
    assert model["fingerprint"] in run("models").stdout


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


def test_verify_of_an_empty_folder_is_no_success(run, tmp_path):
    result = run("verify", tmp_path)
    assert (result.status, result.stdout) == (1, f"bad {tmp_path}: holds no .codes file\n")


def test_speakers(run, tiny_model):
    assert run("speakers", "--model", tiny_model).stdout == "anna\np225\n"
    listed = json.loads(run("speakers", "--model", tiny_model, "--json").stdout)
    assert listed[0] == {"name": "anna", "enrolled": False}


# enroll


def test_an_enrolled_voice_can_be_used_at_once(run, clip, speech, tiny_model, tmp_path):
    enrolled = run("enroll", "eve", speech, clip, "--model", tiny_model)
    assert enrolled.status == 0
    assert "use it: vqcodec convert in.wav --speaker eve" in enrolled.stdout
    assert "vqcodec: only 3.5 s of eve" in enrolled.stderr
    assert "eve (enrolled)\n" in run("speakers", "--model", tiny_model).stdout
    assert run("convert", clip, "--speaker", "eve", "--model", tiny_model).status == 0
    assert (tmp_path / "clip.eve.wav").is_file()
    refused = run("enroll", "eve", clip, "--model", tiny_model)
    assert refused.status == 1
    assert "eve: is a voice already; add --force" in refused.stderr
    assert run("enroll", "eve", clip, "--model", tiny_model, "--force").status == 0


def test_voices_in_a_file_of_their_own(run, clip, speech, tiny_model, tmp_path):
    voices = tmp_path / "kept" / "voices.json"
    long = tmp_path / "long.wav"
    made(long, "sox", speech, speech, speech, speech, long)
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


# prepare, train, recipes


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
    assert "  validation " in trained.stderr.splitlines()[-1]
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
    from vqcodec.training import trainer

    def train(recipe, *, on_report, **options):
        assert recipe.max_minutes == 2.5
        for step, warning in enumerate((None, "collapsing: 1.5", "collapsing: 1.4", "slow: 3"), 1):
            usage = SimpleNamespace(perplexity=1.0)
            on_report(trainer.Report(step, 4, {"total": 1.0}, usage, None, warning))
        return tmp_path / "model.safetensors"

    monkeypatch.setattr(trainer, "train", train)
    result = run("train", recipe, "--max-minutes", "2.5")
    assert result.status == 0
    assert result.stderr == "vqcodec: collapsing: 1.5\nvqcodec: slow: 3\n"
    assert result.stdout == "no model yet, the time was too short: go on with --resume\n"


def test_train_names_the_key_that_was_meant(run, recipe):
    result = run("train", recipe, "data.bach_size=4")
    assert (result.status, is_one_line(result)) == (1, True)
    assert "unknown key data.bach_size; did you mean data.batch_size?" in result.stderr


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
