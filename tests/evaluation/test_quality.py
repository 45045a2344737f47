from __future__ import annotations

import importlib
import os
from pathlib import Path

import librosa
import numpy as np
import pesq
import pystoi
import pytest
from command_line import Run, needs
from recordings import spoken
from scipy.signal import get_window, lfilter, sawtooth

from vqcodec import audio
from vqcodec.errors import VqcodecError
from vqcodec.evaluation import alignment, baselines, quality

RATE = quality.SAMPLE_RATE


@pytest.fixture(scope="module")
def waveform(speech: Path) -> np.ndarray:
    return audio.load(speech, RATE)


def noisy(waveform: np.ndarray, level: float) -> np.ndarray:
    noise = np.random.default_rng(0).standard_normal(len(waveform)) * level
    return (waveform + noise).astype(np.float32)


def test_an_identical_recording_gets_the_best_values(waveform: np.ndarray) -> None:
    values = quality.measure(waveform, waveform.copy()).values
    assert values == pytest.approx(
        {
            "STOI": 1,
            "ESTOI": 1,
            "PESQ-WB": 4.644,
            "mel distance": 0,
            "MCD (dB)": 0,
            "F0 correlation": 1,
            "F0 error (cents)": 0,
            "voicing error": 0,
            "speaker similarity": 1,
            "DNSMOS": values["DNSMOS"],
        },
        abs=1e-3,
    )
    assert 2 < values["DNSMOS"] < 4.5


def test_noise_makes_every_measure_worse(waveform: np.ndarray) -> None:
    little, much = (
        quality.measure(waveform, noisy(waveform, level)).values for level in (0.003, 0.1)
    )
    for metric in quality.METRICS:
        better, worse = little[metric.name], much[metric.name]
        assert better is not None
        assert worse is not None
        assert (better > worse) is metric.higher_is_better, metric.name


def test_mel_distance_is_that_of_the_spectrograms_by_definition(waveform: np.ndarray) -> None:
    def log_mel(samples: np.ndarray) -> np.ndarray:
        frames = np.lib.stride_tricks.sliding_window_view(np.pad(samples, 512), 1024)[::256]
        magnitudes = np.abs(np.fft.rfft(frames * get_window("hann", 1024)))
        bands = librosa.filters.mel(sr=RATE, n_fft=1024, n_mels=80)
        return np.log(np.maximum(magnitudes @ bands.T, 1e-5))

    decoded = noisy(waveform, 0.01)
    expected = np.abs(log_mel(waveform) - log_mel(decoded)).mean()
    assert quality.mel_distance(waveform, decoded) == pytest.approx(expected, rel=1e-4)


def test_mel_cepstral_distortion_is_the_decibels_of_a_known_filter() -> None:
    hiss = np.random.default_rng(0).standard_normal(2 * RATE).astype(np.float32)
    tilted = lfilter([1, -0.6], [1], hiss).astype(np.float32)
    # Over the mel axis, from its floor of 40 Hz, by definition and without WORLD.
    mel = np.linspace(*np.log1p(np.array([40, 8000]) / 700), 2048)
    gain = np.abs(1 - 0.6 * np.exp(-2j * np.pi * 700 * np.expm1(mel) / RATE))
    expected = (20 * np.log10(gain)).std()
    assert quality.mel_cepstral_distortion(hiss, tilted) == pytest.approx(expected, rel=0.05)
    assert quality.mel_cepstral_distortion(hiss, hiss / 2) < 0.01  # louder is no difference


def test_mel_cepstral_distortion_leaves_pauses_out(waveform: np.ndarray) -> None:
    pause = noisy(np.zeros(RATE, np.float32), 1e-4)
    other = lfilter([1, -0.9], [1], pause).astype(np.float32)
    paused, changed = np.append(waveform, pause), np.append(waveform, other)
    assert quality.mel_cepstral_distortion(paused, changed) < 0.3


@pytest.mark.parametrize(("level_db", "counts"), [(-30, True), (-50, False)])
def test_mel_cepstral_distortion_hears_what_is_less_than_40_db_down(
    level_db: int, counts: bool
) -> None:
    loud = noisy(np.zeros(RATE, np.float32), 0.1)
    tilted = lfilter([1, -0.6], [1], loud).astype(np.float32)
    faint = np.float32(10 ** (level_db / 20))
    pair = np.append(loud, faint * loud), np.append(loud, faint * tilted)
    share = quality.mel_cepstral_distortion(*pair) / quality.mel_cepstral_distortion(loud, tilted)
    assert share == pytest.approx(0.5 if counts else 0, abs=0.05)


def test_f0_correlation_is_of_logarithms() -> None:
    f0 = np.geomspace(100, 400, 2 * RATE)
    glide = (0.1 * sawtooth(2 * np.pi * np.cumsum(f0) / RATE)).astype(np.float32)
    assert quality.f0_correlation(glide, glide[::-1]) == pytest.approx(-1, abs=0.01)


def test_another_voice_is_less_similar_than_the_same() -> None:
    woman, again, man = (
        quality.speaker_embedding(spoken(voice, start_s, stop_s))
        for voice, start_s, stop_s in (("slt", 0, 1.7), ("slt", 1.7, None), ("rms", 0, 1.7))
    )
    assert woman @ again > woman @ man + 0.1


@pytest.mark.parametrize("lag_ms", [-100, -7, 0, 69, 100])
def test_align_finds_a_known_lag(waveform: np.ndarray, lag_ms: int) -> None:
    lag = lag_ms * RATE // 1000
    moved = np.pad(waveform, (lag, 0)) if lag > 0 else waveform[-lag:]
    aligned = alignment.align(waveform, noisy(moved, 0.003))
    assert aligned.lag == lag
    assert len(aligned.waveform) == len(waveform)
    inside = slice(1600, -1600)
    assert np.abs(aligned.waveform - waveform)[inside].max() < 0.02


def test_align_looks_no_further_than_100_ms(waveform: np.ndarray) -> None:
    late = np.pad(waveform, (101 * RATE // 1000, 0))
    assert alignment.align(waveform, late).lag <= 100 * RATE // 1000


def test_align_leaves_silence_where_it_is(waveform: np.ndarray) -> None:
    aligned = alignment.align(waveform, np.zeros(100, np.float32))
    assert aligned.lag == 0
    assert aligned.waveform.shape == waveform.shape


@pytest.mark.parametrize("silent", ["original", "decoded recording"])
def test_silence_gives_none_with_the_reason(waveform: np.ndarray, silent: str) -> None:
    silence = np.zeros_like(waveform)
    pair = (silence, waveform) if silent == "original" else (waveform, silence)
    found = quality.measure(*pair)
    assert found.values == dict.fromkeys(metric.name for metric in quality.METRICS)
    assert set(found.reasons.values()) == {f"the {silent} is silent"}


@pytest.mark.parametrize("offset", [0.1, 2**-15])
def test_what_16_bits_cannot_tell_from_a_constant_is_silent(
    waveform: np.ndarray, offset: float
) -> None:
    constant = (1e-6 * waveform + offset).astype(np.float32)
    found = quality.measure(waveform, constant)
    assert set(found.reasons.values()) == {"the decoded recording is silent"}
    with pytest.raises(quality.UndefinedMetricError, match="silence has no speaker"):
        quality.speaker_embedding(constant)


def test_what_is_too_short_or_has_no_voice_gives_none_with_the_reason() -> None:
    hiss = noisy(np.zeros(RATE // 8, np.float32), 1e-4)
    reasons = quality.measure(hiss, hiss).reasons
    assert reasons["STOI"] == reasons["ESTOI"] == "less than 0.4 s of sound"
    assert reasons["PESQ-WB"] == "Buffer needs to be at least 1/4 of a second long"
    assert reasons["F0 correlation"] == "fewer than 10 frames are voiced in both"
    assert reasons["F0 error (cents)"] == reasons["F0 correlation"]
    with pytest.raises(quality.UndefinedMetricError, match="no voice is found"):
        quality.speaker_embedding(hiss[: RATE // 50])


def test_what_libraries_make_of_silence_and_of_20_ms_is_no_number(waveform: np.ndarray) -> None:
    silence, short = np.zeros_like(waveform), waveform[8000 : 8000 + RATE // 50]
    with pytest.raises(ValueError, match="NaN"):
        pesq.pesq(RATE, waveform, silence, "wb")
    with pytest.raises(np.exceptions.AxisError):
        pystoi.stoi(short, short, RATE)
    estoi = {pystoi.stoi(waveform, silence, RATE, extended=True) for _ in range(2)}
    assert len(estoi) == 2
    for pair in ((waveform, silence), (short, short)):
        assert set(quality.measure(*pair).values.values()) == {None}


def test_what_is_not_finite_is_undefined() -> None:
    found = quality.measure_each({"a": lambda: float("nan"), "b": lambda: 1.0})
    assert found == ({"a": None, "b": 1.0}, {"a": "no finite number comes out"})


def test_a_pair_of_two_lengths_is_refused(waveform: np.ndarray) -> None:
    with pytest.raises(VqcodecError, match=r"\(16000,\) and \(15999,\).*align the decoded"):
        quality.measure(waveform[:16000], waveform[:15999])


def test_a_missing_library_is_named_with_its_extra(
    waveform: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(name: str) -> None:
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(importlib, "import_module", fail)
    with pytest.raises(VqcodecError, match=r"resemblyzer: cannot .*install 'vqcodec\[eval\]'"):
        quality.measure(waveform, waveform)


@needs("c2enc")
@pytest.mark.parametrize(
    ("mode", "bits_per_second"), [("3200", 3200), ("2400", 2400), ("1200", 1200), ("700C", 800)]
)
def test_codec2_takes_its_bit_rate(waveform: np.ndarray, mode: str, bits_per_second: int) -> None:
    coded = baselines.baseline(f"codec2-{mode}")(waveform[: 2 * RATE])
    assert 8 * coded.n_bytes / 2 == bits_per_second
    assert len(coded.waveform) == 2 * RATE


@needs("c2enc")
def test_codec2_decodes_the_last_part_frame(waveform: np.ndarray) -> None:
    coded = baselines.codec2(waveform[: 2 * RATE + 1], mode="1200")
    assert coded.n_bytes == (50 + 1) * 6
    assert len(coded.waveform) == 2 * RATE + 640


@needs("c2enc")
def test_codec2_comes_late_and_is_understood_once_aligned(waveform: np.ndarray) -> None:
    coded = baselines.codec2(waveform, mode="3200")
    aligned = alignment.align(waveform, coded.waveform)
    assert 0.015 < aligned.lag / RATE < 0.025
    unaligned = coded.waveform[: len(waveform)]
    assert quality.stoi(waveform, aligned.waveform) > quality.stoi(waveform, unaligned) + 0.05


@needs("opusenc")
def test_opus_bytes_are_those_of_the_file(waveform: np.ndarray, tmp_path: Path) -> None:
    coded = baselines.baseline("opus-24")(waveform)
    assert len(coded.waveform) == len(waveform)
    assert quality.stoi(waveform, coded.waveform) > 0.95
    kilobits_per_second = 8 * coded.n_bytes / (len(waveform) / RATE) / 1000
    assert 15 < kilobits_per_second < 40


@needs("opusenc")
def test_opus_takes_more_bytes_where_more_are_asked_for(waveform: np.ndarray) -> None:
    little, much = (baselines.opus(waveform, bitrate=bitrate) for bitrate in (6, 12))
    assert little.n_bytes < much.n_bytes


def test_narrowband_keeps_what_a_telephone_does(waveform: np.ndarray) -> None:
    coded = baselines.baseline("narrowband")(waveform)
    assert abs(8 * coded.n_bytes / (len(waveform) / RATE) / 1000 - 128) < 0.1
    spectra = [np.abs(np.fft.rfft(each[: len(waveform)])) for each in (waveform, coded.waveform)]
    bin_of_4_khz = len(waveform) // 4
    low, high = slice(0, int(0.9 * bin_of_4_khz)), slice(int(1.1 * bin_of_4_khz), None)
    np.testing.assert_allclose(spectra[1][low], spectra[0][low], atol=0.01 * spectra[0].max())
    assert spectra[1][high].max() < 0.01 * spectra[0][high].max()


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


def test_the_speed_benchmark_times_parts(
    run_script: Run, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0})
    settings = ["--seconds", "1", "--repeats", "2", "--parts", "queues"]
    done = run_script("benchmarks/speed.py", "--model", tiny_model, *settings, "-o", tmp_path)
    assert done.status == 0, done.stderr
    page = (tmp_path / "speed.md").read_text()
    assert "| WaveNet, PyTorch with queues |" in page
    assert "Peak: float32 products" in page
    assert len((tmp_path / "speed.csv").read_text().splitlines()) == 3


def test_a_benchmark_fails_with_one_line(run_script: Run, tmp_path: Path) -> None:
    done = run_script("benchmarks/speed.py", "--model", tmp_path / "none.safetensors")
    assert done.status == 1
    assert "none.safetensors: no such model; give a .safetensors file" in done.stderr
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
