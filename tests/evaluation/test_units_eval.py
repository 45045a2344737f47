from __future__ import annotations

import csv
import itertools
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import festival
import numpy as np
import pytest
import soundfile
import torch
from command_line import needs
from hypothesis import given
from hypothesis import strategies as st
from recordings import slower, spoken, write
from sklearn.metrics import normalized_mutual_info_score, v_measure_score
from tiny_models import TINY
from vqcodec_cli.main import main

from vqcodec import load
from vqcodec.data.corpora import Utterance
from vqcodec.data.labels import UNLABELLED, LabelledClip, read_labelled_corpus
from vqcodec.errors import CodesError, DataError
from vqcodec.evaluation import unit_measures
from vqcodec.models.config import ModelConfig
from vqcodec.models.vqvae import VQVAE
from vqcodec.weights import checkpoint

TOOLS = Path(__file__).parents[2] / "tools"
SENTENCES = (
    "A rose is a rose, and a boy is a boy.",
    "The birch canoe slid on the smooth planks.",
    "It is easy to tell the depth of a well.",
    "Rice is often served in round bowls.",
)
SAYS = {
    "slt": "The codes hold what is said, and a separate vector holds who says it.",
    "rms": "A quick recording becomes a short string of numbers, and a voice again.",
}
MFCCS = "MFCC k-means", "MFCC k-means, normalised"
CLASSES = {"sil": 0, "a": 1, "b": 2}


# MFCCs


@pytest.mark.parametrize("hop_length", [64, 128, 200, 320, 640])
def test_mfccs_are_those_of_the_time_of_their_code(hop_length: int) -> None:
    n_codes = 6400 // hop_length
    burst = n_codes // 2
    waveform = np.full(n_codes * hop_length - 5, 1e-4, np.float32)
    middle = burst * hop_length + hop_length // 2
    waveform[middle - 16 : middle + 16] = 0.5
    features = unit_measures.mfcc(waveform, 16000, hop_length)
    assert features.shape == (n_codes, 39)
    assert features.dtype == np.float32
    # The burst is seen by the windows of 25 ms about it, as early as late.
    loud = np.flatnonzero(features[:, 0] > features[0, 0] + 1)
    assert burst in loud
    assert abs(loud.mean() - burst) <= 0.5


# Measures


def clip(phones: list[int], *, is_training: bool) -> unit_measures.FramedRecording:
    utterance = Utterance(Path("x.wav"), "x", "anna", "test", "")
    mfcc = np.zeros((len(phones), 39), np.float32)
    source = LabelledClip(utterance, [], is_training)
    return unit_measures.FramedRecording(
        source, np.array(phones), np.zeros(len(phones), np.int64), mfcc
    )


def scored(
    learnt: tuple[list[int], list[int]],
    tested: tuple[list[int], list[int]],
    n_units: int,
    **options: Any,
) -> unit_measures.UnitScores:
    """Scores of phones and units of a training recording and of another."""
    clips = [clip(learnt[0], is_training=True), clip(tested[0], is_training=False)]
    frames = unit_measures.Frames(clips, CLASSES, 100.0)
    unit_set = unit_measures.UnitSet(
        "x", [np.array(learnt[1]), np.array(tested[1])], np.eye(n_units)
    )
    return unit_measures.score(frames, unit_set, **{"has_silence": True, **options})


def values(found: unit_measures.UnitScores) -> list[float | None]:
    return [found.measures[name].value for name in unit_measures.MEASURES]


def test_the_map_is_learnt_on_the_training_part() -> None:
    # Unit 0 is learnt to be phone 1 but is phone 2 in three of four frames; unit 2 is unseen and
    # so the commonest phone, 1.
    learnt = [1, 1, 2, 2, 1], [0, 0, 0, 1, 0]
    tested = [1, 2, 2, 2, 2, 1], [0, 0, 0, 0, 1, 2]
    found = scored(learnt, tested, 3)
    assert found.n_frames == 6
    assert values(found)[:3] == pytest.approx([3 / 6, 5 / 6, 4 / 6])


def test_units_that_are_the_phones_are_perfect_and_constant_ones_worthless() -> None:
    phones = [0, 1, 2, 1, 2, 0, 1]
    perfect = scored((phones, phones), (phones, phones), 3)
    assert values(perfect) == pytest.approx([1, 1, 1, 1, 1])
    constant = scored((phones, [0] * 7), (phones, [0] * 7), 3)
    assert values(constant) == pytest.approx([3 / 7, 3 / 7, 1, 0, 0])


def test_measures_have_intervals_over_recordings() -> None:
    rng = np.random.default_rng(0)

    def found(n_recordings: int) -> unit_measures.UnitScores:
        # Two of three frames have the unit that is their phone.
        phones = rng.integers(0, 3, (n_recordings, 30))
        units = [np.where(rng.random(30) < 2 / 3, own, rng.integers(0, 3, 30)) for own in phones]
        clips = [clip(own.tolist(), is_training=not i) for i, own in enumerate(phones)]
        frames = unit_measures.Frames(clips, CLASSES, 100.0)
        unit_set = unit_measures.UnitSet("x", units, np.eye(3))
        return unit_measures.score(frames, unit_set, has_silence=True)

    few, many = found(11), found(101)
    for name in unit_measures.MEASURES:
        for value, _, interval, _ in (few.measures[name], many.measures[name]):
            assert interval is not None
            assert value is not None
            assert interval.low < value < interval.high
        wide, narrow = (each.measures[name].interval for each in (few, many))
        assert np.ptp(narrow) < 0.6 * np.ptp(wide)
    majority = unit_measures.score_majority(
        unit_measures.Frames(
            [clip([1], is_training=True), clip([1, 2], is_training=False)], CLASSES, 1
        ),
        has_silence=True,
    )
    assert list(majority.measures) == ["many_to_one", "many_to_one_in_sample"]
    assert majority.measures["many_to_one"] == (0.5, 1, None, 1)  # of one recording


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 4)), min_size=2, max_size=40))
def test_v_measure_and_pnmi_are_those_of_scikit_learn(pairs: list[tuple[int, int]]) -> None:
    phones, codes = ([pair[i] for pair in pairs] for i in (0, 1))
    *_, pnmi, v_measure = values(scored((phones, codes), (phones, codes), 5))
    if v_measure is not None:
        assert v_measure == pytest.approx(v_measure_score(phones, codes), abs=1e-9)
    if pnmi is not None and len(set(codes)) > 1:
        # H(phone) is the larger or the smaller of the two entropies.
        bounds = [
            normalized_mutual_info_score(phones, codes, average_method=method)
            for method in ("max", "min")
        ]
        assert min(abs(pnmi - bound) for bound in bounds) < 1e-9


def test_silence_and_frames_without_label_are_left_out() -> None:
    phones, codes = [0, 0, 0, 1, 2, UNLABELLED], [0, 0, 0, 1, 1, 1]
    with_silence, without = (
        scored((phones, codes), (phones, codes), 2, has_silence=has) for has in (True, False)
    )
    assert (with_silence.n_frames, without.n_frames) == (5, 2)
    assert values(with_silence)[0] == pytest.approx(4 / 5)
    assert values(without)[0] == pytest.approx(1 / 2)
    silence = [0, 0], [0, 0]
    with pytest.raises(DataError, match="the scored part has no labelled frame"):
        scored((phones, codes), silence, 2, has_silence=False)


# ABX


# The whole


@pytest.fixture(scope="module")
def speech_with_labels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A woman and a man to learn from, four who say the same, and all their phones' times."""
    root = tmp_path_factory.mktemp("labelled")
    rows = [["path", "speaker", "split", "text"]]
    for voice, text in SAYS.items():
        for ratio, split in ((1.0, "train"), (1.1, "test"), (0.9, "test")):
            speaker = f"{voice}{ratio}"
            write(root / speaker / "a.wav", slower(spoken(voice), ratio))
            rows.append([f"{speaker}/a.wav", speaker, split, text])
    with (root / "manifest.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    subprocess.run([sys.executable, TOOLS / "label_corpus.py", root, root], check=True)
    return root


@pytest.fixture(scope="module")
def by_festival(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three speakers of festival, each recording with its own phone times beside it."""
    folder = tmp_path_factory.mktemp("festival")
    festival.write_corpus(SENTENCES, folder)
    return folder


@needs("festival")
def test_festival_tells_when_it_says_which_phone(by_festival: Path) -> None:
    clips = read_labelled_corpus(by_festival, by_festival).clips
    assert Counter(clip.utterance.speaker for clip in clips) == {"kal": 4, "ked": 4, "slt": 4}
    for clip in clips:
        length = soundfile.info(clip.utterance.path).duration
        assert clip.intervals[-1].end == pytest.approx(length, abs=0.05)
        if clip.utterance.name.endswith("/0"):
            said = " ".join(interval.label for interval in clip.intervals)
            assert "r ow z ih z" in said


def save_model(path: Path, **sections: Any) -> Path:
    """A model file with random weights."""
    torch.manual_seed(0)
    model = VQVAE(ModelConfig.model_validate({**TINY, "fast": None, **sections}))
    if model.config.quantizer.kind == "vq":
        model.quantizer.initialized.fill_(True)
    checkpoint.save(path, model, {}, provenance={})
    return path


@pytest.mark.parametrize(("strides", "codebook_size"), [((32, 4), 64), ((32, 4, 5), 32)])
def test_units_eval_reports_units_and_baselines(
    speech_with_labels: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    strides: tuple[int, ...],
    codebook_size: int,
) -> None:
    monkeypatch.setattr("vqcodec.audio.pitch_tracker._detector", None)  # which is not needed
    model = save_model(
        tmp_path / "small.safetensors",
        encoder={**TINY["encoder"], "strides": strides},
        quantizer={"codebook_size": codebook_size},
        pitch={},
    )
    output = tmp_path / "report"
    arguments = ["units-eval", speech_with_labels, "--model", model, "-o", output]
    assert main([str(argument) for argument in arguments]) == 0, capsys.readouterr().err
    printed = capsys.readouterr().out
    assert (output / "units.md").read_text() in printed
    frame_rate = 16000 / np.prod(strides)
    assert f"{frame_rate:g} units a second of {codebook_size}.\n" in printed
    assert "4 recordings" in printed

    rows = list(csv.DictReader((output / "units.csv").read_text().splitlines()))
    kinds = itertools.product(("True", "False"), ("small", *MFCCS, "commonest phone"))
    assert [(row["has_silence"], row["units"]) for row in rows] == list(kinds)
    ours, mfccs, _, commonest = rows[4:]
    assert ours["n_frames"] == mfccs["n_frames"] == commonest["n_frames"]
    # What MFCCs tell, a random encoder must not be told to know better.
    assert float(mfccs["many_to_one"]) > float(commonest["many_to_one"]) + 0.1
    assert float(mfccs["pnmi"]) > 0.3
    assert commonest["pnmi"] == commonest["abx_within"] == ""
    for name in ("many_to_one", "pnmi"):
        low, value, high = (float(mfccs[f"{name}{end}"]) for end in ("_low", "", "_high"))
        assert low < value < high, name
    assert float(mfccs["abx_across"]) <= 0.5
    for name in ("phones", "usage", "codebook"):
        assert (output / f"units_{name}.png").read_bytes().startswith(b"\x89PNG")


def test_scores_are_reproducible_and_what_cannot_be_measured_is_refused(
    speech_with_labels: Path, tmp_path: Path
) -> None:
    clips = read_labelled_corpus(speech_with_labels, speech_with_labels).clips[:2]
    several = save_model(
        tmp_path / "several.safetensors", quantizer={"kind": "residual_vq", "num_quantizers": 2}
    )
    with pytest.raises(CodesError, match="model several: has 2 codes at a time"):
        unit_measures.frame_recordings(clips, load(several, device="cpu"))
    small = save_model(tmp_path / "small.safetensors", quantizer={"codebook_size": 32})
    frames = unit_measures.frame_recordings(clips, load(small, device="cpu"))
    first, second, normalised = (
        unit_measures.score(
            frames, unit_measures.mfcc_units(frames, 32, is_normalised=flag), has_silence=True
        )
        for flag in (False, False, True)
    )
    assert first != normalised
    assert first == second
    with pytest.raises(DataError, match=r"\d+ frames in the training part are too few for 9999"):
        unit_measures.mfcc_units(frames, 9999, is_normalised=False)


@needs("festival")
def test_the_packaged_units_tell_more_of_phones_than_clustered_mfccs(
    by_festival: Path,
) -> None:
    codec = load("units-25hz", device="cpu")
    frames = unit_measures.frame_recordings(
        read_labelled_corpus(by_festival, by_festival).clips, codec
    )
    ours, *theirs = (
        unit_measures.score(frames, each, has_silence=False).measures["pnmi"].value
        for each in (
            unit_measures.code_units(frames, codec),
            *(unit_measures.mfcc_units(frames, 128, is_normalised=flag) for flag in (False, True)),
        )
    )
    assert ours is not None
    assert all(one is not None and ours > one + 0.02 for one in theirs)
