"""vqcodec units, and decode of what it wrote."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import save_tiny_model
from vqcodec_cli.main import main

from vqcodec import Codes, audio
from vqcodec.data.labels import read_labels
from vqcodec.inference.units import Units, json_line, npy_bytes, text_line


@pytest.fixture(autouse=True)
def _own_settings_folder(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.mktemp("settings")))


@pytest.fixture
def codes(speech: Path, tiny_model: Path, tmp_path: Path) -> Path:
    path = tmp_path / "made" / "speech.codes"
    path.parent.mkdir()
    arguments = ["encode", speech, path, "--model", tiny_model]
    assert main([str(argument) for argument in arguments]) == 0
    return path


def units_command(*arguments: object) -> int:
    return main(["units", *map(str, arguments)])


def test_a_recording_and_its_code_file_give_the_same_line(
    speech: Path, codes: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = Codes.load(codes).codes[0]
    assert units_command(speech, "--model", tiny_model) == 0
    line = capsys.readouterr().out
    assert line == f"speech|{' '.join(map(str, expected))}\n"
    assert units_command(codes) == 0
    assert capsys.readouterr().out == line


@pytest.mark.parametrize("dedup", [False, True])
def test_every_format_holds_the_units(codes: Path, tmp_path: Path, dedup: bool) -> None:
    units = Units.of(Codes.load(codes), collapse=dedup)
    files = [tmp_path / f"out.{ending}" for ending in ("txt", "jsonl", "npy", "TextGrid")]
    for file in files:
        assert units_command(codes, "-o", file, *["--dedup"][: int(dedup)]) == 0
    text, json_lines, array, grid = files
    assert text.read_text() == text_line("speech", units)
    assert json_lines.read_text() == json_line(str(codes), units)
    assert array.read_bytes() == npy_bytes(units)
    (intervals,) = read_labels(grid).values()
    assert [interval.label for interval in intervals] == [str(unit) for unit in units.units]
    assert intervals[-1].end == pytest.approx(units.duration_s)


def test_a_folder_gives_its_recordings_and_reports_what_fails(
    speech: Path, codes: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, output = tmp_path / "in", tmp_path / "out.txt"
    (root / "deep").mkdir(parents=True)
    for name in ("b.wav", "deep/a.wav"):
        (root / name).write_bytes(speech.read_bytes())
    (root / "b.codes").write_bytes(codes.read_bytes())
    (root / "bad.wav").write_bytes(b"no audio")
    assert units_command(root, "--model", tiny_model, "-o", output) == 1
    lines = output.read_text().splitlines()
    assert [line.split("|")[0] for line in lines] == ["b", "deep/a"]
    error = capsys.readouterr().err
    assert error.startswith(f"vqcodec: {root / 'bad.wav'}: ")
    assert error.count("\n") == 1


def test_a_folder_of_code_files_needs_no_model(
    codes: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vqcodec_cli.units.load_codec", None)
    assert units_command(codes.parent) == 0
    assert capsys.readouterr().out.startswith("speech|")


def test_what_cannot_be_written_is_refused(
    codes: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "speech.codes"
    other.write_bytes(codes.read_bytes())
    second = tmp_path / "second.codes"
    second.write_bytes(codes.read_bytes())
    existing = tmp_path / "there.txt"
    existing.write_text("mine")
    empty = tmp_path / "empty"
    empty.mkdir()
    for status, fault, arguments in (
        (2, r"x.csv: must end in .txt, .jsonl, .npy or .TextGrid", [codes, "-o", "x.csv"]),
        (2, "takes one recording, not 2", [codes, second, "-o", tmp_path / "x.npy"]),
        (2, "takes one recording, not 2", [codes, second, "-o", tmp_path / "x.TextGrid"]),
        (1, "would be called speech.codes, and so would", [codes, other]),
        (1, "exists; add --force", [codes, "-o", existing]),
        (1, "holds neither recordings nor .codes files", [empty]),
    ):
        assert units_command(*arguments) == status, fault
        error = capsys.readouterr().err
        assert fault in error
        assert error.count("\n") == 1
    assert existing.read_text() == "mine"
    assert units_command(codes, "-o", existing, "--force") == 0
    assert existing.read_text().startswith("speech|")


def test_units_of_two_models_do_not_mix(
    speech: Path, codes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tmp_path / "other.safetensors"
    save_tiny_model(model, seed=1)
    recording = tmp_path / "recording.wav"
    recording.write_bytes(speech.read_bytes())
    assert units_command(codes, recording, "--model", model) == 1
    found = capsys.readouterr()
    assert found.out.count("\n") == 1
    assert f"{codes}: these codes were made by model " in found.err
    # Nor where each was found with the model that it needs.
    assert units_command(recording, codes) == 1
    assert f"{codes}: its units are of model " in capsys.readouterr().err


def decode_command(*arguments: object) -> int:
    return main(["decode", *map(str, arguments)])


def test_a_file_of_units_is_decoded(
    codes: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said, options = [], ["--speaker", "p225", "--model", tiny_model]
    for number, arguments in enumerate((["a.txt"], ["b.jsonl", "--dedup"], ["c.npy", "--dedup"])):
        file, *dedup = arguments
        assert units_command(codes, "-o", tmp_path / file, *dedup) == 0
        target = tmp_path / f"{number}.wav"
        assert decode_command(tmp_path / file, target, *options) == 0
        said.append(target.read_bytes())
    assert said[0] == said[1] == said[2]
    n_codes = Codes.load(codes).n_codes
    assert audio.info(tmp_path / "0.wav").n_samples == n_codes * 128
    capsys.readouterr()
    for status, fault, more in (
        (2, "units do not tell who speaks: give --speaker", []),
        (1, "0.wav: exists; add --force", options),
        (1, "these units were made by model ", [*options[:2], "--model", "speech-1k", "--force"]),
    ):
        assert decode_command(tmp_path / "b.jsonl", tmp_path / "0.wav", *more) == status
        error = capsys.readouterr().err
        assert fault in error
        assert error.count("\n") == 1


def test_a_file_of_many_recordings_makes_a_folder(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, target = tmp_path / "units.txt", tmp_path / "out"
    file.write_text("deep/a|1 2 2 3\nb|4 600\nc|7 7|1 2\n")
    options = ["--speaker", "p225", "--model", tiny_model]
    assert decode_command(file, target, *options) == 1
    assert {str(path.relative_to(target)) for path in target.rglob("*.wav")} == {
        "deep/a.wav",
        "c.wav",
    }
    assert audio.info(target / "c.wav").n_samples == 3 * 128
    found = capsys.readouterr()
    assert found.err.startswith(f"vqcodec: {file}: b: codes must be below the codebook size 512")
    assert found.out == "2 done, 0 already there, 1 failed\n"
    file.write_text("a|1 2 2 3\na.wav/b|4 4\n")
    assert decode_command(file, tmp_path / "within", *options) == 1
    assert "a.wav/b.wav would be in a file" in capsys.readouterr().err
    assert not (tmp_path / "within").exists()
    file.write_text("a|1 2 2 3\nb|4 4\nc|7 7|1 2\n")
    assert decode_command(file, tmp_path / "one.wav", *options) == 1
    assert "has 3 recordings; name a folder" in capsys.readouterr().err
