"""Which decoder is the best, by the measures of a model's provenance."""

from __future__ import annotations

from typing import Any

import pytest

from vqcodec.models.config import IstftDecoderConfig, ModelConfig, WaveNetConfig
from vqcodec.weights.measures import best_first

FAST = {"wer": 0.2, "speaker_similarity": 0.8, "f0_correlation": 0.9, "stoi": 0.9}


def best(metrics: Any, **parts: Any) -> str:
    return best_first(ModelConfig(**parts), {"metrics": metrics})[0]


@pytest.mark.parametrize(
    ("wavenet", "expected"),
    [
        ({"wer": 0.1, "speaker_similarity": 0.9, "f0_correlation": 0.5}, "wavenet"),
        ({"wer": 0.1, "speaker_similarity": 0.7, "f0_correlation": 0.5}, "fast"),
        ({"wer": 0.3, "speaker_similarity": 0.9, "f0_correlation": 0.95}, "wavenet"),
        (FAST, "fast"),  # it is as good, and stands behind it in the table
    ],
)
def test_the_best_has_the_better_of_most_measures(wavenet: dict[str, Any], expected: str) -> None:
    assert best({**FAST, "wavenet": {**wavenet, "stoi": 0.1}}) == expected
    assert best({"fast": FAST, "wavenet": wavenet}) == expected


@pytest.mark.parametrize(
    "metrics",
    [
        *(None, {}, [], "good", FAST, {"wavenet": FAST}, {"wavenet": 0.1}),
        *({"wer": worse, "wavenet": {"wer": 0.0}} for worse in ("1", None, float("nan"), 10**400)),
    ],
)
def test_what_is_not_measured_of_all_decides_nothing(metrics: Any) -> None:
    assert best(metrics) == "fast"


def test_a_model_has_the_decoders_that_it_has() -> None:
    metrics = {**FAST, "wavenet": {**FAST, "wer": 0.0}}
    assert best(metrics, fast=None, wavenet=WaveNetConfig()) == "wavenet"
    assert best(metrics, fast=IstftDecoderConfig(), wavenet=None) == "fast"
    assert best_first(ModelConfig(), {"metrics": metrics}) == ("wavenet", "fast")
    assert best_first(ModelConfig(), {}) == ("fast", "wavenet")
