"""What a prior is trained on: batches, and clips as codes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_models import TINY, save_tiny_model

import vqcodec
from vqcodec.data.prepared import PreparedData
from vqcodec.errors import CheckpointError, DataError
from vqcodec.models.config import ModelConfig
from vqcodec.models.speaker_vector import from_int8
from vqcodec.models.vqvae import VQVAE
from vqcodec.training.prior_data import IGNORED, CodedClip, CodeSampler, encode_clips
from vqcodec.training.recipe import PriorDataConfig
from vqcodec.weights import checkpoint


@pytest.fixture(scope="module")
def clips() -> list[CodedClip]:
    """Codes that tell their clip and place: clip 0 has 0, 1 ... 29, clip 1 has 100 ... 104."""
    vectors = np.arange(3 * 64).reshape(3, 64).astype(np.int8)
    return [
        CodedClip("anna", np.arange(30), vectors[0]),
        CodedClip("ben", 100 + np.arange(5), vectors[1]),
        CodedClip("anna", 200 + np.arange(40), vectors[2]),
    ]


def sampler(clips: list[CodedClip], **changes: Any) -> CodeSampler:
    config = PriorDataConfig(batch_size=4, segment_length=8, **changes)
    return CodeSampler(clips, config, begin=999, seed=0)


def test_rows_are_segments_and_the_codes_before_each(clips: list[CodedClip]) -> None:
    made = sampler(clips)
    starts = set()
    for step in range(200):
        batch = made.batch(step)
        for previous, codes in zip(batch.previous, batch.codes, strict=True):
            first = int(codes[0])
            starts.add(first)
            known = codes[codes != IGNORED]
            assert (known == first + torch.arange(len(known))).all()
            assert len(known) == (5 if first >= 100 and first < 200 else 8)
            assert previous[0] == (999 if first % 100 == 0 else first - 1)
            assert (previous[1 : len(known)] == known[:-1]).all()
    # Every place, the beginning and the end included.
    assert starts == {*range(23), 100, *range(200, 233)}


def test_every_code_is_about_equally_likely(clips: list[CodedClip]) -> None:
    counts = np.zeros(240)
    for step in range(1000):
        codes = sampler(clips).batch(step).codes
        counts += np.bincount(codes[codes != IGNORED], minlength=240)
    seen = counts[np.r_[0:30, 200:240]]
    assert seen.min() > 0.4 * seen.mean()
    assert seen.max() < 1.6 * seen.mean()


def test_speakers_are_those_of_any_of_their_clips_or_nobody(clips: list[CodedClip]) -> None:
    told = {"anna": set(), "ben": set()}  # type: dict[str, set[bytes]]
    for step in range(100):
        batch = sampler(clips, speaker_dropout=0.2).batch(step)
        for codes, speaker in zip(batch.codes, batch.speaker, strict=True):
            told["ben" if 100 <= codes[0] < 200 else "anna"].add(speaker.numpy().tobytes())
    first, second, third = (from_int8(clip.vector).tobytes() for clip in clips)
    nobody = np.zeros(64, np.float32).tobytes()
    assert told == {"anna": {first, third, nobody}, "ben": {second, nobody}}


def test_processes_share_the_rows_of_a_batch(clips: list[CodedClip]) -> None:
    whole = sampler(clips).batch(7)
    parts = [sampler(clips).batch(7, rank, 2) for rank in range(2)]
    for index, tensor in enumerate(whole):
        assert torch.equal(torch.cat([part[index] for part in parts]), tensor)


def test_clips_are_encoded_once_for_each_codec(
    data: PreparedData, codec: vqcodec.Codec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clips, path = data.clips[:3], tmp_path / "codes.safetensors"
    made = encode_clips(codec, data, clips, path)
    for clip, coded in zip(clips, made, strict=True):
        codes = codec.encode(data.read(clip), data.sample_rate)
        assert (coded.codes == codes.codes[0]).all()
        assert (coded.vector == codes.speaker).all()
        assert coded.speaker == clip.speaker
    encode, n_encoded = vqcodec.Codec.encode, []

    def counted(*arguments: Any, **options: Any) -> Any:
        n_encoded.append(1)
        return encode(*arguments, **options)

    monkeypatch.setattr(vqcodec.Codec, "encode", counted)
    for again, first in zip(encode_clips(codec, data, clips, path), made, strict=True):
        assert (again.codes == first.codes).all()
        assert (again.vector == first.vector).all()
    assert not n_encoded
    encode_clips(codec, data, clips[:2], path)
    assert len(n_encoded) == 2
    save_tiny_model(tmp_path / "other.safetensors", seed=1)
    other = vqcodec.load(tmp_path / "other.safetensors", device="cpu")
    renewed = encode_clips(other, data, clips[:2], path)
    assert len(n_encoded) == 4
    assert not np.array_equal(renewed[0].codes, made[0].codes)


def test_a_flipped_bit_in_the_codes_is_found(
    data: PreparedData, codec: vqcodec.Codec, coded_clips: Path, tmp_path: Path
) -> None:
    path = tmp_path / coded_clips.name
    content = bytearray(coded_clips.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"SHA-256 does not match\): delete it, and"):
        encode_clips(codec, data, data.split("train"), path)
    path.unlink()
    assert encode_clips(codec, data, data.split("train")[:1], path)


def test_several_codebooks_are_refused(data: PreparedData, tmp_path: Path) -> None:
    quantizer = {"kind": "residual_vq", "num_quantizers": 2}
    model = VQVAE(ModelConfig.model_validate({**TINY, "quantizer": quantizer}))
    checkpoint.save(tmp_path / "residual.safetensors", model, {}, {})
    codec = vqcodec.load(tmp_path / "residual.safetensors", device="cpu")
    with pytest.raises(DataError, match=r"residual: has 2 codebooks, and a prior knows .* of one"):
        encode_clips(codec, data, data.clips, tmp_path / "codes.safetensors")
