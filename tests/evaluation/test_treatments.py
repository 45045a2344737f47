"""Reports on conditions and generations, and what a codec keeps of its own codes."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from recordings import SAID_S, spoken, write, write_corpus

import vqcodec
from vqcodec import Codec, Codes
from vqcodec.audio import load
from vqcodec.data.corpora import Utterance
from vqcodec.errors import DataError
from vqcodec.evaluation import cache, comparison
from vqcodec.evaluation.degradation import degrade
from vqcodec.evaluation.quality import METRICS, SAMPLE_RATE, Measured, stoi
from vqcodec.evaluation.treatments import Recording, Treatment, babblers, our_label

OURS = our_label("fast")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two recordings to be measured, and six to babble, none with a text."""
    clips = {"a": ("anna", spoken("slt", 0.0, 1.2))}
    for index in range(1, 8):
        clips[f"b{index}"] = "ben", spoken("rms", 0.2 * index, 0.2 * index + 1.2)
    return write_corpus(tmp_path_factory.mktemp("corpus"), clips)


@pytest.fixture
def _quick(in_this_process: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process, and of all measures STOI alone."""

    def measure(reference: np.ndarray, decoded: np.ndarray) -> Measured:
        values: dict[str, Any] = {metric.name: None for metric in METRICS}
        return Measured({**values, "STOI": stoi(reference, decoded)}, {})

    monkeypatch.setattr(comparison, "measure", measure)


def compared(corpus: Path, output: Path, model: Path, **options: Any) -> list[dict[str, str]]:
    comparison.compare(
        corpus, output, model=str(model), limit=1, recognizer="pocketsphinx", **options
    )
    return list(csv.DictReader((output / "quality.csv").read_text().splitlines()))


def table(output: Path) -> list[dict[str, str]]:
    lines = [line for line in (output / "quality.md").read_text().splitlines() if line[:1] == "|"]
    header, _, *rows = ([each.strip() for each in line.strip("|").split("|")] for line in lines)
    return [dict(zip(header, row, strict=True)) for row in rows]


@pytest.mark.usefixtures("_quick")
def test_every_codec_is_measured_in_every_condition(
    corpus: Path, tiny_model: Path, tmp_path: Path
) -> None:
    conditions = ["noise-10", "babble-0", "quiet"]
    output = tmp_path / "report"
    rows = compared(corpus, output, tiny_model, conditions=conditions, baselines=["narrowband"])
    assert [(row["condition"], row["codec"]) for row in rows] == [
        (condition, codec)
        for condition in ("clean", *conditions)
        for codec in ("original", OURS, "narrowband")
    ]
    values = {(row["condition"], row["codec"]): float(row["STOI"]) for row in rows}
    # Scored against the clean recording: noise counts where nothing is coded, too.
    assert values["clean", "original"] == pytest.approx(1)
    assert values["babble-0", "original"] < values["noise-10", "original"] < 0.97
    assert values["quiet", "narrowband"] > 0.95
    lines = table(output)
    assert [line["condition"] for line in lines[::3]] == ["clean", *conditions]
    assert "codes kept (%) ↑" not in lines[0]
    text = (output / "quality.md").read_text()
    assert "Cost of a second of audio: encoder 0." in text
    assert "Algorithmic latency: 241 ms." in text
    # Examples are of what was clean.
    assert len(list((output / "examples").glob("*.wav"))) == 3


@pytest.mark.usefixtures("_quick")
def test_every_generation_is_measured_and_made_once(
    corpus: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worked = []
    encode, decode = Codec.encode, Codec.decode

    def count_encode(*given: Any, **options: Any) -> Codes:
        worked.append("encode")
        return encode(*given, **options)

    def count_decode(*given: Any, **options: Any) -> np.ndarray:
        worked.append("decode")
        return decode(*given, **options)

    monkeypatch.setattr(Codec, "encode", count_encode)
    monkeypatch.setattr(Codec, "decode", count_decode)
    rows = compared(corpus, tmp_path / "report", tiny_model, generations=3)
    assert worked == ["encode", "decode"] * 3
    codecs = ["original", OURS, f"{OURS}, generation 2", f"{OURS}, generation 3"]
    assert [row["codec"] for row in rows] == codecs
    kept = [row["codes kept (%)"] for row in rows]
    assert kept[:2] == ["", ""]
    codec, path = vqcodec.load(tiny_model, device="cpu"), corpus / "a.wav"
    first = codec.encode(path)
    second = codec.encode((SAMPLE_RATE, codec.decode(first, sample_rate=SAMPLE_RATE)))
    share = 100 * (first.codes == second.codes).mean()
    assert float(kept[2]) == pytest.approx(share, rel=1e-5)
    lines = table(tmp_path / "report")
    assert [line["codes kept (%) ↑"] for line in lines[:3]] == ["-", "-", f"{share:.1f}"]
    assert "condition" not in lines[0]


@pytest.mark.usefixtures("_quick")
def test_a_perfect_codec_keeps_all_codes(
    corpus: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = load(corpus / "a.wav", SAMPLE_RATE)
    monkeypatch.setattr(Codec, "decode", lambda _self, _codes, **_options: original)
    rows = compared(corpus, tmp_path / "report", tiny_model, generations=2)
    assert float(rows[-1]["codes kept (%)"]) == 100
    assert float(rows[-1]["STOI"]) == pytest.approx(1)


def test_a_generation_keeps_many_codes_and_the_next_fewer(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", spoken("slt", 0.0, 1.5))
    setup = cache.prepare_setup("speech-1k", "fast", "pocketsphinx")
    recording = Recording(setup, utterance(path), ())
    kept = [recording.treat(Treatment(OURS, generation=n)).codes_kept for n in (1, 2, 3)]
    assert kept[0] is None
    assert 0.2 < kept[2] < kept[1] < 1  # by chance it would be under .02


def utterance(path: Path, name: str = "a", speaker: str = "anna") -> Utterance:
    return Utterance(path, name, speaker, "test", "")


def test_a_condition_is_what_the_codec_hears(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waveform = spoken("rms", 0.0, SAID_S)
    path = write(tmp_path / "a.wav", waveform)
    setup = cache.prepare_setup(str(tiny_model), "fast", "pocketsphinx")
    heard: list[Any] = []
    encode = Codec.encode

    def listen(self: Codec, source: Any, *rest: Any, **options: Any) -> Codes:
        heard.append(source)
        return encode(self, source, *rest, **options)

    monkeypatch.setattr(Codec, "encode", listen)
    recording = Recording(setup, utterance(path), ())
    clean, quiet = (recording.treat(Treatment(OURS, name)) for name in ("clean", "quiet"))
    assert heard[0] == path
    stored = load(path, SAMPLE_RATE)
    assert np.array_equal(heard[1][1], degrade(stored, "quiet", "a"))
    # Turned up again, it is as loud as it was.
    levels = [np.sqrt(np.square(each.coded.waveform).mean()) for each in (clean, quiet)]
    assert levels[1] == pytest.approx(levels[0], rel=0.2)


def test_whatever_is_done_has_a_file_of_its_own(tiny_model: Path, tmp_path: Path) -> None:
    path, other = (write(tmp_path / f"{n}.wav", spoken("rms", 0.0, n)) for n in (1, 2))
    setup = cache.prepare_setup(str(tiny_model), "fast", "pocketsphinx")
    behind = [utterance(path)], [utterance(other)]
    names = {
        Recording(setup, utterance(path), one).stem(treatment)
        for treatment in (
            *(Treatment(OURS), Treatment(OURS, generation=2), Treatment(OURS, "dc")),
            *(
                Treatment("original"),
                Treatment("original", "dc"),
                Treatment("original", "babble-5"),
            ),
        )
        for one in behind
    }
    assert len(names) == 6 + 1  # babble is another with other people


def test_babble_is_of_other_people_and_drawn_by_name() -> None:
    everybody = [
        utterance(Path(), f"{who}{i}", who) for who in ("anna", "ben", "eva") for i in range(6)
    ]
    found = babblers(everybody[0], everybody)
    assert len(set(found)) == 6
    assert {each.speaker for each in found} == {"ben", "eva"}
    assert found == babblers(everybody[0], everybody[::-1])
    assert found != babblers(everybody[1], everybody)
    with pytest.raises(DataError, match="anna0: babble takes 6 recordings of other speakers, and"):
        babblers(everybody[0], everybody[:8])
