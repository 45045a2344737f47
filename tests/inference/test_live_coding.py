"""Live encoding and decoding give what the calls on whole recordings give."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from sounds import pieces
from tiny_models import TINY

import vqcodec
from vqcodec import audio
from vqcodec.codec import Codec
from vqcodec.errors import AudioError, CodesError, SpeakerError
from vqcodec.format.codes import Codes
from vqcodec.format.stream_records import CodeBlock
from vqcodec.format.streaming import CodesStream
from vqcodec.inference import chunking, encoding
from vqcodec.inference.engines import pytorch
from vqcodec.models.config import ModelConfig
from vqcodec.models.vqvae import VQVAE
from vqcodec.weights import checkpoint


@pytest.fixture(scope="module", params=["onnx", "torch"])
def codec(light_model, request) -> Codec:
    return vqcodec.load(light_model, device="cpu", engine=request.param)


@pytest.fixture(scope="module")
def samples(speech) -> np.ndarray:
    """Nine seconds of speech, 16 kHz."""
    return np.tile(audio.load(speech, 16_000), 4)


@pytest.mark.parametrize("sample_rate", [16_000, 44_100])
@pytest.mark.parametrize("length", [333, 16_000])
def test_live_codes_are_the_codes(codec, samples, sample_rate, length):
    codes = codec.encode(samples, sample_rate, speaker="anna")
    stream = codec.stream_encode(
        pieces(samples, length), sample_rate, speaker="anna", gain=codes.gain
    )
    assert Codes.collect(stream) == codes


def test_doubtful_codes_do_not_depend_on_the_window(codec, samples, monkeypatch):
    """Every code made doubtful: each is then settled from what it sees alone."""
    monkeypatch.setattr(encoding, "DOUBT", np.inf)
    clip = samples[:20_000]
    whole = codec.encode(clip, 16_000, speaker="anna")
    monkeypatch.setattr(chunking, "LENGTH", 11)
    assert codec.encode(clip, 16_000, speaker="anna") == whole
    monkeypatch.setattr(encoding, "DOUBT", 0)
    assert np.mean(codec.encode(clip, 16_000, speaker="anna").codes != whole.codes) < 0.01


@pytest.mark.parametrize("decoder", ["fast", "wavenet"])
@pytest.mark.parametrize("sample_rate", [16_000, 22_050])
def test_live_audio_is_the_audio(codec, samples, decoder, sample_rate):
    clip = samples[: 16_000 * (2 if decoder == "fast" else 4) + 77]
    codes = codec.encode(clip, 16_000, speaker="anna")
    wanted = codec.decode(codes, decoder=decoder, seed=3, sample_rate=sample_rate)

    def blocks():
        yield from map(CodeBlock, pieces(codes.codes, 10))
        return codes.n_samples

    stream = codec.stream_decode(
        CodesStream(codes, blocks()), decoder=decoder, seed=3, sample_rate=sample_rate
    )
    live = np.concatenate(list(stream))
    assert live.shape == wanted.shape
    assert np.array_equal(live, wanted)


@pytest.mark.parametrize("decoder", ["fast", "wavenet"])
def test_what_came_whole_before_a_fault_is_heard(codec, samples, decoder):
    codes = codec.encode(samples[:33_000], 16_000, speaker="anna")

    def blocks():
        yield from map(CodeBlock, pieces(codes.codes[:, :200], 10))
        raise CodesError("in: damaged")

    heard, stream = [], codec.stream_decode(CodesStream(codes, blocks()), decoder=decoder)
    with pytest.raises(CodesError, match="in: damaged"):
        heard.extend(iter(stream))
    live, whole = np.concatenate(heard), codec.decode(codes, decoder=decoder)
    assert len(live) == 200 * 128
    assert np.array_equal(live[: 150 * 128], whole[: 150 * 128])


@pytest.mark.parametrize("bfloat16", [False, True])
def test_audio_does_not_depend_on_the_window(codec, samples, bfloat16, monkeypatch):
    monkeypatch.setattr(pytorch, "multiplies_bfloat16", lambda device: bfloat16)
    codes = codec.encode(samples[:30_000], 16_000, speaker="anna")
    whole = codec.decode(codes, decoder="fast")
    monkeypatch.setattr(chunking, "LENGTH", 37)
    assert np.array_equal(codec.decode(codes, decoder="fast"), whole)


def test_bfloat16_is_not_heard(light_model, samples, monkeypatch):
    codec = vqcodec.load(light_model, device="cpu", engine="torch")
    codes = codec.encode(samples[:30_000], 16_000, speaker="anna")
    decoded = {}
    for enabled in (False, True):
        monkeypatch.setattr(pytorch, "multiplies_bfloat16", lambda device, e=enabled: e)
        decoded[enabled] = codec.decode(codes, decoder="fast")
    error = np.square(decoded[True] - decoded[False]).mean()
    assert 0 < error < 1e-3 * np.square(decoded[False]).mean()


def test_codes_come_after_the_look_ahead_and_a_window(codec, samples):
    """No more is read than the latency that is promised: 25 codes and what the encoder sees."""
    n_read = 0

    def blocks() -> Iterator[np.ndarray]:
        nonlocal n_read
        for block in pieces(samples, 128):
            n_read += 1
            yield block

    stream = codec.stream_encode(blocks(), speaker="anna", gain=1.0)
    seen = [n_read]
    for _ in itertools.islice(stream, 3):
        seen.append(n_read)
    look_ahead = 19
    # Blocks of 8 ms are put together to 20 ms.
    assert seen == [0, 26 + look_ahead, 51 + look_ahead, 76 + look_ahead]


@pytest.mark.parametrize("pause", [0.0, 3e-5, 1e-3])  # its noise's root mean square
@pytest.mark.parametrize("seconds", [0, 5, 10])
def test_level_and_voice_are_those_of_the_first_sound(codec, samples, pause, seconds):
    noise = np.random.default_rng(0).normal(0, pause, 16_000 * seconds).astype(np.float32)
    stream = codec.stream_encode(pieces(np.concatenate([noise, samples]), 1000))
    whole = codec.encode(samples, 16_000)
    assert stream.metadata.gain == pytest.approx(whole.gain, rel=0.05)
    theirs, own = (np.float32(one.speaker) for one in (stream.metadata, whole))
    assert theirs @ own > 0.99 * np.linalg.norm(theirs) * np.linalg.norm(own)
    assert Codes.collect(stream).n_samples == len(noise) + len(samples)


def test_a_pause_without_end_is_not_waited_for(codec, samples):
    pause = np.full(17 * 16_000, 1e-4, np.float32)
    stream = codec.stream_encode(itertools.chain(pieces(pause, 1000), itertools.repeat(samples)))
    assert stream.metadata.gain == 1


def test_a_soft_recording_that_ends_is_taken_for_what_it_is(codec, samples):
    soft = samples[:32_000] * np.float32(1e-3)
    assert Codes.collect(codec.stream_encode([soft])) == codec.encode(soft, 16_000)


def test_channels_and_integers(codec, samples):
    stereo = np.stack([samples[:9000], samples[:9000]])
    as_int16 = (stereo * 32768).astype(np.int16)
    expected = codec.encode(as_int16, 16_000, speaker="anna")
    stream = codec.stream_encode(pieces(as_int16, 500), 16_000, speaker="anna", gain=expected.gain)
    assert Codes.collect(stream) == expected


def test_live_conversion(codec, samples):
    stream = codec.stream_encode(torch.from_numpy(block) for block in pieces(samples[:20_000], 500))
    converted = np.concatenate(list(codec.stream_decode(stream, speaker="p225")))
    assert converted.shape == (20_000,)
    assert np.array_equal(converted, codec.convert(samples[:20_000], 16_000, speaker="p225"))


def test_other_quantizers_stream_too(samples, tmp_path):
    torch.manual_seed(0)
    quantizer = {"kind": "residual_vq", "num_quantizers": 2, "codebook_size": 64}
    config = ModelConfig.model_validate(TINY | {"quantizer": quantizer})
    model = VQVAE(config)
    model.quantizer(torch.randn(4, 64, 100))  # starts its codebooks
    checkpoint.save(
        tmp_path / "rvq.safetensors", model, {"anna": np.zeros(64, np.int8)}, provenance={}
    )
    codec = vqcodec.load(tmp_path / "rvq.safetensors", device="cpu")
    codes = codec.encode(samples, 16_000, speaker="anna")
    stream = codec.stream_encode(pieces(samples, 999), speaker="anna", gain=codes.gain)
    assert Codes.collect(stream) == codes


def test_what_cannot_be_streamed_is_refused(codec, samples):
    with pytest.raises(SpeakerError, match="nobody"):
        codec.stream_encode([samples], speaker="nobody")
    with pytest.raises(AudioError, match="stream: holds no samples; record it again"):
        list(codec.stream_encode([], speaker="anna"))
    broken = samples.copy()
    broken[140_000] = np.nan
    stream = codec.stream_encode(pieces(broken, 1000), speaker="anna")
    with pytest.raises(AudioError, match=r"stream: the sample at 8\.750 s is nan"):
        list(stream)
    with pytest.raises(AudioError, match=r"shape \(1, 1, 9\); give"):
        list(codec.stream_encode([np.zeros((1, 1, 9))], speaker="anna", gain=1.0))
