"""What probes hear of the voice, on codes of which it is known how much they tell."""

from __future__ import annotations

import csv
import importlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from recordings import spoken, write, write_corpus
from scipy.signal import sawtooth
from vqcodec_cli.main import main

import vqcodec
from vqcodec import Codes
from vqcodec.data.corpora import Utterance
from vqcodec.errors import DataError, VqcodecError
from vqcodec.evaluation import leakage, reliance
from vqcodec.evaluation.leakage import HISTOGRAM, MFCCS, VECTORS
from vqcodec.evaluation.recognition import Recognizer
from vqcodec.evaluation.reliance import Measurement

N_CODES = 250


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two synthesizers with two training and two test recordings each, a third with one."""
    four = "train", "train", "test", "test"
    clips = {}
    for voice, splits in (("slt", four), ("rms", four), ("espeak", ("train",))):
        # Of over a second, as some probes hear.
        for start, split in zip((0.2, 0.7, 1.2, 1.7), splits, strict=False):
            clips[f"{voice}{start}"] = voice, spoken(voice, start, start + 1.6), split
    return write_corpus(tmp_path_factory.mktemp("corpus"), clips)


def clip(
    speaker: str, codes: np.ndarray, vectors: np.ndarray, log_f0: np.ndarray
) -> leakage._Recording:
    metadata = {"codebook_size": 16, "sample_rate": 16000, "hop_length": 128, "gain": 1.0}
    return leakage._Recording(
        Utterance(Path("none.wav"), "none", speaker, "test", ""),
        Codes(
            codes[None],
            fingerprint=bytes(8),
            original_sample_rate=16000,
            n_samples=128 * len(codes),
            speaker=np.zeros(64, np.int8),
            **metadata,
        ),
        frames={VECTORS: vectors, MFCCS: vectors},
        log_f0=log_f0,
    )


def clips(make: Callable[[np.random.Generator, int], leakage._Recording], seed: int) -> list:
    """Twenty recordings of two speakers."""
    rng = np.random.default_rng(seed)
    return [make(rng, index % 2) for index in range(20)]


def values(found: list[Measurement]) -> dict[tuple[str, str], float]:
    return {(one.target, one.given): one.found.value for one in found}


def test_codes_that_name_the_speaker_are_found_out_and_others_are_not() -> None:
    def telling(rng: np.random.Generator, speaker: int) -> leakage._Recording:
        codes = rng.integers(0, 15, N_CODES)
        codes[::5] = 15 * speaker
        # The vectors say nothing.
        return clip("ab"[speaker], codes, rng.standard_normal((N_CODES, 3)), np.zeros(N_CODES))

    train, test = clips(telling, 0), clips(telling, 1)
    found = leakage._speaker_probes(train, test)
    assert {one.chance for one in found} == {0.5}
    assert {(one.target, one.n_train, one.n_test) for one in found} == {
        ("speaker, recording", 20, 20),
        ("speaker, 1 s", 40, 40),
    }
    score = values(found)
    for target in ("speaker, recording", "speaker, 1 s"):
        assert score[target, HISTOGRAM] == 1
        assert score[target, VECTORS] < 0.8
        assert score[target, MFCCS] < 0.8


def test_pitch_that_only_names_the_speaker_is_gone_about_his_mean() -> None:
    def between_speakers(rng: np.random.Generator, speaker: int) -> leakage._Recording:
        vectors = rng.standard_normal((N_CODES, 3))
        vectors[:, 0] = speaker
        log_f0 = 5.0 + 0.5 * speaker + 0.1 * rng.standard_normal(N_CODES)
        log_f0[::3] = np.nan
        return clip("ab"[speaker], np.zeros(N_CODES, int), vectors, log_f0)

    score = values(leakage._pitch_probes(clips(between_speakers, 0), clips(between_speakers, 1)))
    assert score["log F0", VECTORS] > 0.8
    assert abs(score["log F0 about the speaker's mean", VECTORS]) < 0.1


def test_pitch_that_neighbours_tell_is_found_out() -> None:
    def late(rng: np.random.Generator, speaker: int) -> leakage._Recording:
        vectors = rng.standard_normal((N_CODES, 3))
        log_f0 = 5.0 + 0.1 * np.roll(vectors[:, 1], 3)
        return clip("ab"[speaker], np.zeros(N_CODES, int), vectors, log_f0)

    score = values(leakage._pitch_probes(clips(late, 0), clips(late, 1)))
    assert score["log F0 about the speaker's mean", VECTORS] > 0.9


def test_speech_without_voice_is_refused() -> None:
    def silent(rng: np.random.Generator, speaker: int) -> leakage._Recording:
        nothing = np.full(N_CODES, np.nan)
        return clip("ab"[speaker], np.zeros(N_CODES, int), np.zeros((N_CODES, 3)), nothing)

    with pytest.raises(DataError, match="split test: no voiced speech is found"):
        leakage._pitch_probes(clips(silent, 0), clips(silent, 1))


def test_the_decoder_is_given_right_and_wrong_codes_and_voices(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hiss = np.random.default_rng(0).standard_normal(16000).astype(np.float32)
    decoded = []

    def decode(codes: Codes, *, sample_rate: int) -> np.ndarray:
        assert sample_rate == 16000
        decoded.append((codes.codes[0].tolist(), codes.speaker))
        return hiss / 2 ** (len(decoded) % 5)

    def said(speaker: str, codes: np.ndarray) -> leakage._Recording:
        made = clip(speaker, codes, np.zeros((len(codes), 3)), np.zeros(len(codes)))
        return replace(made, codes=replace(made.codes, speaker=speaker))

    monkeypatch.setattr(reliance, "load", lambda *_: hiss)
    split = [said("a", np.arange(8)), said("a", np.arange(8)[::-1]), said("b", np.arange(10, 15))]
    pairs = [(one.utterance, one.codes) for one in split]
    found, misheard = reliance.measure_reliance(SimpleNamespace(decode=decode), pairs)
    assert not misheard  # without a recogniser

    own, foreign = list(range(8)), [10, 11, 12, 13, 14, 10, 11, 12]
    shuffled, voice = decoded.pop(2)
    assert (sorted(shuffled), voice) == (own, "a")
    assert shuffled != own
    assert decoded[:4] == [(own, "a"), (own, "b"), (foreign, "a"), (foreign, "b")]
    distances = {one.given: one.found.value / np.log(2) for one in found}
    assert distances == pytest.approx(
        {
            "true codes, own voice": 1,
            "true codes, another's voice": 2,
            "codes shuffled in time, own voice": 3,
            "another recording's codes, own voice": 4,
            "another recording's codes and voice": 0,
        },
        abs=1e-3,
    )


def test_words_are_counted_where_somebody_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    class Listener(Recognizer):
        def transcribe(self, waveform: np.ndarray, language: str = "en") -> str:
            return "one too"

    hiss = np.random.default_rng(0).standard_normal(16000).astype(np.float32)
    monkeypatch.setattr(reliance, "load", lambda *_: hiss)
    pairs = []
    for speaker, text in (("a", "one two"), ("b", "one too three four"), ("b", "")):
        made = clip(speaker, np.arange(8), np.zeros((8, 3)), np.zeros(8))
        pairs.append((replace(made.utterance, speaker=speaker, text=text), made.codes))
    codec = SimpleNamespace(decode=lambda *_, **__: hiss)
    distances, misheard = reliance.measure_reliance(codec, pairs, Listener())
    assert [one.given for one in misheard] == [one.given for one in distances]
    assert {one.n_test for one in distances} == {3}
    assert {(one.found, one.n_test) for one in misheard} == {((50, 2, (50, 50), 2), 2)}


def test_the_report_of_a_corpus(
    corpus: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "report"
    command = ["leakage", corpus / "manifest.csv", "--model", tiny_model, "-o", output]
    assert main([str(word) for word in command]) == 0
    page = (output / "leakage.md").read_text()
    assert page in capsys.readouterr().out
    assert "4 training and 4 test recordings of 2 speakers" in page
    rows = list(csv.DictReader((output / "leakage.csv").read_text().splitlines()))
    table = {(row["target"], row["given"]): row for row in rows}
    assert len(table) == len(rows) == 6 + 4 + 5
    # A man and a woman, whom spectra tell apart.
    told = table["speaker, recording", MFCCS]
    assert (float(told["value"]), float(told["chance"]), told["n_test"]) == (1, 0.5, "4")
    assert (float(told["low"]), float(told["high"])) == (1, 1)
    windows = table["speaker, 1 s", HISTOGRAM]
    assert float(windows["low"]) <= float(windows["value"]) <= float(windows["high"])
    pitch = table["log F0", MFCCS]
    assert float(pitch["low"]) < float(pitch["value"]) < float(pitch["high"])
    wrong = table["original", "codes shuffled in time, own voice"]
    right = table["original", "true codes, own voice"]
    more = float(wrong["value"]) - float(right["value"])
    assert float(wrong["more value"]) == pytest.approx(more, abs=1e-5)
    assert float(wrong["more low"]) <= more <= float(wrong["more high"])
    assert float(right["more value"]) == 0
    assert float(table["log F0", MFCCS]["value"]) > 0.2
    assert "mel distance † ↓" in page
    assert all(float(row["value"]) > 0 for row in rows if row["measure"] == "mel distance")

    again = tmp_path / "again"
    leakage.leakage(corpus, again, vqcodec.load(tiny_model, device="cpu"))
    assert (again / "leakage.csv").read_bytes() == (output / "leakage.csv").read_bytes()


def test_the_analysis_has_a_frame_for_every_code_at_its_time(
    tiny_model: Path, tmp_path: Path
) -> None:
    codec = vqcodec.load(tiny_model, device="cpu")
    # A vowel-like buzz from 0.5 s on.
    buzz = 0.3 * sawtooth(2 * np.pi * 150 * np.arange(16048) / 16000)
    path = write(tmp_path / "late.wav", np.pad(buzz, (8000, 0)))
    heard = leakage._listen(codec, Utterance(path, "late", "x", "test", ""))
    n_codes = heard.codes.n_codes
    assert heard.frames[VECTORS].shape == (n_codes, codec.config.quantizer.dim)
    assert heard.frames[MFCCS].shape == (n_codes, 26)
    assert heard.log_f0.shape == (n_codes,)
    voiced = np.flatnonzero(np.isfinite(heard.log_f0))
    assert voiced[0] * 128 / 16000 == pytest.approx(0.5, abs=0.03)
    assert np.exp(np.nanmedian(heard.log_f0)) == pytest.approx(150, rel=0.01)
    loudness = heard.frames[MFCCS][:, 0]
    assert np.abs(np.diff(loudness)).argmax() * 128 / 16000 == pytest.approx(0.5, abs=0.03)


def test_two_speakers_are_needed(corpus: Path, tiny_model: Path, tmp_path: Path) -> None:
    codec = vqcodec.load(tiny_model, device="cpu")
    with pytest.raises(DataError, match="0 speakers have 3 recordings or more in train and in"):
        leakage.leakage(corpus, tmp_path, codec, min_clips=3)


def test_a_missing_library_is_named_before_the_work(
    corpus: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    codec = vqcodec.load(tiny_model, device="cpu")

    def fail(name: str) -> None:
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(importlib, "import_module", fail)
    with pytest.raises(VqcodecError, match=r"sklearn: cannot be .*pip install 'vqcodec\[eval\]'"):
        leakage.leakage(corpus, tmp_path, codec)
