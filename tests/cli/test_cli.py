from __future__ import annotations

import contextlib
import os
import pty
import signal
import subprocess
import sys
import time
import warnings
from typing import get_args

import numpy as np
import pytest
import soundfile
from command_line import is_one_line, process
from recordings import spoken
from vqcodec_cli import transcode
from vqcodec_cli.main import COMMANDS
from vqcodec_cli.prepare import CorpusName

import vqcodec
from vqcodec.data.corpora import CORPORA
from vqcodec.errors import RecordingWarning

# The frame


@pytest.mark.parametrize(
    ("arguments", "status"),
    [(["--help"], 0), (["encode", "-h"], 0), (["train", "r.yaml", "--resum"], 2), (["fly"], 2)],
)
def test_help_and_misspelt_options_import_nothing_heavy(arguments, status):
    program = (
        f"import sys; from vqcodec_cli.main import main; status = main({arguments});"
        "heavy = {'torch', 'numba', 'numpy', 'librosa', 'soundfile'} & set(sys.modules);"
        f"sys.exit(f'{{status}} {{heavy}}' if status != {status} or heavy else 0)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, stdout=subprocess.DEVNULL)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_every_command_has_an_example(run, command):
    result = run(command, "--help")
    assert run(command, "-h") == result
    assert result.status == 0
    assert f"Example: vqcodec {command}" in result.stdout


def test_no_argument_is_a_call_for_help(run):
    assert run() == run("--help")


def test_version(run):
    assert run("--version").stdout == f"vqcodec {vqcodec.__version__}\n"


def test_choices_are_those_of_the_library():
    assert list(get_args(CorpusName)) == [*CORPORA, "lhotse", "datasets"]


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (["encode"], "Missing argument 'RECORDING... [TARGET]'; see vqcodec encode --help"),
        (["decode", "a.codes", "-o", "a.wav"], "No such option: -o: name the target last; see"),
        (["encode", "a.wav", "--output", "a"], "option: --output: name the target last; see"),
        (["decode", "a", "b", "--seed", "x"], "Invalid value for '--seed'"),
        (["decode", "a", "b", "--sample-rate", "0"], "Invalid value for '--sample-rate'"),
        (["convert", "in.wav"], "Missing option '--speaker'"),
        (["encode", "a", "b", "--device", "tpu"], "Invalid value for '--device'"),
        (["encode", "a", "b", "--forc"], "--force"),
        (["encode", "a", "b", "--voices", "no.json"], "'no.json' does not exist"),
        (["fly"], "No such command 'fly'"),
        (["export"], "Missing command; see vqcodec export --help"),
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
    assert "missing.wav: no such file" in plain.stderr
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


# The process


def test_a_warning_about_a_recording_is_one_line_and_comes_once(
    run, tiny_model, tmp_path, monkeypatch
):
    def doubtful(source):
        for _ in range(2):
            warnings.warn(f"{source}: is doubtful", RecordingWarning, stacklevel=1)
        return source

    for name in "ab":
        soundfile.write(tmp_path / f"{name}.wav", spoken("rms", 0.5, 1.0), 16000)
    monkeypatch.setattr(transcode, "readable", doubtful)
    told = [f"vqcodec: {tmp_path / name}.wav: is doubtful" for name in "ab"]
    for target in "one", "two":
        result = run("encode", tmp_path, tmp_path / target, "--model", tiny_model)
        assert (result.status, sorted(result.stderr.splitlines())) == (0, told)


@pytest.mark.parametrize("is_folder", [False, True])
def test_interrupt_leaves_nothing_behind(speech, packaged, tmp_path, is_folder):
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    out.mkdir()
    samples, rate = soundfile.read(speech)
    for name in ("a.wav", "b.wav"):
        # Minutes of audio: nothing may be finished before the interrupt.
        soundfile.write(source / name, np.tile(samples, 20), rate)
    pair = (source, out) if is_folder else (source / "a.wav", out / "a.wav")
    options = ["--speaker", "anna", "--decoder", "wavenet", "--model", packaged]
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


def test_a_reader_that_leaves_causes_no_complaint():
    command = [sys.executable, "-m", "vqcodec", "speakers"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        child.stdout.close()
        stderr = child.stderr.read()
    assert (child.returncode, stderr) == (1, b"")


def test_nothing_is_kept_or_told_of_who_uses_it(clip, packaged, tmp_path):
    home, temporary = tmp_path / "home", tmp_path / "temporary"
    home.mkdir()
    temporary.mkdir()
    folders = {"HOME": str(home), "TMPDIR": str(temporary)}
    environment = {**os.environ, **folders}
    environment.pop("ORT_DISABLE_TELEMETRY", None)  # which this process has from vqcodec
    codes = tmp_path / "clip.codes"
    done = process("encode", clip, codes, "--model", packaged, env=environment)
    assert done.returncode == 0
    done = process("convert", clip, "--speaker", "anna", "--model", packaged, env=environment)
    assert done.returncode == 0
    assert not [*home.rglob("*"), *temporary.rglob("*")]


def test_progress_goes_to_the_terminal_and_codes_to_stdout(run, clip, packaged):
    terminal, stderr = pty.openpty()
    command = [sys.executable, "-m", "vqcodec", "encode", str(clip), "-", "--model", packaged]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr)
    os.close(stderr)
    shown = b""
    with contextlib.suppress(OSError):  # which is how a terminal ends
        # Read on, or a slow child would wait for ever for room to draw its bar in.
        while data := os.read(terminal, 65536):
            shown += data
    os.close(terminal)
    assert child.communicate()[0] == run("encode", clip, "-", "--model", packaged).data
    assert child.returncode == 0
    assert b"encoding" in shown


def test_compiling_the_sampler_is_announced_once(run, clip, packaged, tmp_path):
    """Also where several processes need it."""
    folder, model = tmp_path / "codes", ["--model", packaged]
    folder.mkdir()
    for name in ("a", "b"):
        assert run("encode", clip, folder / f"{name}.codes", *model).status == 0
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    notice = b"compiling the sampler for this processor, once: some seconds"
    for name, shown in (("first", [notice]), ("second", [])):
        arguments = ["decode", folder, tmp_path / name, "--decoder", "wavenet", "--jobs", "2"]
        done = process(*arguments, *model, env=environment)
        assert (done.returncode, done.stderr.splitlines()) == (0, shown)
