"""Codes that were made before, on their way from files to a loss."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from training_data import MODEL, data_section, small_recipe

import vqcodec
from vqcodec.data.batches import NOT_ENCODED
from vqcodec.data.data_config import DataConfig, PerturbationConfig
from vqcodec.data.dataset import SegmentSampler, speaker_names
from vqcodec.data.encoded import read_encoded
from vqcodec.data.prepared import PreparedData
from vqcodec.errors import CodesError, DataError
from vqcodec.format.codes import Codes
from vqcodec.models.config import ModelConfig
from vqcodec.models.interfaces import Condition
from vqcodec.models.speaker_vector import guided
from vqcodec.models.vqvae import VQVAE
from vqcodec.training import stages
from vqcodec.training.objective import Objective
from vqcodec.weights import checkpoint

HOP = 128


class Encoded(NamedTuple):
    """A corpus, a model, and the code files that it made of most recordings."""

    data: PreparedData
    model: Path
    folder: Path


@pytest.fixture(scope="module")
def encoded(data: PreparedData, tmp_path_factory: pytest.TempPathFactory) -> Encoded:
    root = tmp_path_factory.mktemp("encoded")
    torch.manual_seed(0)
    model = VQVAE(ModelConfig.model_validate(MODEL))
    model.quantizer.initialized.fill_(True)
    checkpoint.save(root / "model.safetensors", model, {}, provenance={})
    codec = vqcodec.load(root / "model.safetensors", device="cpu", voices=False)
    for clip in data.clips[1:]:
        path = root / "codes" / f"{clip.name}.codes"
        path.parent.mkdir(parents=True, exist_ok=True)
        codec.encode(data.read(clip), data.sample_rate).save(path)
    return Encoded(data, root / "model.safetensors", root / "codes")


def sampler(
    encoded: Encoded,
    *,
    segment_length: int,
    resident: bool = False,
    perturbed: float = 0.0,
    converted: float = 0.0,
) -> SegmentSampler:
    data, start = encoded.data, checkpoint.load(encoded.model)
    return SegmentSampler(
        data,
        data.clips,
        DataConfig(batch_size=16, segment_length=segment_length, reference_s=0.5),
        speakers=speaker_names(data.clips),
        hop_length=HOP,
        perturbation=PerturbationConfig(probability=perturbed, conversion=converted),
        seed=0,
        resident=torch.from_numpy(np.array(data.audio)) if resident else None,
        encoded=read_encoded(
            encoded.folder, data, fingerprint=start.fingerprint, tables=start.tables
        ),
    )


@pytest.mark.parametrize("resident", [False, True])
def test_codes_lie_where_the_encoder_hears_what_they_were_made_of(
    encoded: Encoded, resident: bool
) -> None:
    batch = sampler(encoded, segment_length=100, resident=resident).batch(0)
    model = checkpoint.load(encoded.model).model
    heard = model.encode(batch.waveform)
    assert batch.codes.shape == heard.shape == (16, 1, 100)
    is_encoded = batch.codes[:, 0, 0] != NOT_ENCODED
    assert 3 < is_encoded.sum() < 13
    assert (batch.codes[~is_encoded] == NOT_ENCODED).all()
    middle = slice(20, 80)  # beside it, the encoder would hear what a segment does not have
    written, expected = (codes[is_encoded, :, middle] for codes in (batch.codes, heard))
    # Encoding takes the offset of what it is given anew; a code's place off, 14 % would differ.
    assert (written == expected).float().mean() > 0.99


def test_behind_a_recording_there_are_no_codes(encoded: Encoded) -> None:
    longest = -(-max(clip.n_samples for clip in encoded.data.clips) // HOP)
    drawn = sampler(encoded, segment_length=longest + 9)
    draws, batch = drawn.draw(0), drawn.batch(0)
    n_codes = -(-draws.spans[:, 0, 1] // HOP)
    assert (batch.codes != NOT_ENCODED).any()
    for row, codes in enumerate(batch.codes[:, 0]):
        if codes[0] != NOT_ENCODED:
            assert (codes != NOT_ENCODED).sum() == n_codes[row]
            assert (codes[n_codes[row] :] == NOT_ENCODED).all()


def test_a_recording_without_codes_is_encoded_as_ever(encoded: Encoded) -> None:
    bare = encoded.data.clips[0]
    drawn = sampler(encoded, segment_length=16)
    n_found = 0
    for step in range(8):
        draws, batch = drawn.draw(step), drawn.batch(step)
        is_bare = (draws.spans[:, 0, 0] >= bare.start) & (
            draws.spans[:, 0, 0] < bare.start + bare.n_samples
        )
        n_found += int(is_bare.sum())
        assert (batch.codes[is_bare] == NOT_ENCODED).all()
    assert n_found > 0


def test_what_has_codes_is_neither_perturbed_nor_converted(encoded: Encoded) -> None:
    batch = sampler(encoded, segment_length=16, perturbed=1.0).batch(0)
    has_codes = batch.codes[:, 0, 0] != NOT_ENCODED
    is_perturbed = (batch.encoder_input != batch.waveform).any(1)
    assert has_codes.any()
    assert torch.equal(is_perturbed, ~has_codes)
    converted = sampler(encoded, segment_length=16, converted=1.0).batch(0).converted
    assert torch.equal(converted, ~has_codes)


def test_given_codes_are_what_is_decoded(encoded: Encoded, tmp_path: Path) -> None:
    recipe = small_recipe(encoded.data, tmp_path, stage="fast", initial_model=str(encoded.model))
    model = checkpoint.load(encoded.model).model
    objective = Objective(model, recipe).train()
    batch = sampler(encoded, segment_length=16).batch(0)
    rng = np.random.default_rng(0)
    given = torch.from_numpy(rng.integers(0, MODEL["quantizer"]["codebook_size"], (16, 1, 16)))
    given[:, :, 9] = NOT_ENCODED
    losses = objective(batch._replace(codes=given))
    expected = torch.where(given == NOT_ENCODED, model.encode(batch.encoder_input), given)
    assert torch.equal(losses.indices, expected)
    assert model.fast is not None
    decoded = model.fast(Condition(model.latents(expected), model.speaker(batch.reference)))
    assert losses.decoded is not None
    torch.testing.assert_close(losses.decoded, decoded)


def test_a_decoder_is_trained_to_undo_conversions(encoded: Encoded, tmp_path: Path) -> None:
    recipe = small_recipe(encoded.data, tmp_path, stage="fast", initial_model=str(encoded.model))
    model = checkpoint.load(encoded.model).model
    objective = Objective(model, recipe).train()
    batch = sampler(encoded, segment_length=16, converted=1.0).batch(0)
    batch = batch._replace(codes=torch.full_like(batch.codes, NOT_ENCODED))
    losses = objective(batch)
    assert model.fast is not None
    own = model.speaker(batch.reference)
    heard = batch.waveform.clone()
    rows = batch.converted.nonzero()[:, 0].tolist()
    assert 3 < len(rows) < 13
    with torch.no_grad():
        for row in rows:
            told = guided(model.speaker(batch.target[row : row + 1]), own[row : row + 1])
            codes = model.encode(batch.waveform[row : row + 1])
            heard[row] = model.fast(Condition(model.latents(codes), told))
    assert torch.equal(losses.indices, model.encode(heard))
    decoded = model.fast(Condition(model.latents(losses.indices), own))
    assert losses.decoded is not None
    torch.testing.assert_close(losses.decoded, decoded)
    loss = objective.waveform_loss(decoded, batch.waveform)
    torch.testing.assert_close(losses.parts["mel"], loss.mel)


def test_a_decoder_is_trained_on_code_files(encoded: Encoded, tmp_path: Path) -> None:
    def trained(name: str, codes: Path | None) -> checkpoint.Checkpoint:
        recipe = small_recipe(
            encoded.data,
            tmp_path / name,
            stage="fast",
            initial_model=str(encoded.model),
            data=data_section(encoded.data, codes=None if codes is None else str(codes)),
        )
        return checkpoint.load(stages.train(recipe, device="cpu"))

    other = tmp_path / "codes"
    for path in encoded.folder.rglob("*.codes"):
        codes = Codes.load(path)
        target = other / path.relative_to(encoded.folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        replace(codes, codes=(codes.codes + 1) % codes.codebook_size).save(target)
    with_codes, with_others, without = (
        trained(name, folder)
        for name, folder in (("own", encoded.folder), ("others", other), ("none", None))
    )
    assert with_codes.fingerprint == checkpoint.load(encoded.model).fingerprint
    decoders = [one.model.fast for one in (with_codes, with_others, without)]
    weights = [torch.cat([p.flatten() for p in d.parameters()]) for d in decoders if d is not None]
    assert not torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_files_that_are_not_of_the_data_are_named(encoded: Encoded, tmp_path: Path) -> None:
    start = checkpoint.load(encoded.model)

    def read(folder: Path) -> None:
        read_encoded(folder, encoded.data, fingerprint=start.fingerprint, tables=None)

    with pytest.raises(DataError, match=r"holds no \.codes file"):
        read(tmp_path)
    first, second = (clip.name for clip in encoded.data.clips[1:3])
    codes = Codes.load(encoded.folder / f"{first}.codes")
    stray = tmp_path / "stray.codes"
    codes.save(stray)
    with pytest.raises(DataError, match="none of 1 code files has a recording"):
        read(tmp_path)
    shorter = tmp_path / f"{second}.codes"
    shorter.parent.mkdir()
    codes.save(shorter)
    with pytest.raises(DataError, match=f"{second}.codes: has .* codes where the recording"):
        read(tmp_path)
    shorter.unlink()
    replace(codes, fingerprint=bytes(8)).save(tmp_path / f"{first}.codes")
    with pytest.raises(CodesError, match=f"{first}.codes: made by model 0000000000000000"):
        read(tmp_path)
    stray.write_bytes(b"nothing")
    stray.rename(tmp_path / f"{first}.codes")
    with pytest.raises(CodesError, match=f"{first}.codes"):
        read(tmp_path)


def test_two_files_of_one_recording_are_refused(encoded: Encoded, tmp_path: Path) -> None:
    data, clip = copy.copy(encoded.data), encoded.data.clips[1]
    data.clips = [replace(clip, name="slt/alone")]
    codes = Codes.load(encoded.folder / f"{clip.name}.codes")
    for name in ("alone", "again/alone"):
        path = tmp_path / f"{name}.codes"
        path.parent.mkdir(exist_ok=True)
        codes.save(path)
    with pytest.raises(DataError, match="slt/alone has codes already; remove one"):
        read_encoded(tmp_path, data, fingerprint=codes.fingerprint, tables=None)
