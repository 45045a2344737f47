"""The recipe of a prior: what is trained on which codec's codes."""

from __future__ import annotations

from typing import Literal

from vqcodec.data.data_config import PoolConfig
from vqcodec.models.config import Fraction, Positive, PriorConfig
from vqcodec.training.recipe import RunConfig


class PriorDataConfig(PoolConfig):
    """What is trained on; a source that was not prepared is one of codes.

    Attributes:
        batch_size: segments of one optimiser step, over all processes.
        segment_length: codes in a segment; over `model.context`, or its sliding is not learned.
        speaker_dropout: share of segments that do not say who speaks.
    """

    batch_size: Positive = 8
    segment_length: Positive = 512
    speaker_dropout: Fraction = 0.1


class PriorRecipe(RunConfig):
    """A whole training of a prior.

    Attributes:
        codec: the packaged model or model file whose codes are learned.
        initial_prior: a prior file to start from, of this codec or of one that it was trained
            further from, whose codes mean much the same.
    """

    stage: Literal["prior"] = "prior"
    output: str = "runs/prior"
    codec: str = "speech-1k"
    initial_prior: str | None = None
    data: PriorDataConfig = PriorDataConfig()
    model: PriorConfig = PriorConfig()
