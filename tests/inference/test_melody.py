"""A model that is told the pitch: the same however a recording comes, and as the options say."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from recordings import spoken
from sounds import pieces
from tiny_models import TINY

import vqcodec
from vqcodec.audio.pitch_tracker import contour
from vqcodec.codec import Codec
from vqcodec.errors import CodesError, SpeakerError, VqcodecError
from vqcodec.format.codes import Codes, read_pipe
from vqcodec.format.stream_records import CodeBlock, split
from vqcodec.format.streaming import CodesStream
from vqcodec.inference import chunking, code_search, melody, voice_tuning
from vqcodec.inference.units import NOBODY
from vqcodec.models.config import ModelConfig
from vqcodec.models.interfaces import DecodeOptions
from vqcodec.models.pitch import UNVOICED
from vqcodec.weights import checkpoint, model_file
from vqcodec.weights.voices import Speaker, VoiceInfo

RATE = 16_000


@pytest.fixture(scope="module")
def codec(told_model: Path) -> Codec:
    codec = vqcodec.load(told_model, device="cpu")
    known = codec.voices["anna"]
    codec.voices["anna"] = Speaker(known.vector, "anna", VoiceInfo(pitch_hz=240.0))
    return codec


@pytest.fixture(scope="module")
def samples() -> np.ndarray:
    """Seven seconds of two people."""
    return np.concatenate([spoken("slt", 0.0, 3.4), spoken("rms", 0.0, 3.6)])[: 7 * RATE - 77]


@pytest.fixture(scope="module")
def codes(codec: Codec, samples: np.ndarray) -> Codes:
    return codec.encode(samples, RATE)


def test_codes_tell_the_pitch_about_the_recording_s_mean(
    codec: Codec, codes: Codes, samples: np.ndarray
) -> None:
    (record,) = codes.streams
    recording = vqcodec.audio.open_recording(samples, RATE)
    (speech,) = recording.speech(RATE, len(samples), recording.gain())
    heard = contour(speech / np.float32(recording.gain()), 128)
    mean = heard[heard != UNVOICED].mean()
    assert np.log(record.reference) == pytest.approx(mean, abs=1e-4)
    symbols = codes.symbols["pitch"]
    assert symbols.shape == (codes.n_codes // 4,)
    assert abs(symbols[symbols > 0].mean() - 32) < 1
    assert {len(block) for block in melody.rows(codes, codec.config)} == {2}
    assert {len(block) for block in melody.rows(codes, ModelConfig.model_validate(TINY))} == {1}


@pytest.mark.parametrize("length", [160, 5_000])
@pytest.mark.parametrize("sample_rate", [RATE, 44_100])
def test_live_codes_are_the_codes(
    codec: Codec, samples: np.ndarray, length: int, sample_rate: int
) -> None:
    whole = codec.encode(samples, sample_rate, speaker="anna")
    stream = codec.stream_encode(
        pieces(samples, length), sample_rate, speaker="anna", gain=whole.gain
    )
    (record,) = stream.metadata.streams
    assert record.reference == 240  # which is known
    live = Codes.collect(stream)
    assert np.array_equal(live.codes, whole.codes)
    shift = round(24 * np.log2(240 / whole.streams[0].reference))
    both = (live.symbols["pitch"] > 0) & (whole.symbols["pitch"] > 0)
    assert np.array_equal(live.symbols["pitch"] > 0, whole.symbols["pitch"] > 0)
    moved = whole.symbols["pitch"].astype(int) - live.symbols["pitch"].astype(int)
    within = both & (live.symbols["pitch"] > 1) & (whole.symbols["pitch"] < 63)
    assert np.abs(moved[within] - shift).max() <= 1


def test_a_live_voice_is_heard_in_the_beginning(codec: Codec, samples: np.ndarray) -> None:
    beginning = samples[: 3 * RATE]
    whole = codec.encode(beginning, RATE)
    live = Codes.collect(codec.stream_encode(pieces(beginning, 1000), RATE, gain=whole.gain))
    assert live.streams[0].reference == pytest.approx(whole.streams[0].reference, rel=0.02)
    named = codec.stream_encode(pieces(beginning, 1000), RATE, gain=whole.gain, speaker="p225")
    assert named.metadata.streams == live.streams  # of p225 it is not known


@pytest.mark.parametrize("decoder", ["fast", "wavenet"])
@pytest.mark.parametrize("speaker", [None, "anna"])
def test_live_audio_is_the_audio(codec: Codec, codes: Codes, decoder: str, speaker: str) -> None:
    options = {"decoder": decoder, "seed": 3, "speaker": speaker, "pitch": 2.0, "melody": 1.5}
    wanted = codec.decode(codes, **options)
    assert wanted.shape == (codes.n_samples,)

    def blocks() -> Iterator[CodeBlock]:
        yield from split(CodeBlock(codes.codes, codes.symbols), codes.streams, 0, 10)
        return codes.n_samples

    live = np.concatenate(list(codec.stream_decode(CodesStream(codes, blocks()), **options)))
    assert np.array_equal(live, wanted)
    file = io.BytesIO()
    CodesStream(codes, blocks()).write(file)
    file.seek(0)
    piped = np.concatenate(list(codec.stream_decode(read_pipe(file, "pipe"), **options)))
    assert np.array_equal(piped, wanted)


def test_audio_does_not_depend_on_chunks(
    codec: Codec, codes: Codes, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = codec.decode(codes, speaker="anna", decoder="fast")
    monkeypatch.setattr(chunking, "LENGTH", 93)
    assert np.array_equal(codec.decode(codes, speaker="anna", decoder="fast"), whole)


def test_stored_blocks_are_told_alike_however_they_come(codec: Codec, codes: Codes) -> None:
    block, (record,) = CodeBlock(codes.codes, codes.symbols), codes.streams
    whole = np.concatenate(list(melody.told_blocks([block], record)), axis=1)
    assert np.array_equal(whole[0], codes.codes[0])
    for length in (1, 3, 25, 100):
        parts = list(melody.told_blocks(split(block, (record,), 0, length), record))
        assert np.array_equal(np.concatenate(parts, axis=1), whole)


def told(voice: melody.Voice, codes: Codes) -> np.ndarray:
    """Log F0 that a decoder is told where it is voiced."""
    rows = np.concatenate(list(melody.rows(codes, ModelConfig.model_validate({"pitch": {}}))), 1)
    features = voice.streams(rows[1])["pitch"]
    centres = np.linspace(np.log(52), np.log(550), 64)
    return (centres @ features[:-1])[features[-1] == 0]


def test_a_conversion_takes_the_melody_to_the_other_voice(codec: Codec, codes: Codes) -> None:
    speakers, mean = codec._speakers, np.log(codes.streams[0].reference)

    def contour_of(speaker: str | None, **options: object) -> np.ndarray:
        how = DecodeOptions(**options)
        return told(speakers.told(codes, speaker and codec.voices[speaker], how), codes)

    own, anna = contour_of(None), contour_of("anna")
    assert own.mean() == pytest.approx(mean, abs=0.05)
    assert anna - own == pytest.approx(np.log(240) - mean, abs=2e-3)
    assert contour_of("anna", pitch=-5.0) - anna == pytest.approx(-5 * np.log(2) / 12, abs=2e-3)
    assert contour_of("anna", melody="flat") == pytest.approx(np.log(240), abs=1e-4)
    assert contour_of(None, melody=0.5) - mean == pytest.approx((own - mean) / 2, abs=2e-3)
    assert speakers.own(codes).is_like(speakers.told(codes, None, DecodeOptions()))


def test_a_voice_of_unknown_height_is_not_told_the_pitch(codec: Codec, codes: Codes) -> None:
    bare = Codes(codes.codes, **{f: getattr(codes, f) for f in (
        "codebook_size", "sample_rate", "hop_length", "fingerprint", "original_sample_rate",
        "gain", "speaker", "n_samples")})  # fmt: skip
    assert not np.array_equal(codec.decode(codes), codec.decode(bare))
    assert codec._speakers.told(codes, codec.voices["p225"], DecodeOptions()).pitch is None
    with pytest.raises(SpeakerError, match=r"not known how high p225 is.*enroll it anew"):
        codec.decode(codes, speaker="p225", pitch=1.0)
    with pytest.raises(CodesError, match="need a pitch stream, and these codes tell none"):
        codec.decode(bare, pitch=1.0)


def test_units_come_without_the_pitch_being_tracked(
    codec: Codec, codes: Codes, samples: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vqcodec.audio.pitch_tracker._detector", None)
    own = codec.encode(samples, RATE, speaker=NOBODY)
    assert own.streams == ()
    assert np.array_equal(own.codes, codes.codes)
    with pytest.raises(TypeError):
        codec.encode(samples, RATE)


def test_a_reference_recording_tells_its_height(codec: Codec, samples: np.ndarray) -> None:
    voice = codec.speaker(samples[: 4 * RATE], RATE)
    assert 140 < voice.info.pitch_hz < 200


def test_a_model_without_the_stream_ignores_it_and_says_so_if_asked(
    tiny_model: Path, samples: np.ndarray, codes: Codes
) -> None:
    plain = vqcodec.load(tiny_model, device="cpu")
    own = plain.encode(samples, RATE)
    assert own.streams == ()
    (record,) = codes.streams
    symbols = {"pitch": np.zeros(own.n_codes // 4, int)}
    told_codes = replace(own, streams=(record,), symbols=symbols)
    assert np.array_equal(plain.decode(told_codes), plain.decode(own))
    with pytest.raises(VqcodecError, match="need a pitch stream, and tiny knows none"):
        plain.decode(own, melody="flat")
    with pytest.raises(VqcodecError, match="need a pitch stream, and tiny knows none"):
        plain.convert("nowhere.wav", speaker="anna", pitch=1.0)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"pitch": 25.0}, "pitch 25.0: give semitones from -24 to 24"),
        ({"pitch": float("nan")}, "pitch nan"),
        ({"pitch": "2"}, "pitch '2': give semitones"),
        ({"pitch": None}, "pitch None: give semitones"),
        ({"melody": "sad"}, "melody sad: give keep, flat, or a factor from 0 to 4"),
        ({"melody": -1.0}, "melody -1.0"),
        ({"melody": float("inf")}, "melody inf"),
    ],
)
def test_impossible_options_are_refused(
    codec: Codec, codes: Codes, options: dict, match: str
) -> None:
    with pytest.raises(VqcodecError, match=match):
        codec.decode(codes, **options)


def test_factors_may_be_numbers_of_numpy(codec: Codec, codes: Codes) -> None:
    heard = codec.decode(codes, pitch=np.float32(2.0), melody=np.float32(1.5))
    assert np.array_equal(heard, codec.decode(codes, pitch=2.0, melody=1.5))


def test_a_decoder_that_has_not_learnt_the_pitch_does_not_drop_it(
    told_model: Path, codes: Codes, tmp_path: Path
) -> None:
    loaded = checkpoint.load(told_model)
    with torch.no_grad():
        for name, parameter in loaded.model.named_parameters():
            if name.startswith("wavenet.streams."):
                parameter.zero_()
    voices = model_file.read(str(told_model)).voices
    checkpoint.save(tmp_path / "half.safetensors", loaded.model, voices, provenance={})
    half = vqcodec.load(tmp_path / "half.safetensors", device="cpu")
    with pytest.raises(VqcodecError, match="the wavenet decoder of half, which has not learnt"):
        half.decode(codes, decoder="wavenet", pitch=2.0)
    with pytest.raises(VqcodecError, match="choose another decoder"):
        half.stream_decode(codes, decoder="wavenet", melody="flat")
    lower = half.decode(codes, decoder="fast", pitch=-2.0)
    assert not np.array_equal(lower, half.decode(codes, decoder="fast"))


def test_codes_are_searched_for_with_the_pitch(
    codec: Codec, samples: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard = []
    run = code_search.run_decoder
    monkeypatch.setattr(code_search, "STEPS", 1)
    monkeypatch.setattr(
        code_search, "run_decoder", lambda *a: (heard.append(a[1].streams["pitch"]), run(*a))[1]
    )
    clip = samples[: 5 * RATE]  # two chunks
    refined, plain = codec.encode(clip, RATE, refine=True), codec.encode(clip, RATE)
    assert np.array_equal(refined.symbols["pitch"], plain.symbols["pitch"])
    assert [part.shape[1] for part in heard] == [65, 65]
    (rows,) = list(melody.rows(plain, codec.config))[:1]
    features = codec._speakers.own(plain).streams(rows[1])["pitch"]
    n = min(features.shape[1], heard[0].shape[2])
    assert np.array_equal(heard[0][0, :, :n].numpy(), features[:, :n])


def test_a_voice_is_tuned_with_the_pitch(
    codec: Codec, samples: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(voice_tuning, "STEPS", 2)
    segments = voice_tuning._segments(
        codec._torch, vqcodec.audio.open_recording(samples[: 3 * RATE], RATE)
    )
    assert {part.streams["pitch"].shape for part in segments} == {(65, 125)}
    voice = codec.enroll("carl", [(RATE, samples)], tune=True)
    assert voice.info.pitch_hz is not None
