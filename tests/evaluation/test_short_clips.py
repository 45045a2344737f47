"""Reports on corpora in which some recordings are too short, or decoded to digital silence."""

from __future__ import annotations

import csv
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from recordings import write_corpus

import vqcodec
from vqcodec.data.corpora import Utterance
from vqcodec.errors import DataError
from vqcodec.evaluation import alignment, comparison, conversion, leakage, quality, reliance
from vqcodec.evaluation.quality import METRICS, SAMPLE_RATE

pytestmark = pytest.mark.usefixtures("in_this_process")

SAMPLES = Path(__file__).parents[2] / "samples"
SHORT = SAMPLE_RATE // 50


def of_what(model: Path) -> dict[str, str]:
    return {"model": str(model), "recognizer": "pocketsphinx"}


def sample(name: str, seconds: float) -> np.ndarray:
    n_samples = round(seconds * SAMPLE_RATE)
    samples, _ = soundfile.read(SAMPLES / f"{name}.wav", n_samples, start=4000, dtype="float32")
    return samples


@pytest.mark.parametrize("n_samples", [1, SHORT, 1023])
def test_nothing_is_measured_of_less_than_a_window(n_samples: int) -> None:
    clip = sample("slt", 1)[:n_samples]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        aligned = alignment.align(clip, clip[:-3]).waveform
        scores = quality.measure(clip, aligned + np.float32(0.01))
    assert aligned.shape == clip.shape
    assert scores.values == {metric.name: None for metric in METRICS}
    assert set(scores.reasons.values()) == {"less than 64 ms"}


@pytest.mark.parametrize("seconds", [0.064, 0.145, 0.285, 0.39])
def test_of_a_short_clip_a_measure_is_a_number_or_absent(seconds: float) -> None:
    clip = sample("slt", seconds)
    found = quality.measure(clip, clip * np.float32(0.9))
    for name, value in found.values.items():
        assert (value is None) == (name in found.reasons), name
        assert value is None or np.isfinite(value), name


def test_digital_silence_has_one_estoi() -> None:
    speech = sample("slt", 3)
    decoded = speech.copy()
    decoded[16000:26000] = 0
    np.random.seed(7)  # noqa: NPY002
    expected = np.random.random(3)  # noqa: NPY002
    np.random.seed(7)  # noqa: NPY002
    first = quality.estoi(speech, decoded)
    assert np.random.random() == expected[0]  # noqa: NPY002
    assert quality.estoi(speech, decoded) == first
    assert list(np.random.random(2)) == list(expected[1:])  # noqa: NPY002


def test_a_report_leaves_a_short_clip_out_of_its_means(tiny_model: Path, tmp_path: Path) -> None:
    speech = sample("slt", 1.2)
    root = write_corpus(tmp_path, {"a": ("anna", speech), "b": ("p225", speech[:SHORT])})
    output = tmp_path.parent / f"{tmp_path.name}-report"
    text = comparison.compare(root, output, baselines=["narrowband"], **of_what(tiny_model))
    rows = list(csv.DictReader((output / "quality.csv").read_text().splitlines()))
    assert len(rows) == 6
    for row in rows:
        values = [row[metric.name] for metric in METRICS if metric.name != "F0 correlation"]
        assert all(values) if row["file"] == "a" else not any(values)
    assert "| 1.000 (1 of 2 files) |" in next(
        line for line in text.splitlines() if line.startswith("| original ")
    )


def test_a_report_on_a_short_clip_alone_has_no_numbers(tiny_model: Path, tmp_path: Path) -> None:
    root = write_corpus(tmp_path, {"b": ("p225", sample("slt", 0.02))})
    output = tmp_path.parent / f"{tmp_path.name}-report"
    text = comparison.compare(root, output, baselines=["narrowband"], **of_what(tiny_model))
    line = next(line for line in text.splitlines() if line.startswith("| narrowband "))
    assert line.count("| - ") == len(METRICS) + 3  # and words
    assert (output / "index.html").is_file()


def test_conversions_of_a_short_clip_count_for_nobody(tiny_model: Path, tmp_path: Path) -> None:
    clips = {"a": ("anna", sample("slt", 2)), "b": ("p225", sample("rms", 2))}
    silence = np.zeros(SAMPLE_RATE, np.float32)
    root = write_corpus(
        tmp_path, {**clips, "c": ("p225", sample("rms", 0.02)), "d": ("anna", silence)}
    )
    output = tmp_path.parent / f"{tmp_path.name}-report"
    conversion.convert_pairs(root, output, speakers=["anna", "p225"], **of_what(tiny_model))
    rows = {
        row["file"]: row
        for row in csv.DictReader((output / "conversion.csv").read_text().splitlines())
    }
    assert rows["a"]["original to target"]
    for name in ("c", "d"):
        numbers = {key: value for key, value in rows[name].items() if key != "undefined"}
        assert sorted(filter(None, numbers.values())) == sorted(
            [name, rows[name]["source"], rows[name]["target"]]
        )
    heard = quality.measure_each(conversion._of_voice(silence, clips["b"][1]))
    assert heard.values == {"embedding": None, "mean pitch": None}
    with pytest.raises(DataError, match="anna: no voice is found in any recording; name other"):
        conversion._person("anna", [])


def test_a_pair_without_a_voice_is_neither_reached_nor_missed() -> None:
    measures = (*conversion._AGAINST_SOURCE, conversion._PITCH_DISTANCE)
    similarities = ("original to target", "to target", "to source")
    names = (*similarities, *measures, "words", "words put in")
    errors = [f"word errors{of}" for of in ("", " of reconstruction", " of original")]
    row = {"source": "a", "target": "b", **dict.fromkeys([*names, *errors])}
    table = conversion._pair([row])
    assert (table["target > source"], table["nearer to target"]) == ("-", "0 of 0")


def test_leakage_leaves_a_short_clip_out_of_its_means(tiny_model: Path, tmp_path: Path) -> None:
    codec = vqcodec.load(tiny_model, device="cpu")
    clips = {"a": ("x", sample("slt", 1)), "b": ("y", sample("rms", 1))}
    write_corpus(tmp_path, {**clips, "c": ("y", sample("rms", 0.02))})
    speakers = {"a": "x", "b": "y", "c": "y"}
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        heard = [
            leakage._listen(codec, Utterance(tmp_path / f"{name}.wav", name, speaker, "test", ""))
            for name, speaker in speakers.items()
        ]
    pairs = [(one.utterance, one.codes) for one in heard]
    found, _ = reliance.measure_reliance(codec, pairs)
    assert {one.n_test for one in found} == {2}
    assert leakage._decoded_cells(found[0], 3)["files"] == "2 of 3"
    another = replace(heard[2].utterance, speaker="x"), heard[2].codes
    with pytest.raises(DataError, match="all its recordings are silent or far too short"):
        reliance.measure_reliance(codec, [pairs[2], another])
