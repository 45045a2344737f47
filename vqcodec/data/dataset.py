"""Training batches from a prepared folder: a pure function of seed and step.

There is no loader state to save: the batch of a step can be made again at any time, on any number
of processes, which is what makes a resumed or distributed training follow the same path. What to
read is drawn on the CPU; reading is indexing, wherever the audio lies.
"""

from __future__ import annotations

import signal
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from vqcodec.data.augmentation import N_TALKERS, augment
from vqcodec.data.batches import NOT_ENCODED, Batch, Draws
from vqcodec.data.clips import AudioClips, Clip
from vqcodec.data.data_config import AugmentationConfig, DataConfig, PerturbationConfig
from vqcodec.data.encoded import EncodedClips
from vqcodec.data.labels import UNLABELLED
from vqcodec.data.perturbation import n_frames, perturb
from vqcodec.data.phones import PhoneTrack
from vqcodec.data.pitch_perturbation import equalizers, pitch_shifts
from vqcodec.data.stream_tracks import StreamTracks
from vqcodec.errors import DataError

SHARE_OF_CODES = 0.5
NO_CODES = (0, 0)


class SegmentSampler:
    """Random segments, every second of audio equally likely.

    Args:
        data: the recordings.
        clips: those to draw from.
        speakers: rows of the speaker table: a name for every clip's speaker.
        config: batch and segment sizes.
        hop_length: samples per code.
        perturbation: how the encoder's input is perturbed.
        augmentation: where the encoders hear it from.
        seed: of every draw.
        resident: `load_resident_audio`, where batches are then made; else they are made on the CPU
            from the mapped file, by the workers if there are any.
        phones: of the prepared audio, if they are wanted.
        encoded: recordings of which every other segment is to be decoded from codes that it has;
            such a segment begins where a code does.
        tracks: of the streams that decoders are told.

    Raises:
        DataError: no clips.
    """

    def __init__(
        self,
        data: AudioClips,
        clips: Sequence[Clip],
        config: DataConfig,
        *,
        speakers: Sequence[str],
        hop_length: int,
        perturbation: PerturbationConfig,
        augmentation: AugmentationConfig = AugmentationConfig(),  # noqa: B008 - it is frozen
        seed: int,
        resident: Tensor | None = None,
        phones: PhoneTrack | None = None,
        encoded: EncodedClips | None = None,
        tracks: StreamTracks | None = None,
    ) -> None:
        if not clips:
            raise DataError(f"{config.root}: no training clips; prepare a corpus that has some")
        self.clips, self.config, self.sample_rate = clips, config, data.sample_rate
        self.is_resident = resident is not None
        self.audio = map_audio(data) if resident is None else resident
        self.hop_length, self.length = hop_length, config.segment_length * hop_length
        self.phones: tuple[Tensor, ...] | None = None
        if phones is not None:
            arrays = (phones.starts, phones.phones)
            self.phones = tuple(torch.from_numpy(each).to(self.audio.device) for each in arrays)
        self.tracks = tracks
        self.places = encoded.places if encoded else {}
        codes = encoded.codes if encoded else np.zeros((1, 1), np.int32)
        self.codes = torch.from_numpy(codes).to(self.audio.device)
        reference_length = round(config.reference_s * data.sample_rate)
        target_length = reference_length if perturbation.conversion else 0
        n_talkers = N_TALKERS if augmentation.probability else 0
        longest = max(self.length, reference_length)
        self.lengths = self.length, reference_length, target_length, *[longest] * n_talkers
        self.perturbation, self.augmentation, self.seed = perturbation, augmentation, seed
        self._rows = {name: row for row, name in enumerate(speakers)}
        self._ends = np.cumsum([clip.n_samples for clip in clips])
        self._of_speaker: dict[str, list[Clip]] = defaultdict(list)
        self._positions: dict[str, int] = {}
        for clip in clips:
            self._positions[clip.name] = len(self._of_speaker[clip.speaker])
            self._of_speaker[clip.speaker].append(clip)

    def batch(self, step: int, rank: int = 0, world_size: int = 1) -> Batch:
        """Rows of this process in the batch of `step`."""
        return self.read(self.draw(step, rank, world_size))

    def batches(self, steps: range, rank: int = 0, world_size: int = 1) -> Iterator[Batch]:
        """The batch of every one of `steps`, made ahead by `config.workers` processes."""
        shard = _Shard(self, rank, world_size)
        loader = DataLoader(
            shard,
            batch_size=None,
            sampler=steps,
            num_workers=self.config.workers,
            worker_init_fn=_ignore_interrupts,
        )
        return map(self.read, loader) if self.is_resident else iter(loader)

    def draw(self, step: int, rank: int = 0, world_size: int = 1) -> Draws:
        """What this process is to read for the batch of `step`."""
        size = self.config.batch_size // world_size
        rows = [
            self._row(np.random.default_rng([self.seed, step, row]))
            for row in range(rank * size, (rank + 1) * size)
        ]
        columns = [np.array(column) for column in zip(*rows, strict=True)]
        return Draws(
            *(
                torch.from_numpy(column.astype(np.float32) if column.dtype.kind == "f" else column)
                for column in columns
            )
        )

    def read(self, draws: Draws) -> Batch:
        """The batch that was drawn, on the device of the audio."""
        chosen = draws.perturbed.nonzero()[:, 0]
        values = self._values(draws)
        shifts, equalizer = self._perturbations(draws, values, chosen.numpy())
        streams = self._streams(draws, values)
        rows = chosen.to(self.audio.device)
        draws = Draws(*(column.to(self.audio.device, non_blocking=True) for column in draws))
        waveform, reference, target, *talkers = (
            self._cut(draws.spans[:, i], draws.levels[:, i], length)
            for i, length in enumerate(self.lengths)
        )
        encoder_input = waveform
        if len(rows):
            encoder_input = waveform.clone()
            encoder_input[rows] = perturb(
                waveform[rows],
                self.sample_rate,
                semitones=shifts.to(self.audio.device),
                formant_ratio=draws.formant_ratio[rows],
                equalizer=equalizer,
            )
        speaker_input = reference
        if talkers:
            others = torch.stack(talkers, dim=1)
            encoder_input = self._augmented(encoder_input, others, draws, draws.n_codes == 0, 2)
            speaker_input = self._augmented(reference, others, draws, draws.n_codes >= 0, 3)
        phones = self._phones(draws.spans[:, 0])
        codes = self._codes(draws.code, draws.n_codes)
        return Batch(
            *(waveform, encoder_input, reference, speaker_input, draws.speaker, phones, codes),
            *(draws.converted, target),
            streams,
            {name: torch.from_numpy(own) for name, own in values.items()},
        )

    def _values(self, draws: Draws) -> dict[str, np.ndarray]:
        """What was heard for each stream at the codes of segments, (B, N); 0 after their ends."""
        if self.tracks is None:
            return {}
        first, n_values = draws.values.numpy().T[..., None]
        place = np.arange(self.config.segment_length)
        is_heard = place < n_values
        index = first + place * is_heard
        return {name: track[index] * is_heard for name, track in self.tracks.values.items()}

    def _streams(self, draws: Draws, values: dict[str, np.ndarray]) -> dict[str, Tensor]:
        """What decoders are told, by `perturbation.stream_dropout` nothing in some rows."""
        if self.tracks is None:
            return {}
        generators = [np.random.default_rng([1, seed]) for seed in draws.seed.tolist()]
        told = [rng.random() >= self.perturbation.stream_dropout for rng in generators]
        is_told = np.array(told, np.float32)[:, None, None]
        features = {name: self.tracks.streams[name].features(own) for name, own in values.items()}
        return {
            name: torch.from_numpy(own * is_told).to(self.audio.device, non_blocking=True)
            for name, own in features.items()
        }

    def _augmented(
        self, waveform: Tensor, talkers: Tensor, draws: Draws, may_be: Tensor, purpose: int
    ) -> Tensor:
        """(B, T) of which some rows that may be are augmented, drawn for a purpose of their own."""
        augmented = waveform.clone()
        for row in may_be.nonzero()[:, 0].tolist():
            rng = np.random.default_rng([purpose, int(draws.seed[row])])
            if rng.random() < self.augmentation.probability:
                augmented[row] = augment(
                    waveform[row],
                    talkers[row, :, : waveform.shape[1]],
                    rng,
                    self.augmentation,
                    self.sample_rate,
                )
        return augmented

    def _perturbations(
        self, draws: Draws, values: dict[str, np.ndarray], rows: np.ndarray
    ) -> tuple[Tensor, Tensor | None]:
        """Shifts and colours for the perturbed rows, as `perturb` takes them."""
        generators = [np.random.default_rng([0, seed]) for seed in draws.seed.numpy()[rows]]
        shifts = draws.semitones.numpy()[rows]
        if "pitch" in values and len(rows):
            contours, frames = values["pitch"][rows], n_frames(self.length)
            shifts = pitch_shifts(contours, shifts, self.perturbation, generators, frames)
        equalizer = equalizers(self.perturbation, generators) if len(rows) else None
        return torch.from_numpy(shifts), (
            None if equalizer is None else torch.from_numpy(equalizer).to(self.audio.device)
        )

    def _phones(self, span: Tensor) -> Tensor:
        """(B, N) classes at the centres of codes, of which only the span (B, 2) is heard."""
        start, n_read = span.unbind(1)
        centre = torch.arange(self.config.segment_length, device=start.device) * self.hop_length
        centre = (centre + self.hop_length // 2).expand(len(start), -1)
        if self.phones is None:
            return torch.full_like(centre, UNLABELLED)
        starts, phones = self.phones
        found = phones[torch.searchsorted(starts, start[:, None] + centre, right=True) - 1]
        return torch.where(centre < n_read[:, None], found, UNLABELLED)

    def _codes(self, first: Tensor, n_codes: Tensor) -> Tensor:
        """(B, Q, N), of which `n_codes` from the column `first` and then none."""
        offset = torch.arange(self.config.segment_length, device=first.device)
        is_encoded = offset < n_codes[:, None]
        codes = self.codes[:, first[:, None] + offset * is_encoded].transpose(0, 1)
        return torch.where(is_encoded[:, None], codes.long(), NOT_ENCODED)

    def _cut(self, span: Tensor, level: Tensor, length: int) -> Tensor:
        """(B, length) float32: the span (B, 2) of the audio and then silence."""
        start, n_read = span.unbind(1)
        offset = torch.arange(length, device=start.device).expand(len(start), -1)
        heard = offset < n_read[:, None]
        samples = self.audio[start[:, None] + offset * heard]
        return samples * heard / level[:, None]

    def _row(self, rng: np.random.Generator) -> tuple[Any, ...]:
        """The fields of `Draws`, of one row."""
        _, reference_length, target_length, *talker_lengths = self.lengths
        clip = self._any_clip(rng)
        segment, codes = self._place(clip, self.length, rng), NO_CODES
        if clip.name in self.places and rng.random() < SHARE_OF_CODES:
            segment, codes = self._encoded(clip, segment[0] - clip.start)
        own = self._of_speaker[clip.speaker]
        if len(own) > 1:
            position = int(rng.integers(len(own) - 1))
            other = own[position + (position >= self._positions[clip.name])]
            reference = self._place(other, reference_length, rng)
        else:
            other, reference = clip, self._elsewhere(clip, segment[0] - clip.start, rng)
        perturbed = rng.random() < self.perturbation.probability and codes == NO_CODES
        semitones = rng.uniform(-1, 1) * self.perturbation.pitch_semitones
        formant_ratio = self.perturbation.formant_ratio ** rng.uniform(-1, 1)
        converted = rng.random() < self.perturbation.conversion and codes == NO_CODES
        voice, target = clip, (clip.start, 0)
        if converted:
            voice = self._any_clip(rng)
            target = self._place(voice, target_length, rng)
        seed = int(rng.integers(1 << 32))
        talkers = [self._any_clip(rng) for _ in talker_lengths]
        said = [
            self._place(talker, length, rng)
            for talker, length in zip(talkers, talker_lengths, strict=True)
        ]
        return (
            (segment, reference, target, *said),
            [32768 * each.gain for each in (clip, other, voice, *talkers)],
            self._rows.get(clip.speaker, 0),  # which only a table looks at
            perturbed and not converted,
            converted,
            semitones,
            formant_ratio,
            *codes,
            self._track(clip, segment),
            seed,
        )

    def _track(self, clip: Clip, segment: tuple[int, int]) -> tuple[int, int]:
        """The values of streams that are nearest to the codes of a segment: first and how many."""
        if self.tracks is None:
            return NO_CODES
        first, end = self.tracks.spans[clip.name]
        start, n_read = segment
        first = min(first + (start - clip.start + self.hop_length // 2) // self.hop_length, end - 1)
        return first, min(-(-n_read // self.hop_length), end - first)

    def _any_clip(self, rng: np.random.Generator) -> Clip:
        """A clip, by how long it is."""
        return self.clips[np.searchsorted(self._ends, rng.integers(self._ends[-1]), "right")]

    def _encoded(self, clip: Clip, start: int) -> tuple[tuple[int, int], tuple[int, int]]:
        """The segment from the code at `start` on, and its codes: the first and how many."""
        first, end = self.places[clip.name]
        n_before = start // self.hop_length
        n_codes = min(self.config.segment_length, end - first - n_before)
        start = n_before * self.hop_length
        segment = clip.start + start, min(self.length, clip.n_samples - start)
        return segment, (first + n_before, n_codes)

    def _place(self, clip: Clip, length: int, rng: np.random.Generator) -> tuple[int, int]:
        """Where in the audio to read, and how much."""
        start = int(rng.integers(max(clip.n_samples - length, 0) + 1))
        return clip.start + start, min(length, clip.n_samples - start)

    def _elsewhere(self, clip: Clip, start: int, rng: np.random.Generator) -> tuple[int, int]:
        """A reference from a lone clip: from the longer side of the segment at `start`."""
        before, after = start, clip.n_samples - start - self.length
        low, high = (0, before) if before > after else (start + self.length, clip.n_samples)
        wanted = self.lengths[1]
        length = min(wanted, high - low)
        if length < wanted // 2:  # too short to avoid the segment
            return self._place(clip, wanted, rng)
        return clip.start + int(rng.integers(low, high - length + 1)), length


class _Shard(Dataset[Batch | Draws]):
    """What one process has by step, in the form that `DataLoader` reads."""

    def __init__(self, sampler: SegmentSampler, rank: int, world_size: int) -> None:
        self.sampler, self.rank, self.world_size = sampler, rank, world_size

    def __getitem__(self, step: int) -> Batch | Draws:
        # Resident audio may lie on a GPU, which a worker must not touch.
        make = self.sampler.draw if self.sampler.is_resident else self.sampler.batch
        return make(step, self.rank, self.world_size)


def _ignore_interrupts(worker: int) -> None:
    """A terminal interrupts the workers, too, whose batches the last step may be waiting for."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def map_audio(data: AudioClips) -> Tensor:
    """(n_samples,) int16; of a prepared folder, read from the disk where it is looked at."""
    if not isinstance(data.audio, np.memmap):
        return torch.from_numpy(data.audio)
    # Copy-on-write, because torch warns of memory that it may not write; nothing is written.
    return torch.from_numpy(np.memmap(data.root / "audio.i16", dtype="<i2", mode="c"))


def load_resident_audio(
    data: AudioClips, device: torch.device, wanted: bool | None
) -> Tensor | None:
    """All audio in the memory of a device, or None.

    When `wanted` is None, it is for a GPU that the audio fills by a quarter at most.
    """
    audio = map_audio(data)
    if wanted is None:
        wanted = device.type == "cuda" and 4 * audio.nbytes < torch.cuda.mem_get_info(device)[0]
    return audio.to(device, copy=True) if wanted else None


def speaker_names(clips: Sequence[Clip]) -> list[str]:
    """Rows of the speaker table, in order."""
    return sorted({clip.speaker for clip in clips})
