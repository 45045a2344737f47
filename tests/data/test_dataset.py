from __future__ import annotations

import numpy as np
import pytest
import soundfile
import torch

from vqcodec.data import corpora
from vqcodec.data.batches import Batch
from vqcodec.data.data_config import AugmentationConfig, DataConfig, PerturbationConfig
from vqcodec.data.dataset import SegmentSampler, load_resident_audio, speaker_names
from vqcodec.data.prepared import Clip, PreparedData, prepare
from vqcodec.data.stream_tracks import StreamTracks
from vqcodec.errors import DataError

RATE, HOP = 16000, 128
CONFIG = DataConfig(batch_size=6, segment_length=32, reference_s=0.5)
LENGTH, REFERENCE = 32 * HOP, 8000
# Every sample tells its clip and place, so that a test can read both from a segment.
CLIPS = {"anna": [1.5, 2.0, 0.9], "bert": [3.0], "carl": [0.1, 0.12], "dora": [0.3]}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> PreparedData:
    root = tmp_path_factory.mktemp("corpus")
    for speaker, lengths in CLIPS.items():
        for index, seconds in enumerate(lengths):
            path = root / "wav" / speaker / f"{index}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            rng = np.random.default_rng([len(speaker), ord(speaker[0]), index])
            soundfile.write(path, rng.uniform(-0.3, 0.3, round(seconds * RATE)), RATE)
    return prepare(corpora.folder(root / "wav"), root / "prepared", corpus="folder")


def sampler(
    data: PreparedData,
    clips: list[Clip] | None = None,
    *,
    config: DataConfig = CONFIG,
    seed: int = 0,
    perturbed: float = 0.0,
    converted: float = 0.0,
    augmented: float = 0.0,
    resident: torch.Tensor | None = None,
    dropout: float = 0.5,
    **perturbation: object,
) -> SegmentSampler:
    how = {"probability": perturbed, "conversion": converted, "stream_dropout": dropout}
    return SegmentSampler(
        data,
        data.clips if clips is None else clips,
        config,
        speakers=speaker_names(data.clips),
        hop_length=HOP,
        perturbation=PerturbationConfig.model_validate(how | perturbation),
        augmentation=AugmentationConfig(probability=augmented),
        seed=seed,
        resident=resident,
        tracks=numbered(data),
    )


class Plain:
    """A stream that tells what was heard."""

    channels = 1

    def stored(self, track: np.ndarray) -> np.ndarray:
        return track

    def features(self, track: np.ndarray) -> np.ndarray:
        return track[..., None, :]


def numbered(data: PreparedData) -> StreamTracks:
    """Log F0 that tells the code of its clip, a little over that of 120 Hz."""
    values, spans, end = [], {}, 0
    for clip in data.clips:
        n_codes = -(-clip.n_samples // HOP)
        values.append(4.8 + np.arange(n_codes) / 1024)
        spans[clip.name], end = (end, end + n_codes), end + n_codes
    track = np.concatenate(values).astype(np.float32)
    return StreamTracks({"pitch": track}, spans, {"pitch": Plain()})


def place(data: PreparedData, samples: torch.Tensor) -> tuple[Clip, int]:
    """Clip and start of samples, which may be padded with zeros."""
    wanted = samples.numpy()[:64]
    for clip in data.clips:
        whole = data.read(clip)
        for start in np.flatnonzero(whole[:-63] == wanted[0]):
            if (whole[start : start + 64] == wanted).all():
                return clip, int(start)
    raise AssertionError("not from the data")


def tensors(batch: Batch) -> list[torch.Tensor]:
    *plain, streams, values = batch
    return [*plain, *streams.values(), *values.values()]


def equal(one: Batch, other: Batch) -> bool:
    return all(map(torch.equal, tensors(one), tensors(other)))


@pytest.mark.parametrize("perturbed", [0.0, 0.5])
def test_a_batch_is_a_function_of_seed_and_step(data: PreparedData, perturbed: float) -> None:
    first = sampler(data, perturbed=perturbed)
    first.batch(0)  # what was drawn before must not matter
    assert equal(first.batch(7), sampler(data, perturbed=perturbed).batch(7))
    assert not torch.equal(first.batch(7).waveform, first.batch(8).waveform)
    other = sampler(data, seed=1, perturbed=perturbed)
    assert not torch.equal(first.batch(7).waveform, other.batch(7).waveform)


@pytest.mark.parametrize("kind", ["perturbed", "converted", "augmented"])
def test_processes_share_the_batch_of_one(data: PreparedData, kind: str) -> None:
    one = sampler(data, **{kind: 0.5})
    whole = one.batch(3)
    parts = [one.batch(3, rank, 2) for rank in range(2)]
    assert len(parts[0].waveform) == 3
    joined = map(torch.cat, zip(*map(tensors, parts), strict=True))
    assert all(map(torch.equal, tensors(whole), joined))


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_made_ahead_are_those_of_their_steps(data: PreparedData, workers: int) -> None:
    config = CONFIG.model_copy(update={"workers": workers})
    batches = list(sampler(data, config=config).batches(range(5, 9), rank=1, world_size=2))
    assert len(batches) == 4
    for step, batch in enumerate(batches, 5):
        assert isinstance(batch, Batch)
        assert equal(batch, sampler(data).batch(step, 1, 2))


@pytest.mark.parametrize("workers", [0, 2])
def test_resident_audio_makes_the_same_batches(data: PreparedData, workers: int) -> None:
    audio = load_resident_audio(data, torch.device("cpu"), wanted=True)
    assert audio is not None
    assert audio.dtype == torch.int16
    config = CONFIG.model_copy(update={"workers": workers})
    shares = {"perturbed": 0.5, "converted": 0.5, "augmented": 0.5}
    resident = sampler(data, config=config, resident=audio, **shares)
    mapped = sampler(data, **shares)
    for step, batch in enumerate(resident.batches(range(3, 6), rank=1, world_size=2), 3):
        assert equal(batch, mapped.batch(step, 1, 2))


def test_audio_is_resident_where_it_is_wanted_only(data: PreparedData) -> None:
    assert load_resident_audio(data, torch.device("cpu"), wanted=None) is None
    assert load_resident_audio(data, torch.device("cpu"), wanted=False) is None


def test_streams_are_those_of_the_segments(data: PreparedData) -> None:
    batch = sampler(data, dropout=0.0).batch(1)
    assert batch.streams["pitch"].shape == (6, 1, 32)
    for waveform, told in zip(batch.waveform, batch.streams["pitch"][:, 0], strict=True):
        clip, start = place(data, waveform)
        n_codes = -(-min(clip.n_samples - start, LENGTH) // HOP)
        codes = (1024 * (told - 4.8)).round()
        first = int(codes[0])
        assert abs(first - start / HOP) <= 0.5
        n_told = min(n_codes, -(-clip.n_samples // HOP) - first)
        assert codes[:n_told].tolist() == list(range(first, first + n_told))
        assert not told[n_told:].any()


def test_some_segments_are_decoded_without_streams(data: PreparedData) -> None:
    told = torch.cat([sampler(data).batch(step).streams["pitch"] for step in range(20)])
    assert 0.3 < told.any(-1).float().mean() < 0.7
    assert not sampler(data, dropout=1.0).batch(0).streams["pitch"].any()


def test_the_encoder_hears_another_melody(data: PreparedData) -> None:
    plain = sampler(data, perturbed=1.0).batch(2)
    settings = {"mean_hz": (100.0, 300.0), "contour_scale": (0.0, 1.0), "drift_semitones": 1.0}
    other = sampler(data, perturbed=1.0, **settings).batch(2)
    coloured = sampler(data, perturbed=1.0, equalizer_db=3.0).batch(2)
    assert torch.equal(plain.waveform, other.waveform)
    for batch in (other, coloured):
        assert ((batch.encoder_input - plain.encoder_input).abs().amax(1) > 1e-3).all()


def test_only_what_the_encoders_hear_is_augmented(data: PreparedData) -> None:
    both = [sampler(data, augmented=share) for share in (0.0, 0.5)]
    changed = []
    for step in range(10):
        plain, augmented = (each.batch(step) for each in both)
        assert torch.equal(plain.waveform, plain.encoder_input)
        assert torch.equal(plain.reference, plain.speaker_input)
        other = augmented._replace(
            encoder_input=plain.encoder_input, speaker_input=plain.speaker_input
        )
        assert equal(plain, other)
        changed += [
            (augmented.encoder_input != plain.waveform).any(1),
            (augmented.speaker_input != plain.reference).any(1),
        ]
    shares = torch.stack(changed).float().unflatten(0, (10, 2)).mean((0, 2))
    assert ((shares > 0.3) & (shares < 0.7)).all()


def test_shapes_and_types(data: PreparedData) -> None:
    batch = sampler(data, perturbed=1.0).batch(0)
    assert batch.waveform.shape == batch.encoder_input.shape == (6, LENGTH)
    assert batch.reference.shape == (6, REFERENCE)
    assert batch.speaker.shape == (6,)
    assert batch.speaker.dtype == torch.int64
    assert {tensor.dtype for tensor in batch[:3]} == {torch.float32}


def test_only_the_encoder_s_input_is_perturbed(data: PreparedData) -> None:
    plain, perturbed = sampler(data).batch(2), sampler(data, perturbed=1.0).batch(2)
    assert torch.equal(plain.waveform, plain.encoder_input)
    assert torch.equal(plain.waveform, perturbed.waveform)
    assert torch.equal(plain.reference, perturbed.reference)
    changed = (perturbed.encoder_input - perturbed.waveform).abs().amax(1)
    assert (changed > 0.01).all()
    levels = perturbed.encoder_input.square().mean(1) / perturbed.waveform.square().mean(1)
    torch.testing.assert_close(levels, torch.ones(6), rtol=1e-3, atol=0)


def test_who_is_converted_is_not_perturbed_and_hears_of_another_voice(data: PreparedData) -> None:
    perturbed = sampler(data, perturbed=1.0)
    mixed = sampler(data, perturbed=1.0, converted=0.5)
    assert not perturbed.batch(0).converted.any()
    assert perturbed.batch(0).target.shape == (6, 0)
    n_converted, voices = 0, set()
    for step in range(20):
        before, batch = perturbed.batch(step), mixed.batch(step)
        rows = batch.converted
        n_converted += int(rows.sum())
        same = set(Batch._fields) - {"encoder_input", "converted", "target", "streams", "values"}
        assert all(torch.equal(getattr(before, name), getattr(batch, name)) for name in same)
        assert torch.equal(batch.encoder_input[rows], batch.waveform[rows])
        torch.testing.assert_close(batch.encoder_input[~rows], before.encoder_input[~rows])
        assert batch.target.shape == (6, REFERENCE)
        assert not batch.target[~rows].any()
        voices |= {place(data, target)[0].speaker for target in batch.target[rows]}
    assert 40 < n_converted < 80
    assert {"anna", "bert"} <= voices


def test_segments_and_references_come_from_where_they_should(data: PreparedData) -> None:
    names = speaker_names(data.clips)
    seen = set()
    for step in range(20):
        batch = sampler(data).batch(step)
        for waveform, reference, row in zip(
            batch.waveform, batch.reference, batch.speaker.tolist(), strict=True
        ):
            clip, _ = place(data, waveform)
            other, _ = place(data, reference)
            assert clip.speaker == other.speaker == names[row]
            if len(CLIPS[clip.speaker]) > 1:
                assert clip is not other
            seen.add(clip.speaker)
    assert seen == set(CLIPS)


def test_a_lone_clip_s_reference_avoids_the_segment(data: PreparedData) -> None:
    lone = [clip for clip in data.clips if clip.speaker == "bert"]
    for step in range(20):
        batch = sampler(data, lone).batch(step)
        for waveform, reference in zip(batch.waveform, batch.reference, strict=True):
            (_, start), (_, begin) = place(data, waveform), place(data, reference)
            assert begin + REFERENCE <= start or start + LENGTH <= begin


def test_a_clip_too_short_for_both_still_gives_a_reference(data: PreparedData) -> None:
    short = [clip for clip in data.clips if clip.speaker == "dora"]  # 4800 samples
    batch = sampler(data, short).batch(0)
    assert (batch.reference[:, :4800].abs().amax(1) > 0).all()
    assert (batch.reference[:, 4800:] == 0).all()


def test_short_clips_are_padded_with_silence(data: PreparedData) -> None:
    short = [clip for clip in data.clips if clip.speaker == "carl"]  # 1600 and 1920 samples
    batch = sampler(data, short).batch(0)
    for waveform in batch.waveform:
        clip, start = place(data, waveform)
        assert start == 0
        np.testing.assert_array_equal(waveform[: clip.n_samples].numpy(), data.read(clip))
        assert (waveform[clip.n_samples :] == 0).all()


def test_every_second_is_equally_likely(data: PreparedData) -> None:
    drawn = torch.cat([sampler(data).batch(step).speaker for step in range(150)])
    share = torch.bincount(drawn, minlength=4) / len(drawn)
    seconds = torch.tensor([sum(CLIPS[name]) for name in sorted(CLIPS)])
    torch.testing.assert_close(share, seconds / seconds.sum(), atol=0.05, rtol=0)


def test_rows_are_those_of_all_speakers(data: PreparedData) -> None:
    some = [clip for clip in data.clips if clip.speaker in ("bert", "dora")]
    assert set(sampler(data, some).batch(0).speaker.tolist()) <= {1, 3}


def test_no_clips(data: PreparedData) -> None:
    with pytest.raises(DataError, match="no training clips"):
        sampler(data, [])
