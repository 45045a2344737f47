"""What the command line does with the pitch that codes tell."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command_line import Run, is_one_line
from recordings import spoken, write

from vqcodec import Codes


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return write(tmp_path / "in.wav", spoken("slt", 0.3, 1.5))


@pytest.fixture
def codes(run: Run, clip: Path, told_model: Path, tmp_path: Path) -> Path:
    assert run("encode", clip, tmp_path / "in.codes", "--model", told_model).status == 0
    return tmp_path / "in.codes"


def test_info_tells_of_the_stream(run: Run, codes: Path) -> None:
    told = json.loads(run("info", codes, "--json").stdout)
    assert codes.read_bytes()[4] == 3
    pitch = told["pitch"]
    assert 150 < pitch.pop("mean_hz") < 200
    assert pitch == {
        "symbol_rate": 31.25,
        "nominal_bits_per_second": 187.5,
        "alphabet_size": 64,
        "step_cents": 50,
    }
    assert "symbol rate 31.25" in run("info", codes).stdout.replace("symbol_rate:", "symbol rate")
    assert run("verify", codes).status == 0


def test_units_of_a_recording_need_no_pitch(
    run: Run, clip: Path, codes: Path, told_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vqcodec.audio.pitch_tracker._detector", None)
    told = run("units", clip, "--model", told_model)
    assert (told.status, told.stdout) == (0, run("units", codes).stdout)


def test_pitch_and_melody_change_what_is_heard(
    run: Run, codes: Path, told_model: Path, tmp_path: Path
) -> None:
    heard = set()
    for number, options in enumerate(
        ([], ["--pitch", "3"], ["--pitch", "-3"], ["--melody", "flat"], ["--melody", "1.5"])
    ):
        target = tmp_path / f"{number}.wav"
        told = run("decode", codes, target, "--model", told_model, *options)
        assert (told.status, told.stderr) == (0, "")
        heard.add(target.read_bytes())
    assert len(heard) == 5
    assert len({len(sound) for sound in heard}) == 1


def test_a_conversion_is_encode_and_decode_and_the_same_live(
    run: Run, clip: Path, codes: Path, told_model: Path, tmp_path: Path
) -> None:
    # The voice of a recording, whose pitch is heard.
    friend = write(tmp_path / "friend.wav", spoken("rms", 0.0, 4.5))
    options = ["--speaker", friend, "--pitch", "1", "--model", told_model]
    assert run("decode", codes, tmp_path / "a.wav", *options).status == 0
    assert run("convert", clip, "-o", tmp_path / "b.wav", *options).status == 0
    assert (tmp_path / "a.wav").read_bytes() == (tmp_path / "b.wav").read_bytes()
    live = run("encode", "-", "-", "--model", told_model, stdin=clip.read_bytes())
    assert live.status == 0
    assert list(Codes.from_bytes(live.data).symbols) == ["pitch"]


@pytest.mark.parametrize(
    ("options", "status", "match"),
    [
        (["--pitch", "30"], 2, "--pitch"),
        (["--melody", "sad"], 2, "melody sad: give keep, flat, or a factor such as 1.5"),
        (["--melody", "9"], 2, "a factor from 0 to 4"),
    ],
)
def test_impossible_choices_are_refused(
    run: Run, codes: Path, told_model: Path, options: list[str], status: int, match: str
) -> None:
    told = run("decode", codes, "out.wav", "--model", told_model, *options)
    assert told.status == status
    assert match in told.stderr


def test_what_a_model_cannot_do_is_refused_before_anything_is_read(
    run: Run, tiny_model: Path, told_model: Path, tmp_path: Path
) -> None:
    source, target = tmp_path / "in.wav", tmp_path / "out.wav"
    source.write_text("nothing that can be read")
    for model, options, match in (
        (tiny_model, ["--melody", "flat"], "need a pitch stream, and tiny knows none: choose a"),
        (tiny_model, ["--pitch", "2"], "need a pitch stream, and tiny knows none: choose a"),
        (told_model, ["--pitch", "2"], "it is not known how high anna is"),
    ):
        for source_and_target in (source, "-o", target), ("-", "-o", "-"):
            told = run("convert", *source_and_target, "--speaker", "anna", "--model", model,
                       *options, stdin=b"nothing that can be read")  # fmt: skip
            assert told.status == 1
            assert is_one_line(told)
            assert match in told.stderr
            assert told.data == b""
            assert not target.exists()
