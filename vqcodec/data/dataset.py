"""Training batches from a prepared folder: a pure function of seed and step.

There is no loader state to save: the batch of a step can be made again at any time, on any number
of processes, which is what makes a resumed or distributed training follow the same path.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from vqcodec.data.perturb import disguise
from vqcodec.data.prepared import Clip, PreparedData
from vqcodec.errors import DataError
from vqcodec.training.config import DataConfig, PerturbationConfig


class Batch(NamedTuple):
    """Level-normalised float32.

    Attributes:
        waveform: (B, T) what is to be decoded.
        encoder_input: (B, T) the same, perhaps disguised.
        reference: (B, R) another clip of each speaker.
        speaker: (B,) int64 rows of the speaker table.
    """

    waveform: Tensor
    encoder_input: Tensor
    reference: Tensor
    speaker: Tensor

    def to(self, device: torch.device) -> Batch:
        """The same batch on `device`."""
        return Batch(*(tensor.to(device, non_blocking=True) for tensor in self))


class SegmentSampler:
    """Random segments, every second of audio equally likely.

    Args:
        data: the prepared folder.
        clips: those to draw from.
        speakers: rows of the speaker table: a name for every clip's speaker.
        config: batch and segment sizes.
        hop_length: samples per code.
        perturbation: how the encoder's input is disguised.
        seed: of every draw.

    Raises:
        DataError: no clips.
    """

    def __init__(
        self,
        data: PreparedData,
        clips: Sequence[Clip],
        config: DataConfig,
        *,
        speakers: Sequence[str],
        hop_length: int,
        perturbation: PerturbationConfig,
        seed: int,
    ) -> None:
        if not clips:
            raise DataError(f"{config.root}: no training clips; prepare a corpus that has some")
        self.data, self.clips, self.config = data, clips, config
        self.length = config.segment_length * hop_length
        self.reference_length = round(config.reference_s * data.sample_rate)
        self.perturbation, self.seed = perturbation, seed
        self._rows = {name: row for row, name in enumerate(speakers)}
        self._ends = np.cumsum([clip.n_samples for clip in clips])
        self._of_speaker: dict[str, list[Clip]] = defaultdict(list)
        for clip in clips:
            self._of_speaker[clip.speaker].append(clip)

    def batch(self, step: int, rank: int = 0, world_size: int = 1) -> Batch:
        """Rows of this process in the batch of `step`."""
        size = self.config.batch_size // world_size
        rows = [
            self._row(np.random.default_rng([self.seed, step, row]))
            for row in range(rank * size, (rank + 1) * size)
        ]
        waveform, encoder_input, reference, speaker = zip(*rows, strict=True)
        return Batch(
            torch.from_numpy(np.stack(waveform)),
            torch.from_numpy(np.stack(encoder_input)),
            torch.from_numpy(np.stack(reference)),
            torch.tensor(speaker),
        )

    def batches(self, steps: range, rank: int = 0, world_size: int = 1) -> Iterator[Batch]:
        """The batch of every one of `steps`, made ahead by `config.workers` processes."""
        shard = _Shard(self, rank, world_size)
        return iter(
            DataLoader(shard, batch_size=None, sampler=steps, num_workers=self.config.workers)
        )

    def _row(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
        clip = self.clips[np.searchsorted(self._ends, rng.integers(self._ends[-1]), "right")]
        start, waveform = self._cut(clip, self.length, rng)
        others = [other for other in self._of_speaker[clip.speaker] if other is not clip]
        if others:
            _, reference = self._cut(others[rng.integers(len(others))], self.reference_length, rng)
        else:
            reference = self._elsewhere(clip, start, rng)
        encoder_input = waveform
        if rng.random() < self.perturbation.probability:
            encoder_input = disguise(
                waveform,
                self.data.sample_rate,
                semitones=rng.uniform(-1, 1) * self.perturbation.pitch_semitones,
                formant_ratio=self.perturbation.formant_ratio ** rng.uniform(-1, 1),
            )
        return waveform, encoder_input, reference, self._rows[clip.speaker]

    def _cut(self, clip: Clip, length: int, rng: np.random.Generator) -> tuple[int, np.ndarray]:
        start = int(rng.integers(max(clip.n_samples - length, 0) + 1))
        samples = self.data.read(clip, start, min(length, clip.n_samples - start))
        return start, np.pad(samples, (0, length - len(samples)))

    def _elsewhere(self, clip: Clip, start: int, rng: np.random.Generator) -> np.ndarray:
        """A reference from a lone clip: from the longer side of the segment at `start`."""
        before, after = start, clip.n_samples - start - self.length
        low, high = (0, before) if before > after else (start + self.length, clip.n_samples)
        length = min(self.reference_length, high - low)
        if length < self.reference_length // 2:  # too short to avoid the segment
            return self._cut(clip, self.reference_length, rng)[1]
        begin = int(rng.integers(low, high - length + 1))
        samples = self.data.read(clip, begin, length)
        return np.pad(samples, (0, self.reference_length - length))


class _Shard(Dataset[Batch]):
    """The batches of one process, by step, in the form that `DataLoader` reads."""

    def __init__(self, sampler: SegmentSampler, rank: int, world_size: int) -> None:
        self.sampler, self.rank, self.world_size = sampler, rank, world_size

    def __getitem__(self, step: int) -> Batch:
        return self.sampler.batch(step, self.rank, self.world_size)


def speaker_names(clips: Sequence[Clip]) -> list[str]:
    """Rows of the speaker table, in order."""
    return sorted({clip.speaker for clip in clips})
