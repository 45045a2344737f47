from __future__ import annotations

import io
import itertools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import save_tiny_model
from hypothesis import given
from hypothesis import strategies as st
from vqcodec_cli.main import main

from vqcodec import Codes
from vqcodec.data.labels import read_labels
from vqcodec.errors import CodesError
from vqcodec.units import NOBODY, Units, json_line, npy_bytes, text_line, textgrid

FINGERPRINT = bytes(range(8))


def codes_of(rows: list[list[int]], *, hop_length: int = 128, n_missing: int = 0) -> Codes:
    """Codes of a recording that lacks some samples of its last code."""
    return Codes(
        np.array(rows),
        codebook_size=512,
        sample_rate=16000,
        hop_length=hop_length,
        fingerprint=FINGERPRINT,
        original_sample_rate=16000,
        n_samples=len(rows[0]) * hop_length - n_missing,
        gain=1.0,
        speaker=NOBODY.vector,
    )


SOME = codes_of([[17, 402, 402, 9]], n_missing=100)


def test_units_are_the_codes() -> None:
    units = Units.of(SOME)
    assert units.units.tolist() == [17, 402, 402, 9]
    assert units.durations.tolist() == [1, 1, 1, 1]
    assert units.frame_rate == 125
    assert units.fingerprint == "0001020304050607"


@given(st.lists(st.integers(0, 3), min_size=1, max_size=50))
def test_collapsed_units_never_repeat_and_expand_to_the_codes(codes: list[int]) -> None:
    units = Units.of(codes_of([codes]), collapse=True)
    assert (np.diff(units.units) != 0).all()
    assert np.repeat(units.units, units.durations).tolist() == codes


def test_several_codebooks_are_refused() -> None:
    with pytest.raises(CodesError, match=r"has 2 codes at a time.*a model with one codebook"):
        Units.of(codes_of([[1, 2], [3, 4]]))


def test_a_line_of_text_is_as_fairseq_has_it() -> None:
    assert text_line("a/b", Units.of(SOME)) == "a/b|17 402 402 9\n"
    assert text_line("a/b", Units.of(SOME, collapse=True)) == "a/b|17 402 9|1 2 1\n"
    for name in ("a|b", "a\nb"):
        with pytest.raises(CodesError, match=r"cannot stand in a \.txt; write \.jsonl"):
            text_line(name, Units.of(SOME))


def test_a_line_of_json() -> None:
    record = {"audio": "ä.wav", "units": [17, 402, 402, 9], "frame_rate": 125.0}
    record["model"] = "0001020304050607"
    assert json.loads(json_line("ä.wav", Units.of(SOME))) == record
    collapsed = json.loads(json_line("ä.wav", Units.of(SOME, collapse=True)))
    assert collapsed == record | {"units": [17, 402, 9], "durations": [1, 2, 1]}


def test_an_array() -> None:
    def loaded(units: Units) -> list[Any]:
        return list(np.load(io.BytesIO(npy_bytes(units)), allow_pickle=False).tolist())

    assert loaded(Units.of(SOME)) == [17, 402, 402, 9]
    assert loaded(Units.of(SOME, collapse=True)) == [[17, 402, 9], [1, 2, 1]]


def test_a_textgrid_as_praat_writes_it() -> None:
    # 3 codes of 40 ms, the last one cut short by 20 ms.
    units = Units.of(codes_of([[7, 7, 5]], hop_length=640, n_missing=320), collapse=True)
    assert textgrid(units.intervals(), tier='"u"') == "\n".join(
        [
            'File type = "ooTextFile"',
            'Object class = "TextGrid"',
            "",
            "xmin = 0",
            "xmax = 0.1",
            "tiers? <exists>",
            "size = 1",
            "item []:",
            "    item [1]:",
            '        class = "IntervalTier"',
            '        name = """u"""',
            "        xmin = 0",
            "        xmax = 0.1",
            "        intervals: size = 2",
            "        intervals [1]:",
            "            xmin = 0",
            "            xmax = 0.08",
            '            text = "7"',
            "        intervals [2]:",
            "            xmin = 0.08",
            "            xmax = 0.1",
            '            text = "5"',
            "",
        ]
    )


@given(st.lists(st.integers(0, 3), min_size=1, max_size=50), st.integers(0, 127), st.booleans())
def test_intervals_cover_the_recording(codes: list[int], n_missing: int, collapse: bool) -> None:
    made = codes_of([codes], n_missing=n_missing)
    intervals = Units.of(made, collapse=collapse).intervals()
    assert intervals[0].start == 0
    assert intervals[-1].end == made.duration_s
    for before, after in itertools.pairwise(intervals):
        assert before.start < before.end == after.start
    assert intervals[-1].start < intervals[-1].end


def test_units_need_no_torch() -> None:
    program = "import sys, vqcodec.units; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)


# The command


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
        (1, "would be called speech, and so would", [codes, other]),
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
