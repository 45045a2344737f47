"""Refining the vector of one speaker on recordings of him, everything else frozen."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from vqcodec.audio import Recording
from vqcodec.errors import SpeakerError
from vqcodec.inference.encoding import Progress, code_blocks
from vqcodec.inference.engines.pytorch import TorchEngine, run_decoder
from vqcodec.inference.melody import KIND, tracked_blocks
from vqcodec.models.interfaces import Condition
from vqcodec.models.loss_config import LossConfig
from vqcodec.models.pitch import PitchStream
from vqcodec.models.speaker import to_grid
from vqcodec.models.speaker_vector import from_int8, to_int8
from vqcodec.models.waveform_loss import WaveformLoss

STEPS, BATCH_SIZE, LEARNING_RATE = 100, 4, 0.05

_SEGMENT_S = 1.0
_MAX_SEGMENTS = 64  # of a recording
_HELD_BACK = 4  # of so many segments one is not trained on: a lone one of few is a poor judge


class Tuned(NamedTuple):
    """A vector (64,) int8 after training, and the loss on other segments before and after.

    It is the one that it began with where that is better.
    """

    vector: np.ndarray
    before: float
    after: float


def tune(
    engine: TorchEngine,
    recordings: Sequence[Recording],
    vector: np.ndarray,
    *,
    on_progress: Progress | None = None,
) -> Tuned:
    """Refine a vector (64,) int8, so that decoding a speaker's own codes comes nearer to him.

    Adam on the spectral losses of the training, over random seconds of the first minute of each
    recording. A quarter of the seconds is held back to judge by. The same recordings give the same
    vector on one machine and thread count.

    Raises:
        AudioError: a recording cannot be read.
        SpeakerError: the model has no fast decoder, or there are no two whole seconds.
    """
    if engine.model.fast is None:
        raise SpeakerError("this model has no fast decoder to tune a voice by; leave --tune out")
    segments = [segment for recording in recordings for segment in _segments(engine, recording)]
    if len(segments) < 2:
        raise SpeakerError(
            f"{recordings[0].name}: tuning needs two seconds of speech; give longer recordings, "
            "or leave --tune out"
        )
    rng = np.random.default_rng(0)
    order = rng.permutation(len(segments))
    held_back, heard = np.split(order, [-(-len(order) // _HELD_BACK)])
    loss = _Loss(engine, segments)
    start = engine.tensor(from_int8(vector))
    refined = start.clone().requires_grad_()
    optimizer = torch.optim.Adam([refined], lr=LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    for step in range(STEPS):
        optimizer.zero_grad()
        loss(refined, rng.choice(heard, BATCH_SIZE)).backward()
        optimizer.step()
        schedule.step()
        if on_progress:
            on_progress((step + 1) / STEPS)
    before, after = loss.mean(start, held_back), loss.mean(refined, held_back)
    if after < before:
        return Tuned(to_int8(to_grid(refined.detach())[0].cpu().numpy()), before, after)
    return Tuned(vector, before, before)


class _Segment(NamedTuple):
    waveform: Tensor  # (T,) at normalised level
    codes: Tensor  # (Q, N) int64
    streams: dict[str, Tensor]  # (C, N)


def _segments(engine: TorchEngine, recording: Recording) -> list[_Segment]:
    """The whole seconds of the beginning of a recording."""
    config = engine.config
    n_codes = int(_SEGMENT_S * config.sample_rate) // config.hop_length
    length, gain = n_codes * config.hop_length, recording.gain()
    blocks = itertools.islice(recording.speech(config.sample_rate, length, gain), _MAX_SEGMENTS)
    waveforms = [block / np.float32(gain) for block in blocks if len(block) == length]
    if not waveforms:
        return []
    codes = np.concatenate(list(code_blocks(engine, waveforms)), axis=1).astype(np.int64)
    told: dict[str, np.ndarray] = {}
    if config.pitch is not None:
        contour = np.concatenate(list(tracked_blocks(engine, waveforms, step=n_codes)))
        stream = PitchStream(config.pitch)
        told[KIND] = stream.features(stream.stored(contour))
    arrays = [codes, *told.values()]
    parts = [np.split(array, len(waveforms), axis=1) for array in arrays]
    return [
        _Segment(
            torch.from_numpy(waveform),
            torch.from_numpy(own),
            dict(zip(told, map(torch.from_numpy, streams), strict=True)),
        )
        for waveform, own, *streams in zip(waveforms, *parts, strict=True)
    ]


class _Loss:
    """The spectral losses of the training, weighted as recipes do by default."""

    def __init__(self, engine: TorchEngine, segments: Sequence[_Segment]) -> None:
        self.model, self.segments, self.device = engine.model, segments, engine.device
        self.weights = LossConfig()
        self.waveform_loss = WaveformLoss(engine.config.sample_rate, self.weights).to(self.device)

    def __call__(self, vector: Tensor, rows: np.ndarray) -> Tensor:
        """Vector (1, S), as the decoder would get it once it is stored -> scalar."""
        assert self.model.fast is not None
        waveforms = torch.stack([self.segments[row].waveform for row in rows]).to(self.device)
        codes = torch.stack([self.segments[row].codes for row in rows]).to(self.device)
        speaker = to_grid(vector).expand(len(rows), -1)
        told = {
            name: torch.stack([self.segments[row].streams[name] for row in rows]).to(self.device)
            for name in self.segments[0].streams
        }
        output = run_decoder(self.model.fast, Condition(self.model.latents(codes), speaker, told))
        return self.waveform_loss(output, waveforms).weighted(self.weights)

    @torch.no_grad()
    def mean(self, vector: Tensor, rows: np.ndarray) -> float:
        """Over segments."""
        return float(np.mean([float(self(vector, row)) for row in rows[:, None]]))
