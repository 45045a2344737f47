"""Phone labels on their way from files to a loss."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from training_data import data_section, prepare_speech, small_recipe, trainer_of

from vqcodec.data.data_config import DataConfig, PerturbationConfig
from vqcodec.data.dataset import SegmentSampler, speaker_names
from vqcodec.data.labels import UNLABELLED, labels_at
from vqcodec.data.phones import add_phones, read_phones
from vqcodec.data.prepared import Clip, PreparedData
from vqcodec.errors import DataError
from vqcodec.format.textgrid import Interval, textgrid
from vqcodec.training import stages, trainer
from vqcodec.training.loop import Report

HOP = 128


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> PreparedData:
    """Of this module alone: it is given labels."""
    return prepare_speech(tmp_path_factory.mktemp("speech"))


def write_labels(folder: Path, intervals: dict[str, list[Interval]]) -> Path:
    for name, own in intervals.items():
        path = folder / f"{name}.lab"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{start:.6f} {end:.6f} {label}\n" for start, end, label in own))
    return folder


def thirds(data: PreparedData, *, without: str = "") -> dict[str, list[Interval]]:
    """Of every clip but the one `without`: AH, then nothing, then a pause beyond the end."""
    return {
        clip.name: [Interval(0.0, third, "AH0"), Interval(2 * third, 3 * third + 1, "pau")]
        for clip in data.clips
        if clip.name != without
        for third in [clip.n_samples / data.sample_rate / 3]
    }


def test_every_sample_has_the_phone_of_its_label_file(data: PreparedData, tmp_path: Path) -> None:
    bare = data.clips[1].name
    intervals = thirds(data, without=bare)
    written = add_phones(data, write_labels(tmp_path, intervals))
    track = read_phones(data)
    assert track.n_clips == written.n_clips == len(data.clips) - 1
    assert track.classes == ("AH", "sil")
    for clip in data.clips:
        samples = np.arange(clip.n_samples)
        # Half a sample later: a label's end is rounded to a sample.
        times = (samples + 0.5) / data.sample_rate
        expected = np.full(len(samples), UNLABELLED)
        if clip.name != bare:
            phones = [
                interval._replace(label={"AH0": "AH", "pau": "sil"}[interval.label])
                for interval in intervals[clip.name]
            ]
            expected = labels_at(phones, times, {"AH": 0, "sil": 1})
        found = track.phones[np.searchsorted(track.starts, clip.start + samples, "right") - 1]
        near = np.abs(samples[:, None] - clip.n_samples * np.array([1, 2]) / 3).min(1) < 2
        assert ((found == expected) | near).all()


def test_labels_in_samples_under_another_name_are_refused(
    data: PreparedData, tmp_path: Path
) -> None:
    clip = data.clips[0]
    path = tmp_path / f"{clip.name}.lab"
    path.parent.mkdir(parents=True)
    path.write_text(f"0 {clip.n_samples} aa\n")
    with pytest.raises(DataError, match=f"{clip.name}: its labels end at 0.0"):
        add_phones(data, tmp_path)
    add_phones(data, path.rename(path.with_suffix(".phn")).parents[clip.name.count("/")])
    assert (read_phones(data).phones == 0).sum() == 1


def test_labels_that_overlap_by_rounding_are_read(data: PreparedData, tmp_path: Path) -> None:
    clip = data.clips[0]
    overlapping = [Interval(0.0, 0.50008, "AH"), Interval(0.5, 0.7, "IY")]
    add_phones(data, write_labels(tmp_path, {clip.name: overlapping}))
    track = read_phones(data)
    at = clip.start + np.array([round(time * data.sample_rate) for time in (0.4, 0.6, 0.8)])
    found = track.phones[np.searchsorted(track.starts, at, "right") - 1]
    assert found.tolist() == [0, 1, UNLABELLED]


@pytest.mark.parametrize("resident", [False, True])
def test_a_batch_knows_the_phone_at_the_centre_of_every_code(
    data: PreparedData, tmp_path: Path, resident: bool
) -> None:
    track = add_phones(data, write_labels(tmp_path, thirds(data)))
    longest = max(clip.n_samples for clip in data.clips)
    n_codes = longest // HOP + 9  # over the end of every clip
    sampler = SegmentSampler(
        data,
        data.clips,
        DataConfig(batch_size=4, segment_length=n_codes, reference_s=0.5),
        speakers=speaker_names(data.clips),
        hop_length=HOP,
        perturbation=PerturbationConfig(),
        seed=0,
        resident=torch.from_numpy(np.array(data.audio)) if resident else None,
        phones=track,
    )
    draws, batch = sampler.draw(0), sampler.batch(0)
    assert batch.phones.shape == (4, n_codes)
    for start, n_read, phones in zip(
        draws.spans[:, 0, 0].tolist(), draws.spans[:, 0, 1].tolist(), batch.phones, strict=True
    ):
        centres = np.arange(n_codes) * HOP + HOP // 2
        third = n_read / 3
        expected = np.select(
            [centres < third, centres < 2 * third, centres < n_read],
            [0, UNLABELLED, 1],
            UNLABELLED,
        )
        near = np.abs(centres[:, None] - [third, 2 * third]).min(1) < 2
        assert start in {clip.start for clip in data.clips}
        assert ((phones.numpy() == expected) | near).all()


def loud_or_not(data: PreparedData, clip: Clip) -> list[Interval]:
    """Of 20 ms each."""
    length = data.sample_rate // 50
    frames = data.read(clip)[: clip.n_samples // length * length].reshape(-1, length)
    names = np.where(np.sqrt((frames**2).mean(1)) > 0.03, "AA", "sil")
    return [Interval(0.02 * i, 0.02 * i + 0.02, str(name)) for i, name in enumerate(names)]


def train(prepared: PreparedData, output: Path, **changes: object) -> list[Report]:
    reports: list[Report] = []
    recipe = small_recipe(prepared, output, **changes)
    stages.train(recipe, device="cpu", on_report=reports.append)
    return reports


def test_codes_learn_the_phones(
    data: PreparedData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer, "VALIDATION_BATCHES", 1)
    labels = {clip.name: loud_or_not(data, clip) for clip in data.clips}
    add_phones(data, write_labels(tmp_path / "labels", labels))
    changes = {
        "steps": 120,
        "data": data_section(data, batch_size=8),
        "optimizer": {"learning_rate": 1e-2, "warmup_steps": 1},
        "log_every": 20,
        "validate_every": 120,
    }
    taught = train(data, tmp_path / "taught", loss={"phones": 5.0}, **changes)
    assert 0 < taught[-1].losses["phones"] < 0.5 * taught[0].losses["phones"]
    untaught = train(data, tmp_path / "untaught")
    assert "phones" not in untaught[-1].losses


def test_codes_without_a_label_count_nothing(data: PreparedData, tmp_path: Path) -> None:
    add_phones(data, write_labels(tmp_path / "labels", thirds(data)))
    recipe = small_recipe(data, tmp_path / "run", loss={"phones": 1.0})
    job = trainer_of(recipe)
    batch = job.sampler.batch(0)
    labelled = batch._replace(phones=torch.zeros_like(batch.phones))
    half = labelled.phones.clone()
    half[:, ::2] = UNLABELLED
    unlabelled = batch._replace(phones=torch.full_like(batch.phones, UNLABELLED))
    job.objective.eval()
    with torch.no_grad():
        whole, part, nothing = (
            job.objective(one).parts["phones"]
            for one in (labelled, labelled._replace(phones=half), unlabelled)
        )
    assert 0 < part < whole
    assert nothing == 0


def test_what_cannot_teach_phones_is_refused(tmp_path: Path) -> None:
    data = prepare_speech(tmp_path / "speech")
    recipe = small_recipe(data, tmp_path / "run", loss={"phones": 1.0})
    with pytest.raises(DataError, match=r"prepared: has no phone labels.* --labels"):
        trainer_of(recipe)
    with pytest.raises(DataError, match=r"labels: none of 1 label files has a recording"):
        add_phones(data, write_labels(tmp_path / "labels", {"nobody/7": [Interval(0, 1, "AH")]}))
    add_phones(data, write_labels(tmp_path / "good", thirds(data)))
    path = data.root / "phones.safetensors"
    metadata = {"classes": '["AH", "sil"]', "n_clips": "1"}
    whole = load_file(path)
    for damage in (
        {"phones": whole["phones"] + 1},
        {"starts": whole["starts"][::-1].copy()},
        {"starts": whole["starts"][:-1].copy()},
        {"starts": whole["starts"].astype(np.int32)},
    ):
        save_file({**whole, **damage}, path, metadata)
        with pytest.raises(DataError, match=r"phones\.safetensors: damaged"):
            read_phones(data)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DataError, match=r"phones\.safetensors: damaged"):
        read_phones(data)


def test_a_finished_preparation_is_labelled(run, tmp_path: Path) -> None:
    data = prepare_speech(tmp_path)
    labels = tmp_path / "labels"
    (clip, *_) = data.clips
    (labels / clip.name).parent.mkdir(parents=True)
    duration = clip.n_samples / data.sample_rate
    grid = textgrid([Interval(0, duration, "AH1")], tier="phones")
    (labels / f"{clip.name}.TextGrid").write_text(grid)
    command = ["prepare", "folder", tmp_path / "wav", "-o", data.root, "--labels", labels]
    result = run(*command)
    assert result.status == 0, result.stderr
    assert "labelled" in result.stdout
    assert read_phones(data).classes == ("AH",)
    refused = run(*command[:-1], tmp_path / "nowhere")
    assert refused.status == 1
    assert "nowhere: holds no label file" in refused.stderr
