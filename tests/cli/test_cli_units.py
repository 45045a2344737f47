"""vqcodec units, and decode of what it wrote."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_line import Run, is_one_line
from tiny_models import save_tiny_model

from vqcodec import Codes, audio
from vqcodec.data.labels import read_labels
from vqcodec.inference.units import Units, json_line, npy_bytes, text_line


@pytest.fixture
def codes(run: Run, speech: Path, tiny_model: Path, tmp_path: Path) -> Path:
    path = tmp_path / "made" / "speech.codes"
    path.parent.mkdir()
    assert run("encode", speech, path, "--model", tiny_model).status == 0
    return path


def test_a_recording_and_its_code_file_give_the_same_line(
    run: Run, speech: Path, codes: Path, tiny_model: Path, tmp_path: Path
) -> None:
    expected = Codes.load(codes).codes[0]
    of_recording = run("units", speech, "--model", tiny_model)
    assert of_recording.status == 0
    assert of_recording.stdout == f"speech|{' '.join(map(str, expected))}\n"
    assert run("units", codes) == of_recording
    target = tmp_path / "out.txt"
    written = run("units", speech, "-o", target, "--model", tiny_model)
    assert written.stdout == f"{speech} → {target}  {audio.info(speech).duration_s:.2f} s\n"
    assert target.read_text() == of_recording.stdout


@pytest.mark.parametrize("options", [[], ["--dedup"]])
def test_every_format_holds_the_units(
    run: Run, codes: Path, tmp_path: Path, options: list[str]
) -> None:
    units = Units.of(Codes.load(codes), collapse=bool(options))
    files = [tmp_path / f"out.{ending}" for ending in ("txt", "jsonl", "npy", "TextGrid")]
    for file in files:
        assert run("units", codes, "-o", file, *options).status == 0
    text, json_lines, array, grid = files
    assert text.read_text() == text_line("speech", units)
    assert json_lines.read_text() == json_line(str(codes), units)
    assert array.read_bytes() == npy_bytes(units)
    (intervals,) = read_labels(grid).values()
    assert [interval.label for interval in intervals] == [str(unit) for unit in units.units]
    assert intervals[-1].end == pytest.approx(units.duration_s)


def test_a_folder_gives_its_recordings_and_reports_what_fails(
    run: Run, speech: Path, codes: Path, tiny_model: Path, tmp_path: Path
) -> None:
    root, output = tmp_path / "in", tmp_path / "out.txt"
    (root / "deep").mkdir(parents=True)
    for name in ("b.wav", "deep/a.wav"):
        (root / name).write_bytes(speech.read_bytes())
    (root / "b.codes").write_bytes(codes.read_bytes())
    (root / "bad.wav").write_bytes(b"no audio")
    result = run("units", root, "--model", tiny_model, "-o", output)
    assert (result.status, is_one_line(result)) == (1, True)
    assert result.stderr.startswith(f"vqcodec: {root / 'bad.wav'}: ")
    lines = output.read_text().splitlines()
    assert [line.split("|")[0] for line in lines] == ["b", "deep/a"]


def test_a_folder_of_code_files_needs_no_model(
    run: Run, codes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vqcodec_cli.units.load_codec", None)
    result = run("units", codes.parent)
    assert result.status == 0
    assert result.stdout.startswith("speech|")


def test_what_cannot_be_written_is_refused(run: Run, codes: Path, tmp_path: Path) -> None:
    other, second = tmp_path / "speech.codes", tmp_path / "second.codes"
    for copy in (other, second):
        copy.write_bytes(codes.read_bytes())
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
        result = run("units", *arguments)
        assert (result.status, is_one_line(result)) == (status, True)
        assert fault in result.stderr
    assert existing.read_text() == "mine"
    assert run("units", codes, "-o", existing, "--force").status == 0
    assert existing.read_text().startswith("speech|")


def test_units_of_two_models_do_not_mix(
    run: Run, speech: Path, codes: Path, tmp_path: Path
) -> None:
    model = tmp_path / "other.safetensors"
    save_tiny_model(model, seed=1)
    recording = tmp_path / "recording.wav"
    recording.write_bytes(speech.read_bytes())
    result = run("units", codes, recording, "--model", model)
    assert (result.status, result.stdout.count("\n")) == (1, 1)
    assert f"{codes}: these codes were made by model " in result.stderr
    # Nor where each was found with the model that it needs.
    result = run("units", recording, codes)
    assert result.status == 1
    assert f"{codes}: its units are of model " in result.stderr


def test_a_file_of_units_is_decoded(
    run: Run, codes: Path, tiny_model: Path, tmp_path: Path
) -> None:
    said, options = [], ["--speaker", "p225", "--model", tiny_model]
    for number, arguments in enumerate((["a.txt"], ["b.jsonl", "--dedup"], ["c.npy", "--dedup"])):
        file, *dedup = arguments
        assert run("units", codes, "-o", tmp_path / file, *dedup).status == 0
        target = tmp_path / f"{number}.wav"
        assert run("decode", tmp_path / file, target, *options).status == 0
        said.append(target.read_bytes())
    assert said[0] == said[1] == said[2]
    n_codes = Codes.load(codes).n_codes
    assert audio.info(tmp_path / "0.wav").n_samples == n_codes * 128
    for status, fault, more in (
        (2, "units do not tell who speaks: give --speaker", []),
        (1, "0.wav: exists; add --force", options),
        (1, "these units were made by model ", [*options[:2], "--model", "speech-1k", "--force"]),
    ):
        result = run("decode", tmp_path / "b.jsonl", tmp_path / "0.wav", *more)
        assert (result.status, is_one_line(result)) == (status, True)
        assert fault in result.stderr


def test_a_file_of_many_recordings_makes_a_folder(
    run: Run, tiny_model: Path, tmp_path: Path
) -> None:
    file, target = tmp_path / "units.txt", tmp_path / "out"
    file.write_text("deep/a|1 2 2 3\nb|4 600\nc|7 7|1 2\n")
    options = ["--speaker", "p225", "--model", tiny_model]
    result = run("decode", file, target, *options)
    done, place = result.stdout.splitlines()
    assert (result.status, done) == (1, "2 done, 0 already there, 1 failed")
    assert place.startswith(f"→ {target}  0.0")
    fault = "b: codes must be below the codebook size 512"
    assert result.stderr.startswith(f"vqcodec: {file}: {fault}")
    made = {path.relative_to(target).as_posix() for path in target.rglob("*.wav")}
    assert made == {"deep/a.wav", "c.wav"}
    assert audio.info(target / "c.wav").n_samples == 3 * 128
    file.write_text("a|1 2 2 3\na.wav/b|4 4\n")
    result = run("decode", file, tmp_path / "within", *options)
    assert result.status == 1
    assert "a.wav/b.wav would be in a file" in result.stderr
    assert not (tmp_path / "within").exists()
    file.write_text("a|1 2 2 3\nb|4 4\nc|7 7|1 2\n")
    result = run("decode", file, tmp_path / "one.wav", *options)
    assert result.status == 1
    assert "has 3 recordings; name a folder" in result.stderr
