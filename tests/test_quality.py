from __future__ import annotations

import csv
import importlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from vqcodec import audio
from vqcodec.errors import DataError, VqcodecError
from vqcodec.evaluation import baselines, quality, report

ROOT = Path(__file__).parents[1]
RATE = quality.SAMPLE_RATE


@pytest.fixture(scope="module")
def waveform(speech: Path) -> np.ndarray:
    return audio.load(speech, RATE)


def noisy(waveform: np.ndarray, level: float) -> np.ndarray:
    noise = np.random.default_rng(0).standard_normal(len(waveform)) * level
    return (waveform + noise).astype(np.float32)


def test_an_identical_recording_gets_the_best_values(waveform: np.ndarray) -> None:
    scores = quality.measure(waveform, waveform.copy())
    values = {name: score.value for name, score in scores.items()}
    assert values == pytest.approx(
        {
            "STOI": 1,
            "ESTOI": 1,
            "PESQ-WB": 4.644,
            "mel distance": 0,
            "F0 correlation": 1,
            "voicing error": 0,
            "speaker similarity": 1,
        },
        abs=1e-3,
    )


def test_noise_makes_every_measure_worse(waveform: np.ndarray) -> None:
    little, much = (quality.measure(waveform, noisy(waveform, level)) for level in (0.003, 0.03))
    for metric in quality.METRICS:
        better, worse = little[metric.name].value, much[metric.name].value
        assert better is not None
        assert worse is not None
        assert (better > worse) is metric.higher_is_better, metric.name


def test_another_voice_is_less_similar_than_the_same(waveform: np.ndarray, tmp_path: Path) -> None:
    def says(voice: str) -> np.ndarray:
        path = tmp_path / f"{voice}.wav"
        text = "Nobody has seen the old man since the storm."
        subprocess.run(["flite", "-voice", voice, "-t", text, "-o", str(path)], check=True)
        return quality.speaker_embedding(audio.load(path, RATE))

    embedding = quality.speaker_embedding(waveform)
    assert embedding @ says("slt") > embedding @ says("rms") + 0.1


@pytest.mark.parametrize("lag_ms", [-50, -7, 0, 23, 50])
def test_align_finds_a_known_lag(waveform: np.ndarray, lag_ms: int) -> None:
    lag = lag_ms * RATE // 1000
    moved = np.pad(waveform, (lag, 0)) if lag > 0 else waveform[-lag:]
    aligned = quality.align(waveform, noisy(moved, 0.003))
    assert aligned.lag == lag
    assert len(aligned.waveform) == len(waveform)
    inside = slice(800, -800)
    assert np.abs(aligned.waveform - waveform)[inside].max() < 0.02


def test_align_leaves_silence_where_it_is(waveform: np.ndarray) -> None:
    aligned = quality.align(waveform, np.zeros(100, np.float32))
    assert aligned.lag == 0
    assert aligned.waveform.shape == waveform.shape


@pytest.mark.parametrize("silent", ["original", "decoded recording"])
def test_silence_gives_none_with_the_reason(waveform: np.ndarray, silent: str) -> None:
    silence = np.zeros_like(waveform)
    pair = (silence, waveform) if silent == "original" else (waveform, silence)
    for name, score in quality.measure(*pair).items():
        assert score == (None, f"the {silent} is silent"), name


def test_what_is_too_short_or_has_no_voice_gives_none_with_the_reason() -> None:
    hiss = noisy(np.zeros(RATE // 8, np.float32), 1e-6)
    reasons = {name: score.reason for name, score in quality.measure(hiss, hiss).items()}
    assert reasons["STOI"] == reasons["ESTOI"] == "less than 0.4 s of sound"
    assert reasons["PESQ-WB"] == "Buffer needs to be at least 1/4 of a second long"
    assert reasons["F0 correlation"] == "fewer than 10 frames are voiced in both"
    with pytest.raises(quality.UndefinedMetricError, match="no voice is found"):
        quality.speaker_embedding(hiss[: RATE // 50])


def test_a_pair_of_two_lengths_is_refused(waveform: np.ndarray) -> None:
    with pytest.raises(VqcodecError, match=r"\(16000,\) and \(15999,\).*align the decoded"):
        quality.measure(waveform[:16000], waveform[:15999])


def test_a_missing_library_is_named_with_its_extra(
    waveform: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(name: str) -> None:
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(importlib, "import_module", fail)
    with pytest.raises(VqcodecError, match=r"pystoi: cannot be .*pip install 'vqcodec\[eval\]'"):
        quality.measure(waveform, waveform)


@pytest.mark.parametrize(
    ("mode", "bits_per_second"), [("3200", 3200), ("2400", 2400), ("1200", 1200), ("700C", 800)]
)
def test_codec2_takes_its_bit_rate(waveform: np.ndarray, mode: str, bits_per_second: int) -> None:
    coded = baselines.baseline(f"codec2-{mode}")(waveform[: 2 * RATE])
    assert 8 * coded.n_bytes / 2 == bits_per_second
    assert len(coded.waveform) == 2 * RATE


def test_codec2_decodes_the_last_part_frame(waveform: np.ndarray) -> None:
    coded = baselines.codec2(waveform[: 2 * RATE + 1], mode="1200")
    assert coded.n_bytes == (50 + 1) * 6
    assert len(coded.waveform) == 2 * RATE + 640


def test_codec2_comes_late_and_is_understood_once_aligned(waveform: np.ndarray) -> None:
    coded = baselines.codec2(waveform, mode="3200")
    aligned = quality.align(waveform, coded.waveform)
    assert 0.015 < aligned.lag / RATE < 0.025
    unaligned = coded.waveform[: len(waveform)]
    assert quality.stoi(waveform, aligned.waveform) > quality.stoi(waveform, unaligned) + 0.05


def test_opus_bytes_are_those_of_the_file(waveform: np.ndarray, tmp_path: Path) -> None:
    coded = baselines.baseline("opus-24")(waveform)
    assert len(coded.waveform) == len(waveform)
    assert quality.stoi(waveform, coded.waveform) > 0.95
    kilobits_per_second = 8 * coded.n_bytes / (len(waveform) / RATE) / 1000
    assert 15 < kilobits_per_second < 40


@pytest.mark.parametrize("name", ["codec2-9600", "codec2", "opus-5", "opus-x", "mp3-64", ""])
def test_an_unknown_reference_codec_is_refused(name: str) -> None:
    with pytest.raises(VqcodecError, match=rf"^{name}: no such reference codec; use codec2-MODE"):
        baselines.baseline(name)


def test_a_missing_tool_is_named_with_its_package(
    waveform: np.ndarray, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(VqcodecError, match="c2enc: not installed; apt-get install codec2,"):
        baselines.codec2(waveform, mode="1200")


@pytest.fixture(scope="module")
def corpus(speech: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two test clips of different speakers and one for training, by synthesizers."""
    root = tmp_path_factory.mktemp("corpus")
    (root / "b.wav").write_bytes(speech.read_bytes())
    for name, voice in (("a", "rms"), ("c", "awb")):
        text = "She had your dark suit in greasy wash water all year."
        path = str(root / f"{name}.wav")
        subprocess.run(["flite", "-voice", voice, "-t", text, "-o", path], check=True)
    lines = ["path,speaker,split", "b.wav,p225,test", "a.wav,anna,test", "c.wav,awb,train"]
    (root / "manifest.csv").write_text("\n".join(lines) + "\n")
    return root


def test_clips_are_chosen_by_split_speaker_and_number(corpus: Path) -> None:
    assert [clip.name for clip in report.clips(corpus, "test")] == ["a", "b"]
    assert [clip.name for clip in report.clips(corpus / "manifest.csv", "test", limit=1)] == ["a"]
    assert [clip.name for clip in report.clips(corpus, "test", speaker="p225")] == ["b"]
    with pytest.raises(DataError, match="no recording of awb in split test"):
        report.clips(corpus, "test", speaker="awb")
    with pytest.raises(DataError, match=r"a\.wav: not a corpus"):
        report.clips(corpus / "a.wav", "test")


def run(script: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        [sys.executable, ROOT / "benchmarks" / script, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_quality_benchmark_reports_every_codec_on_every_file(
    corpus: Path, tiny_model: Path, tmp_path: Path
) -> None:
    output = tmp_path / "report"
    options = ["--model", tiny_model, "--baselines", "codec2-1200", "--jobs", 2, "-o", output]
    done = run("quality.py", corpus / "manifest.csv", *options)
    assert done.returncode == 0, done.stderr

    rows = list(csv.DictReader((output / "quality.csv").read_text().splitlines()))
    assert [(row["file"], row["speaker"], row["codec"]) for row in rows] == [
        ("a", "anna", "vqcodec (fast)"),
        ("a", "anna", "codec2-1200"),
        ("b", "p225", "vqcodec (fast)"),
        ("b", "p225", "codec2-1200"),
    ]
    assert float(rows[0]["STOI"]) < float(rows[1]["STOI"])  # random weights
    assert 1.125 < float(rows[0]["kbit/s"]) < 2  # 9 bits for 128 samples, and the header
    page = (output / "quality.md").read_text()
    assert page in done.stdout
    assert "Split test: 2 files" in page
    assert "Codebook: perplexity" in page
    mean = np.mean([float(row["PESQ-WB"]) for row in rows if row["codec"] == "codec2-1200"])
    codec2_line = next(line for line in page.splitlines() if line.startswith("| codec2-1200"))
    assert f" {mean:.3f} " in codec2_line


def test_the_conversion_benchmark_reports_every_ordered_pair(
    corpus: Path, tiny_model: Path, tmp_path: Path
) -> None:
    options = ["--speakers", "p225,anna", "--clips", 1, "--model", tiny_model, "-o", tmp_path]
    done = run("conversion.py", corpus, *options)
    assert done.returncode == 0, done.stderr
    rows = list(csv.DictReader((tmp_path / "conversion.csv").read_text().splitlines()))
    assert [(row["file"], row["source"], row["target"]) for row in rows] == [
        ("b", "p225", "anna"),
        ("a", "anna", "p225"),
    ]
    assert "| all | all |" in (tmp_path / "conversion.md").read_text()


def test_the_speed_benchmark_times_every_decoder(tiny_model: Path, tmp_path: Path) -> None:
    done = run("speed.py", "--model", tiny_model, "--seconds", 0.2, "--repeats", 1, "-o", tmp_path)
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "speed.md").read_text()
    for part in ("encode", "decode (fast)", "decode (wavenet)", "reference sampler"):
        assert part in page
    assert "GFLOP/s" in page


def test_a_benchmark_fails_with_one_line(tiny_model: Path, tmp_path: Path) -> None:
    done = run("quality.py", tmp_path, "--model", tiny_model, "--baselines", "opus-x")
    assert done.returncode == 1
    assert done.stderr.startswith("error: opus-x: no such reference codec")
    assert done.stderr.count("\n") == 1
