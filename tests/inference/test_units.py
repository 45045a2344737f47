from __future__ import annotations

import io
import itertools
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vqcodec import Codes, load
from vqcodec.errors import CodesError
from vqcodec.format.textgrid import textgrid
from vqcodec.inference.units import NOBODY, Units, json_line, npy_bytes, read_units, text_line

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


# And back


@pytest.mark.parametrize("collapse", [False, True])
def test_what_is_written_is_read(tmp_path: Path, collapse: bool) -> None:
    units = Units.of(SOME, collapse=collapse)
    files = {
        ".txt": text_line("deep/a", units).encode(),
        ".jsonl": json_line("/x/deep/a.wav", units).encode(),
        ".npy": npy_bytes(units),
    }
    names = {".txt": "deep/a", ".jsonl": "a", ".npy": "in"}
    for suffix, data in files.items():
        path = tmp_path / f"in{suffix}"
        path.write_bytes(data)
        ((name, found),) = read_units(path).items()
        assert name == names[suffix]
        assert found.units.tolist() == [17, 402, 402, 9]
        assert found.fingerprint == (FINGERPRINT if suffix == ".jsonl" else None)


def test_recordings_are_called_what_tells_them_apart(tmp_path: Path) -> None:
    path = tmp_path / "many.jsonl"
    units = Units.of(SOME)
    path.write_text("".join(json_line(name, units) for name in ("in/a/1.wav", "in/b/1.wav")))
    assert list(read_units(path)) == ["a/1", "b/1"]
    path = path.with_suffix(".txt")
    path.write_text("1 2\n\n3 3\n")
    assert {name: found.units.tolist() for name, found in read_units(path).items()} == {
        "many-1": [1, 2],
        "many-2": [3, 3],
    }


PLAIN = " ".join(map(str, range(300)))


@pytest.mark.parametrize(
    ("name", "data", "fault"),
    [
        ("a.csv", "", "no file of units; name a .txt, .jsonl or .npy"),
        ("a.txt", "", "holds no units"),
        ("a.txt", "a|1 x", "invalid literal"),
        ("a.txt", "a|1.5", "invalid literal"),
        ("a.txt", "a|", "units are whole numbers"),
        ("a.txt", "a|1 2|1", "1 durations of 1 code or more for 2 units"),
        ("a.txt", "a|1 2|0 1", "2 durations of 1 code or more"),
        ("a.txt", "a|1|1000000000000", "durations"),
        ("a.txt", f"a|1 2|{2**62} {2**62}", "durations"),
        ("a.txt", "a|1|1|1", "line 1 has more than"),
        ("a.txt", "a|1\na|2", "two recordings are called a"),
        ("a.txt", "a|1\n./a|2", "two recordings are called ./a"),
        ("a.txt", "../a|1", "'../a' cannot name a file"),
        ("a.txt", "/a|1", "'/a' cannot name a file"),
        ("a.txt", PLAIN, "repeats were collapsed, and there are no durations: add these"),
        ("a.txt", "9" * 30, "units are whole numbers|too large"),
        ("a.jsonl", "[1]", "cannot be read"),
        ("a.jsonl", "{}", "'units'"),
        ("a.jsonl", '{"units": [1, 2.5]}', "units are whole numbers"),
        ("a.jsonl", '{"units": [1], "model": "x"}', "fromhex"),
        ("a.jsonl", '{"units": [1], "audio": 5}', "cannot be read"),
        ("a.npy", np.zeros((3, 4), int), "3 rows, not one of units or two"),
        ("a.npy", np.zeros(3), "units are whole numbers"),
        ("a.npy", np.array([1, None], object), "Python objects"),
        ("a.npy", "no array", "cannot be read"),
    ],
)
def test_what_are_no_units_is_refused(
    tmp_path: Path, name: str, data: str | np.ndarray, fault: str
) -> None:
    path = tmp_path / name
    if isinstance(data, str):
        path.write_text(data)
    else:
        np.save(path, data)
    with pytest.raises(CodesError, match=fault) as refused:
        read_units(path)
    assert str(refused.value).startswith(f"{path}: ")
    assert "\n" not in str(refused.value)
    with pytest.raises(CodesError, match=r"absent\.txt: cannot be read \(No such file"):
        read_units(tmp_path / "absent.txt")


def test_an_array_that_claims_more_than_it_holds_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    claim = b"(400000000000,), }"
    path.write_bytes(npy_bytes(Units.of(SOME)).replace(b"(4,), }".ljust(len(claim)), claim))
    with pytest.raises(CodesError, match="cannot be read"):
        read_units(path)


def test_units_need_no_torch() -> None:
    program = "import sys, vqcodec.inference.units; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)


# The codec's own


def test_units_become_the_codes_that_they_were(speech: Path, tiny_model: Path) -> None:
    codec = load(tiny_model)
    read = codec.encode(speech)
    row = read.codes[0]
    for units in (row, row.tolist(), " ".join(map(str, row)), torch.from_numpy(row.astype(int))):
        made = codec.codes(units, speaker="p225", n_samples=read.n_samples, gain=read.gain)
        assert made == replace(read, speaker="p225")
    assert codec.codes(row[None], speaker="p225").n_samples == len(row) * codec.hop_length
    assert len(codec.decode(made)) == read.n_samples


@pytest.mark.parametrize(
    ("units", "options", "fault"),
    [
        ([], {}, "these are no units: units are whole numbers"),
        ([1.5], {}, "units are whole numbers"),
        ("a b", {}, "invalid literal"),
        ([[1], [2]], {}, "units of 2 codebooks, and model tiny has 1"),
        ([1, 512], {}, "below the codebook size 512 and not negative, not 1..512"),
        ([-1], {}, "not -1..-1"),
        ([1, 2], {"n_samples": 5}, "codes must have 1 time steps for 5 samples"),
        ([1], {"gain": 0}, "gain must be"),
    ],
)
def test_what_cannot_be_codes_is_refused(
    tiny_model: Path, units: Any, options: dict[str, Any], fault: str
) -> None:
    with pytest.raises(CodesError, match=fault):
        load(tiny_model).codes(units, speaker="p225", **options)
