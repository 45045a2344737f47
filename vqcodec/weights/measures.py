"""Which decoder of a model is the best, by the measures that its provenance tells."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from vqcodec.models import DecoderName
from vqcodec.models.config import ModelConfig

# By their names in `metrics`, and whether more is better: those that do not ask a sampled waveform
# to be that of the recording (docs/evaluation.md).
MEASURES = {"wer": False, "speaker_similarity": True, "f0_correlation": True}


def best_first(config: ModelConfig, provenance: Mapping[str, Any]) -> tuple[DecoderName, ...]:
    """The decoders of a model, whichever is the best by most of `MEASURES` before the others.

    Those of which there are no measures are in the order of `ModelConfig.decoders`. The `metrics`
    of the provenance are those of the first decoder of that order; those of another are within
    them, by its name.
    """
    names = config.decoders
    metrics = _mapping(provenance.get("metrics"))
    told = {name: _mapping(metrics.get(name)) for name in names}
    told[names[0]] = {**metrics, **told[names[0]]}
    won = dict.fromkeys(names, 0)
    for measure, is_more_better in MEASURES.items():
        values = {name: _number(told[name].get(measure)) for name in names}
        if all(map(math.isfinite, values.values())):
            best = (max if is_more_better else min)(values.values())
            for name, value in values.items():
                won[name] += value == best
    return tuple(sorted(names, key=lambda name: -won[name]))


def _mapping(value: Any) -> Mapping[str, Any]:
    """What provenance, which is free JSON, tells by name."""
    return value if isinstance(value, Mapping) else {}


def _number(value: Any) -> float:
    is_number = isinstance(value, int | float) and abs(value) < 1e9
    return float(value) if is_number else math.nan
