"""The laws of the codec: length, level, and the same bits however the work is cut."""

from __future__ import annotations

import io
import math
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

import vqcodec
from vqcodec import Codes
from vqcodec.audio import load as load_audio
from vqcodec.audio import open_recording
from vqcodec.codec import Codec
from vqcodec.errors import (
    AudioError,
    CodesError,
    RecordingWarning,
)
from vqcodec.inference import chunking
from vqcodec.models.graphs import export_graphs
from vqcodec.weights import checkpoint


@pytest.fixture(scope="module")
def model_file(
    tiny_model: Path, samples: np.ndarray, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The tiny model with a codebook made for the speech: nearly every frame has its own code."""
    loaded = checkpoint.load(tiny_model)
    model = loaded.model
    gain = open_recording(samples, 16000).gain()
    # Two alignments make more frames than there are codes.
    shifted = np.stack([samples[at : at + 256 * 128] for at in (0, 64, 1000)]) / np.float32(gain)
    latents = model.encoder(torch.from_numpy(shifted))
    model.norm.mean.copy_(latents.mean((0, 2))[:, None])
    model.norm.variance.copy_(latents.var((0, 2))[:, None])
    model.quantizer.initialize(model.quantizer.project(model.norm(latents)).flatten(0, 1))
    path = tmp_path_factory.mktemp("codec") / "tiny.safetensors"
    checkpoint.save(path, model, loaded.voices, {}, graphs=export_graphs(model))
    return path


@pytest.fixture(scope="module", params=["onnx", "torch"])
def codec(model_file: Path, request: pytest.FixtureRequest) -> Codec:
    codec = vqcodec.load(model_file, device="cpu", engine=request.param)
    assert codec.engine.name == request.param
    return codec


@pytest.fixture(scope="module")
def codes(codec: Codec, speech: Path) -> Codes:
    return codec.encode(speech)


def rms(waveform: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(waveform, dtype=np.float64))))


def tone(n_samples: int, sample_rate: int) -> np.ndarray:
    return (0.2 * np.sin(2 * np.pi * 200 * np.arange(n_samples) / sample_rate)).astype(np.float32)


# Length and level


@pytest.mark.parametrize("sample_rate", [8000, 16000, 22050, 44100, 48000, 192000])
def test_what_goes_in_comes_out_as_long(codec, sample_rate):
    for n_samples in (1, 127, 129, 12_345):
        codes = codec.encode(tone(n_samples, sample_rate), sample_rate)
        n_samples_16k = math.ceil(n_samples * 16000 / sample_rate)
        assert codes.codes.shape == (1, math.ceil(n_samples_16k / 128))
        decoded = codec.decode(codes)
        assert decoded.shape == (n_samples,)
        assert decoded.dtype == np.float32
        assert np.isfinite(decoded).all()
        assert len(codec.decode(codes, sample_rate=16000)) == n_samples_16k


@pytest.mark.parametrize("gain", [1e-3, 0.01, 0.25, 4.0])
def test_the_level_is_kept(codec, samples, codes, gain):
    scaled = codec.encode(np.float32(gain) * samples, 16000)
    ratio = rms(codec.decode(scaled)) / rms(codec.decode(codes))
    assert 20 * np.log10(ratio / gain) == pytest.approx(0, abs=1)


def test_a_power_of_two_changes_the_gain_alone(codec, samples, codes):
    # Softer, for what is louder may come to full scale.
    softer = codec.encode(0.5 * samples, 16000)
    assert np.array_equal(softer.codes, codes.codes)
    assert softer.gain == 0.5 * codes.gain
    assert np.array_equal(codec.decode(softer), 0.5 * codec.decode(codes))


def test_channels_are_averaged(codec, samples, codes):
    stereo = codec.encode(np.stack([1.5 * samples, 0.5 * samples]), 16000)
    assert np.mean(stereo.codes == codes.codes) > 0.99
    same = codec.encode(np.stack([samples] * 8), 16000)
    assert np.array_equal(same.codes, codes.codes)


# The same bits however the work is cut


@pytest.mark.parametrize("length", [20, 37, 50])
def test_windows_leave_no_seam(codec, speech, codes, monkeypatch, length):
    assert 200 < codes.n_codes < chunking.LENGTH
    assert len(np.unique(codes.codes)) > 100
    whole = codec.decode(codes)
    monkeypatch.setattr(chunking, "LENGTH", length)
    assert np.array_equal(codec.encode(speech).codes, codes.codes)
    cut = codec.decode(codes)
    np.testing.assert_allclose(cut, whole, atol=1e-5 * np.abs(whole).max())


def test_windows_give_what_the_model_gives_at_once(codec, samples, codes, monkeypatch):
    monkeypatch.setattr(chunking, "LENGTH", 50)
    padded = np.zeros(codes.n_codes * 128, np.float32)
    padded[: len(samples)] = samples / np.float32(codes.gain)
    expected = codec.model.encode(torch.from_numpy(padded)[None])[0].numpy()
    assert np.array_equal(codec.encode(samples, 16000).codes, expected)


def test_threads_change_no_bit(codec, speech, threads, monkeypatch):
    monkeypatch.setattr(chunking, "LENGTH", 40)
    results = set()
    for n_threads in (1, 2, 4):
        torch.set_num_threads(n_threads)
        codes = codec.encode(speech)
        results.add((codes.to_bytes(), codec.decode(codes).tobytes()))
        assert torch.get_num_threads() == n_threads
    assert len(results) == 1


def test_a_list_is_each_for_itself(codec, samples):
    recordings = [samples, samples[:5000], samples[3000:3001]]
    assert codec.encode(recordings, 16000) == [codec.encode(one, 16000) for one in recordings]
    converted = codec.convert(recordings[:2], 16000, speaker="anna")
    assert [len(one) for one in converted] == [len(samples), 5000]


def test_the_voice_of_a_list_is_heard_once(codec, speech, samples):
    with speech.open("rb") as reference:
        converted = codec.convert([samples, samples], 16000, speaker=reference)
    assert np.array_equal(*converted)


def test_array_tensor_file_and_stream_are_the_same(codec, speech, samples, codes):
    array = codec.encode(samples, 16000)
    assert array == codes
    assert codec.encode(torch.from_numpy(samples), 16000) == array
    assert codec.encode(torch.from_numpy(samples)[None], 16000) == array
    halved = torch.from_numpy(samples).bfloat16()
    assert codec.encode(halved, 16000) == codec.encode(halved.float().numpy(), 16000)
    assert codec.encode(str(speech)) == array
    with speech.open("rb") as stream:
        assert codec.encode(stream) == array


def test_codes_survive_the_file(codec, codes, tmp_path):
    codes.save(tmp_path / "a.codes")
    again = Codes.load(tmp_path / "a.codes")
    assert again == codes
    assert np.array_equal(codec.decode(again), codec.decode(codes))


@pytest.mark.parametrize("rate", [8000, 16000])
def test_memory_does_not_grow_with_the_recording(codec, samples, tmp_path, rate):
    """Four minutes are 15 MB as float32 at the model's rate."""
    path, target = tmp_path / "long.wav", tmp_path / "decoded.wav"
    soundfile.write(path, np.resize(samples, 240 * rate), rate)
    tracemalloc.start()
    try:
        codes = codec.encode(path)
        codec.decode_to(target, codes)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert codes.n_codes == 30_000
    assert soundfile.info(target).frames == 240 * rate
    assert peak < 6e6


# Files and progress


def test_decoding_to_a_file(codec, speech, codes, tmp_path):
    decoded = codec.decode(codes)
    codec.decode_to(tmp_path / "a.wav", codes)
    written = load_audio(tmp_path / "a.wav", 16000)
    np.testing.assert_allclose(written, decoded.clip(-1, 32767 / 32768), atol=0.51 / 32768)
    codec.decode_to(tmp_path / "a.flac", codes, sample_rate=48000)
    info = soundfile.info(tmp_path / "a.flac")
    assert (info.samplerate, info.frames) == (48000, 3 * codes.n_samples)
    stream = io.BytesIO()
    codec.decode_to(stream, codes)
    assert stream.getvalue() == (tmp_path / "a.wav").read_bytes()


def test_progress_runs_to_the_end(codec, speech, codes, tmp_path, monkeypatch):
    monkeypatch.setattr(chunking, "LENGTH", 50)
    encoding: list[float] = []
    codec.encode(speech, on_progress=encoding.append)
    decoding: list[float] = []
    codec.decode_to(tmp_path / "a.wav", codes, on_progress=decoding.append)
    for shares, length in ((encoding, 50), (decoding, chunking.LIVE_LENGTH)):
        assert len(shares) == -(-codes.n_codes // length)
        assert shares == sorted(shares)
        assert shares[0] > 0
        assert shares[-1] == 1


def test_a_failed_decoding_leaves_the_old_file(codec, codes, tmp_path):
    target = tmp_path / "a.wav"
    target.write_bytes(b"old")
    with pytest.raises(CodesError):
        codec.decode_to(target, replace(codes, fingerprint=bytes(8)))
    with pytest.raises(AudioError, match="sample rate of 5 Hz is impossible"):
        codec.decode_to(target, codes, sample_rate=5)
    assert target.read_bytes() == b"old"


# The WaveNet


def test_the_wavenet_repeats_itself_on_any_thread_count(codec, samples, threads):
    codes = codec.encode(samples[:4000], 16000)
    torch.set_num_threads(1)
    first = codec.decode(codes, decoder="wavenet", seed=3)
    torch.set_num_threads(4)
    assert np.array_equal(codec.decode(codes, decoder="wavenet", seed=3), first)
    assert first.shape == (4000,)
    assert np.isfinite(first).all()
    assert not np.array_equal(codec.decode(codes, decoder="wavenet", seed=4), first)
    cold = [codec.decode(codes, decoder="wavenet", seed=s, temperature=0) for s in (3, 4)]
    assert np.array_equal(*cold)


def test_conversion_takes_the_choices_of_decoding(codec, samples):
    choices = {"speaker": "anna", "decoder": "wavenet", "seed": 3, "temperature": 0.5}
    (converted,) = codec.convert([samples[:4000]], 16000, **choices)
    decoded = codec.decode(codec.encode(samples[:4000], 16000), **choices)
    assert np.array_equal(converted, decoded)


def test_long_recordings_are_sampled_in_segments_of_the_same_bits(codec, samples, threads):
    codes = codec.encode(np.resize(samples, 45_000), 16000)
    decoded = []
    for n_threads in (1, 2):
        torch.set_num_threads(n_threads)
        decoded.append(codec.decode(codes, decoder="wavenet", seed=1))
    assert decoded[0].shape == (45_000,)
    assert np.array_equal(*decoded)


def test_the_gain_scales_the_wavenet_too(codec, samples):
    codes = codec.encode(samples[:2000], 16000)
    louder = replace(codes, gain=2 * codes.gain)
    first, second = (codec.decode(c, decoder="wavenet") for c in (codes, louder))
    assert np.array_equal(2 * first, second)


def test_gain_is_that_of_the_recording(codes, speech):
    assert codes.gain == open_recording(speech).gain()


def test_silence_is_told(codec: vqcodec.Codec, samples: np.ndarray) -> None:
    for silent in (np.zeros(8000, np.float32), np.stack([samples, -samples]), np.full(8000, 0.05)):
        with pytest.warns(RecordingWarning, match=r"^array: is silent"):
            codec.encode(silent, 16_000)
