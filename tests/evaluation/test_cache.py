"""What is found out of recordings: once, by many processes, under names that tell results apart."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tasks import late

import vqcodec
from vqcodec.data.corpora import Utterance
from vqcodec.errors import DataError, VqcodecError
from vqcodec.evaluation import (
    cache,
)
from vqcodec.evaluation.quality import SAMPLE_RATE
from vqcodec.inference.engines import pytorch


def utterance(path: Path, name: str = "a", speaker: str = "anna", text: str = "") -> Utterance:
    return Utterance(path, name, speaker, "test", text)


def test_a_setting_knows_the_best_decoder_and_refuses_another(tiny_model: Path) -> None:
    assert cache.prepare_setup(str(tiny_model), "auto", "pocketsphinx").decoder == "fast"
    with pytest.raises(
        VqcodecError, match="model tiny has no decoder 'slow'; it has fast, wavenet"
    ):
        cache.prepare_setup(str(tiny_model), "slow")  # type: ignore[arg-type]


def test_a_decoder_computes_the_same_whatever_a_processor_is_built_for(
    setting: cache.Setup, speech: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    codes = setting.encode(utterance(speech), refine=False)
    plain = vqcodec.load(setting.model, device="cpu", voices=False)
    decoded = []
    for is_built in (False, True):
        monkeypatch.setattr(pytorch, "multiplies_bfloat16", lambda device, flag=is_built: flag)
        decoded.append((setting.decode(codes), plain.decode(codes, sample_rate=SAMPLE_RATE)))
    (first, users_first), (second, users_second) = decoded
    assert np.array_equal(first, users_first)
    assert np.array_equal(first, second)
    assert not np.array_equal(users_first, users_second)


def test_whatever_changes_a_result_changes_its_file(
    setting: cache.Setup, speech: Path, tmp_path: Path
) -> None:
    stem = cache.cache_stem(setting, utterance(speech), "opus-6")
    moved = tmp_path / "moved.wav"
    moved.write_bytes(speech.read_bytes())
    model = replace(setting, model=str(tmp_path))
    assert cache.cache_stem(model, utterance(moved), "opus-6") == stem

    louder = tmp_path / "louder.wav"
    louder.write_bytes(speech.read_bytes()[:-1] + b"\1")
    other_weights = replace(setting.recognizer, digest="0")
    stems = {
        stem,
        cache.cache_stem(setting, utterance(louder), "opus-6"),
        cache.cache_stem(setting, utterance(speech, text="other"), "opus-6"),
        cache.cache_stem(setting, utterance(speech, speaker="other"), "opus-6"),
        cache.cache_stem(setting, utterance(speech, name="b"), "opus-6"),
        cache.cache_stem(setting, utterance(speech), "opus_6"),
        cache.cache_stem(setting, utterance(speech), "opus-6", made_by="another"),
        *(
            cache.cache_stem(replace(setting, **change), utterance(speech), "opus-6")
            for change in (
                {"model_digest": "0"},
                {"decoder": "wavenet"},
                {"versions": {"pesq": "9"}},
                {"recognizer": other_weights},
                {"recognizer": replace(setting.recognizer, versions=("pocketsphinx 9",))},
            )
        ),
        cache.cache_stem(setting, replace(utterance(speech), language="de"), "opus-6"),
    }
    assert len(stems) == 13
    moved_weights = replace(setting.recognizer, folder="elsewhere", remark="not there")
    same = replace(setting, recognizer=moved_weights)
    assert cache.cache_stem(same, utterance(speech), "opus-6") == stem
    # Whose work it is not, does not change it.
    others = {
        cache.cache_stem(model, utterance(speech), "opus-6", is_by_model=False)
        for model in (setting, replace(setting, model_digest="0", decoder="wavenet"))
    }
    assert len(others) == 1
    strange = cache.cache_stem(setting, utterance(speech, name="../\u00e4 b%/" + "c" * 300), "x")
    assert len(strange) < 200
    assert Path(strange).name == strange


def test_what_is_kept_is_made_once(tmp_path: Path) -> None:
    made = []

    def make() -> dict[str, Any]:
        made.append(None)
        return {"value": 0.1 + 0.2, "none": None}

    path, other = tmp_path / "cache" / "a.json", tmp_path / "a.wav"
    first = cache.read_or_make(path, make)
    assert cache.read_or_make(path, make) == first == {"value": 0.1 + 0.2, "none": None}
    assert len(made) == 1
    cache.read_or_make(path, make, also=[other])
    assert len(made) == 2


def test_results_come_in_the_order_of_the_tasks() -> None:
    progress: list[cache.Progress] = []
    tasks = [(1, 0.5), (2, 0.0), (3, 0.0)]
    results = cache.map_in_processes(
        late, tasks, jobs=2, name_of=lambda task: f"no. {task[0]}", on_progress=progress.append
    )
    assert results == [1, 2, 3]
    assert [now[:2] for now in progress] == [(n_done, 3) for n_done in range(4)]
    assert [now.waiting_for for now in progress[::3]] == ["no. 1, no. 2", ""]


def test_an_error_in_a_process_arrives_as_it_is() -> None:
    with pytest.raises(DataError, match=r"^thirteen: unlucky; take another$"):
        cache.map_in_processes(late, [(13, 0.0)], jobs=1)


def test_the_death_of_a_process_is_told() -> None:
    with pytest.raises(VqcodecError, match=r"a process died, .*; run it again with fewer jobs"):
        cache.map_in_processes(late, [(14, 0.0)], jobs=1)
