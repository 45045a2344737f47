"""Many files: several at a time, under names of their own, and what remains of runs that end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
from command_line import Run, contents, is_one_line
from recordings import SAMPLES
from vqcodec_cli.batch import CODES_SUFFIXES, distinct_names, sources_and_target
from vqcodec_cli.unfinished import Line, Unfinished

from vqcodec import Codes
from vqcodec.audio.writing import create, nearest_rate
from vqcodec.errors import VqcodecError
from vqcodec.files import AUDIO_SUFFIXES, write_atomically

# Names


def test_names_keep_the_suffix_that_tells_them_apart() -> None:
    def told(*names: str) -> list[str]:
        paths = {Path(name): Path(name) for name in names}
        return [name.as_posix() for name in distinct_names(paths).values()]

    assert told("a.wav", "b.wav", "deep/a.wav") == ["a", "b", "deep/a"]
    assert told("a.wav", "a.mp3", "b.wav") == ["a.wav", "a.mp3", "b"]
    # What one keeps may be what another one would be called.
    assert told("a.wav", "a.mp3", "a.wav.flac") == ["a.wav", "a.mp3", "a.wav.flac"]


def test_recordings_of_one_stem_have_a_name_each(
    run: Run, recordings: Path, tiny_model: Path, tmp_path: Path
) -> None:
    speech, rate = soundfile.read(recordings / "b.wav", dtype="int16")
    soundfile.write(recordings / "a.flac", speech, rate)
    (recordings / "e.wav").unlink()
    model = ["--model", tiny_model]
    codes, wavs, voices = (tmp_path / name for name in ("codes", "wavs", "voices"))
    expected = {"a.wav", "a.flac", "b", "c", "deep/d"}
    for _ in range(2):
        assert run("encode", recordings, codes, *model).status == 0
        assert {name.removesuffix(".codes") for name in contents(codes)} == expected
        (codes / "a.wav.codes").unlink()  # whatever is there already, its name is the same
    assert run("encode", recordings, codes, *model).status == 0
    assert Codes.load(codes / "a.flac.codes") == Codes.load(codes / "b.codes")
    assert run("decode", codes, wavs, *model).status == 0
    assert {name.removesuffix(".wav") for name in contents(wavs)} == expected
    convert = run("convert", recordings, "--speaker", "anna", "-o", voices, *model)
    assert convert.status == 0
    assert {name.removesuffix(".wav") for name in contents(voices)} == expected
    lines = run("units", recordings, *model).stdout.splitlines()
    assert {line.split("|")[0] for line in lines} == expected


def test_files_of_one_name_from_two_folders_are_refused(
    run: Run, recordings: Path, tiny_model: Path, tmp_path: Path
) -> None:
    (tmp_path / "a.wav").write_bytes((recordings / "a.wav").read_bytes())
    arguments = [tmp_path / "a.wav", recordings / "a.wav", tmp_path / "out"]
    result = run("encode", *arguments, "--model", tiny_model)
    assert (result.status, is_one_line(result)) == (1, True)
    assert "rename one" in result.stderr
    assert not (tmp_path / "out").exists()


# Sources and targets


@pytest.mark.parametrize(
    ("paths", "n_sources"),
    [
        (["a.wav"], 1),
        (["a.wav", "b.wav"], 2),
        (["a.wav", "new.wav"], 2),  # and then said to be missing
        (["a.wav", "odd"], 2),
        (["a.wav", "new"], 1),
        (["a.wav", "new.codes"], 1),
        (["a.wav", "old.codes"], 1),
        (["a.wav", "b.wav", "new"], 2),
        (["a.wav", "-"], 1),
        (["-", "-"], 1),
        (["folder", "other"], 1),
        (["folder", "new"], 1),
        (["a.wav", "album.wav"], 1),
    ],
)
def test_the_last_argument_is_the_target_unless_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, paths: list[str], n_sources: int
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a.wav", "b.wav", "odd", "old.codes"):
        Path(name).touch()
    for name in ("folder", "other", "album.wav"):
        Path(name).mkdir()
    sources, target = sources_and_target(paths, AUDIO_SUFFIXES, CODES_SUFFIXES)
    assert sources == paths[:n_sources]
    assert target == (paths[-1] if n_sources < len(paths) else None)


def test_targets_lie_beside_their_sources(
    run: Run, recordings: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(recordings)
    model = ["--model", tiny_model]
    encoded = run("encode", "a.wav", *model)
    assert encoded.status == 0
    size = Path("a.codes").stat().st_size
    rate = size * 8 / 0.1875 / 1000
    assert encoded.stdout == f"a.wav → a.codes  0.19 s, {size} bytes, {rate:.2f} kbit/s\n"
    original = Path("a.wav").read_bytes()
    refused = run("decode", "a.codes", *model)
    assert (refused.status, is_one_line(refused)) == (1, True)
    assert "a.wav: exists; add --force to overwrite it, or name another target" in refused.stderr
    assert Path("a.wav").read_bytes() == original
    assert run("decode", "a.codes", "b.flac", *model).stdout == "a.codes → b.flac  0.19 s\n"
    Path("a.wav").unlink()
    assert run("decode", "a.codes", "--quiet", *model).stdout == ""
    assert Path("a.wav").is_file()
    folder = run("decode", ".", *model)
    assert (folder.status, is_one_line(folder)) == (2, True)
    assert "the sound of a folder needs one of its own: name it last" in folder.stderr


def test_several_files_are_done_and_continued_like_a_folder(
    run: Run, recordings: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(recordings)
    model = ["--model", tiny_model]
    first = run("encode", "a.wav", "b.wav", *model)
    assert first.stdout.startswith("2 done, 0 already there, 0 failed\n→ .  0.43 s, ")
    second = run("encode", "a.wav", "b.wav", "c.wav", *model)
    assert second.stdout.startswith("1 done, 2 already there (--force makes them anew), 0 failed\n")
    into = run("encode", "a.wav", "b.wav", tmp_path / "new", *model)
    assert into.status == 0
    assert sorted(contents(tmp_path / "new")) == ["a.codes", "b.codes"]
    assert run("encode", "c.wav", tmp_path / "new", *model).status == 0
    assert (tmp_path / "new" / "c.codes").is_file()
    converted = run("convert", "a.wav", "b.wav", "--speaker", "anna", *model)
    assert converted.status == 0
    assert {"a.anna.wav", "b.anna.wav"} < set(contents(recordings))
    one = run("encode", "a.wav", "b.wav", "c.codes", *model)
    assert (one.status, is_one_line(one)) == (1, True)
    assert "c.codes: no folder, and 2 are to be read; name a folder" in one.stderr
    stream = run("encode", "-", "a.wav", *model)
    assert (stream.status, is_one_line(stream)) == (1, True)


def test_nothing_but_data_goes_where_data_goes(
    run: Run, recordings: Path, tiny_model: Path
) -> None:
    model = ["--model", tiny_model]
    assert run("encode", recordings / "a.wav", *model).status == 0
    encoded = run("encode", recordings / "a.wav", "-", *model)
    assert (encoded.data, encoded.stderr) == ((recordings / "a.codes").read_bytes(), "")


def test_an_arrow_is_shown_where_the_encoding_has_none(recordings: Path) -> None:
    (recordings / "a.wav").rename(recordings / "ä.wav")
    command = [sys.executable, "-m", "vqcodec", "encode", "ä.wav"]
    environment = {**os.environ, "PYTHONIOENCODING": "latin-1"}
    done = subprocess.run(command, cwd=recordings, env=environment, capture_output=True, check=True)
    assert done.stdout.startswith("ä.wav -> ä.codes  0.19 s, ".encode("latin-1"))


# Rates


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg", ".opus", ".mp3"])
def test_the_nearest_rate_is_one_that_can_be_written(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"x{suffix}"
    for rate in (1000, 7999, 16_000, 22_050, 44_100, 65_537, 96_000, 200_001, 768_000):
        nearest = nearest_rate(path, rate)
        with create(path, sample_rate=nearest, n_samples=4000) as file:
            file.write(np.zeros(4000, np.int16))
        assert soundfile.info(path).samplerate == nearest
        assert nearest_rate(path, nearest) == nearest
    assert nearest_rate("x.opus", 44_100) == nearest_rate("x.mp3", 96_000) == 48_000
    assert nearest_rate("x.wav", 44_101) == 44_101


def test_a_format_without_the_rate_of_a_recording_has_the_nearest(
    run: Run, recordings: Path, tiny_model: Path
) -> None:
    speech, _ = soundfile.read(recordings / "a.wav", dtype="int16")
    source, target = recordings / "cd.wav", recordings / "cd.opus"
    soundfile.write(source, speech, 44_100)
    options = ["--speaker", "anna", "--model", tiny_model]
    result = run("convert", source, "-o", target, *options)
    assert (result.status, is_one_line(result)) == (0, True)
    assert "cd.opus: cannot hold the 44100 Hz of the recording; it has 48000 Hz" in result.stderr
    assert soundfile.info(target).samplerate == 48_000
    refused = run("convert", source, "-o", target, "--force", "--sample-rate", "44100", *options)
    assert (refused.status, is_one_line(refused)) == (1, True)
    assert "choose a sample rate of 48000 Hz or write a .wav" in refused.stderr
    assert run("convert", source, "--sample-rate", "8000", *options).status == 0
    assert soundfile.info(recordings / "cd.anna.wav").samplerate == 8000


# What remains of runs that end


def test_what_a_killed_process_left_is_removed_and_what_a_live_one_has_is_not(
    tmp_path: Path,
) -> None:
    script = """
import sys, time
from vqcodec.files import AUDIO_SUFFIXES, replacing
with replacing(sys.argv[1]):
    print("begun", flush=True)
    time.sleep(60)
"""
    names = [f".vqcodec-{'0' * 32}.txt", ".vqcodec-mine.txt"]
    for name in names:
        (tmp_path / name).touch()
    command = [sys.executable, "-c", script, str(tmp_path / "x.txt")]
    children = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(2)]
    for child in children:
        assert child.stdout is not None
        assert child.stdout.readline() == b"begun\n"
    assert not (tmp_path / names[0]).exists()  # the first of them has seen it
    children[0].kill()
    children[0].wait()
    assert len(list(tmp_path.glob(".vqcodec-*"))) == 3
    write_atomically(tmp_path / "y.txt", b"whole")
    assert len(list(tmp_path.glob(".vqcodec-*"))) == 2
    assert (tmp_path / names[1]).exists()
    children[1].kill()
    for child in children:
        child.communicate()


def test_units_go_on_where_they_stopped(
    run: Run, recordings: Path, tiny_model: Path, tmp_path: Path
) -> None:
    whole, output = tmp_path / "whole.txt", tmp_path / "units.txt"
    beside = tmp_path / "units.txt.unfinished"
    model = ["--model", tiny_model]
    assert run("units", recordings, "-o", whole, *model).status == 0
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["whole.txt"]
    good = (recordings / "c.wav").read_bytes()
    (recordings / "c.wav").write_bytes(b"no audio")
    first = run("units", recordings, "-o", output, *model)
    assert (first.status, first.stdout) == (1, f"4 done, 0 already there, 1 failed\n→ {output}\n")
    assert output.read_text().count("\n") == 4
    (recordings / "c.wav").write_bytes(good)
    other = run("units", recordings, "-o", output, "--dedup", *model)
    assert (other.status, is_one_line(other)) == (1, True)
    assert "was begun with other options" in other.stderr
    beside.write_bytes(beside.read_bytes() + b'["torn')
    os.utime(recordings / "e.wav", ns=(1, 1))
    second = run("units", recordings, "-o", output, *model)
    assert (second.status, second.stdout.split(" (")[0]) == (0, "2 done, 3 already there")
    assert output.read_bytes() == whole.read_bytes()
    assert not beside.exists()
    assert run("units", recordings, "-o", output, *model).status == 1  # it is finished


def test_lines_are_kept_at_once(tmp_path: Path) -> None:
    source = tmp_path / "a.wav"
    source.touch()
    options: dict[str, str | bool | None] = {"model": None, "dedup": True}
    kept = Unfinished(tmp_path / "u.txt", options, force=False)
    line = Line("0001", "ä|1\n".encode("latin-1"))
    kept.add(str(source), line)
    again = Unfinished(tmp_path / "u.txt", options, force=False)
    assert again.lines == {str(source): line}
    assert Unfinished(tmp_path / "u.txt", options, force=True).lines == {}
    (tmp_path / "u.txt.unfinished").write_bytes(b"\xff mine")
    with pytest.raises(VqcodecError, match=r"u\.txt\.unfinished: is no file that an earlier run"):
        Unfinished(tmp_path / "u.txt", options, force=False)


# Being ended


def test_a_terminated_folder_leaves_no_process_and_nothing_half_done(
    recordings: Path, packaged: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    speech, rate = soundfile.read(SAMPLES / "rms.wav", dtype="int16")
    for name in ("a.wav", "b.wav", "c.wav"):
        soundfile.write(recordings / name, np.tile(speech, 10), rate)
    command = [sys.executable, "-m", "vqcodec", "convert", recordings, "-o", out, "--jobs", "2"]
    options = ["--speaker", "anna", "--decoder", "wavenet", "--model", packaged]
    with subprocess.Popen(
        [str(word) for word in (*command, *options)], start_new_session=True
    ) as main:
        while not (out.is_dir() and any(out.iterdir())):
            assert main.poll() is None
            time.sleep(0.05)
        main.terminate()
        assert main.wait() == 128 + signal.SIGTERM
        with pytest.raises(ProcessLookupError):
            os.killpg(main.pid, 0)  # none of its session is left
    assert not [path for path in out.rglob("*") if path.name.startswith(".vqcodec-")]
