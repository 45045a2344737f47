"""What a prior is trained on: clips as codes, and batches of them."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from vqcodec.codec import Codec
from vqcodec.data.prepared import Clip, PreparedData
from vqcodec.errors import DataError
from vqcodec.models.speaker_vector import from_int8
from vqcodec.training.recipe import PriorDataConfig
from vqcodec.weights.model_file import read_tensors, verify_checksum, write_tensors

FORMAT = "vqcodec-coded-clips"
IGNORED = -100  # a target that has no loss


@dataclass(frozen=True, eq=False)
class CodedClip:
    """A recording as a codec has it.

    Attributes:
        speaker: name of the voice.
        codes: (N,) int64.
        vector: (64,) int8 of the recording's own speaker, or the table's row of its name.
    """

    speaker: str
    codes: np.ndarray
    vector: np.ndarray


def encode_clips(
    codec: Codec, data: PreparedData, clips: Sequence[Clip], store: Path
) -> list[CodedClip]:
    """Clips as codes of a codec with one codebook, encoded once and then kept in the file `store`.

    It is written anew when it holds other clips or another codec's codes.

    Raises:
        DataError: the sample rates differ, or the codec has several codebooks.
        SpeakerError: the codec's table does not know a speaker.
        CheckpointError: the file is damaged.
    """
    if codec.config.quantizer.n_codebooks != 1:
        raise DataError(
            f"{codec.name}: has {codec.config.quantizer.n_codebooks} codebooks, and a prior knows "
            "the codes of one: give a codec with quantizer.kind vq"
        )
    data.check_rate(codec.sample_rate, codec.name)
    contents = [codec.fingerprint.hex(), *((clip.name, clip.n_samples) for clip in clips)]
    key = hashlib.sha256(json.dumps(contents).encode()).hexdigest()
    if store.exists():
        metadata, tensors = read_tensors(store, FORMAT)
        if "sha256" in metadata:  # older files have none
            verify_checksum(store, tensors, metadata, "delete it, and it is made anew")
        if metadata["contents"] == key:
            codes = tensors["codes"].astype(np.int64)
            ends = np.cumsum(tensors["lengths"])[:-1]
            found = zip(clips, np.split(codes, ends), tensors["vectors"], strict=True)
            return [CodedClip(clip.speaker, own, vector) for clip, own, vector in found]
    coded = [_coded(codec, data, clip) for clip in clips]
    tensors = {
        "codes": np.concatenate([clip.codes for clip in coded]).astype(np.int32),
        "lengths": np.array([len(clip.codes) for clip in coded]),
        "vectors": np.stack([clip.vector for clip in coded]),
    }
    write_tensors(store, tensors, {"format": FORMAT, "contents": key})
    return coded


def _coded(codec: Codec, data: PreparedData, clip: Clip) -> CodedClip:
    # A model with a speaker table is told who speaks; any other hears it.
    has_table = codec.config.speaker.kind == "table"
    name = clip.speaker if has_table else None
    codes = codec.encode(data.read(clip), data.sample_rate, speaker=name)
    vector = codec.voices[clip.speaker].vector if has_table else codes.speaker
    assert isinstance(vector, np.ndarray)
    return CodedClip(clip.speaker, codes.codes[0].astype(np.int64), vector)


class CodeBatch(NamedTuple):
    """Segments of clips.

    Attributes:
        previous: (B, N) int64 the model's input.
        codes: (B, N) int64 what it is to predict; `IGNORED` after the end of a clip.
        speaker: (B, 64) float32; zeros where the model is not told.
    """

    previous: Tensor
    codes: Tensor
    speaker: Tensor

    def to(self, device: torch.device) -> CodeBatch:
        """The same batch on `device`."""
        return CodeBatch(*(tensor.to(device, non_blocking=True) for tensor in self))


class CodeSampler:
    """Random segments of clips, every code about equally likely: a function of seed and step.

    `begin` is the model's input before the first code of a clip.
    """

    def __init__(
        self, clips: Sequence[CodedClip], config: PriorDataConfig, *, begin: int, seed: int
    ) -> None:
        self.clips, self.config, self.begin, self.seed = clips, config, begin, seed
        self._ends = np.cumsum([len(clip.codes) for clip in clips])
        self._vectors: dict[str, list[np.ndarray]] = defaultdict(list)
        for clip in clips:
            self._vectors[clip.speaker].append(clip.vector)

    def batch(self, step: int, rank: int = 0, world_size: int = 1) -> CodeBatch:
        """Rows of this process in the batch of `step`."""
        size = self.config.batch_size // world_size
        rows = [
            self._row(np.random.default_rng([self.seed, step, row]))
            for row in range(rank * size, (rank + 1) * size)
        ]
        return CodeBatch(*(torch.from_numpy(np.stack(part)) for part in zip(*rows, strict=True)))

    def _row(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        clip = self.clips[np.searchsorted(self._ends, rng.integers(self._ends[-1]), "right")]
        length, n_codes = self.config.segment_length, len(clip.codes)
        # A segment about any code, moved into the clip: so beginnings and ends are seen as often.
        start = int(rng.integers(n_codes)) - length // 2
        start = min(max(start, 0), max(n_codes - length, 0))
        codes = clip.codes[start : start + length]
        before = clip.codes[start - 1] if start else self.begin
        padding = (0, length - len(codes))
        previous = np.pad([before, *codes[:-1]], padding)
        # The vector of any of the speaker's clips: the clip's own would tell which one it is.
        vectors = self._vectors[clip.speaker]
        speaker = from_int8(vectors[rng.integers(len(vectors))])
        if rng.random() < self.config.speaker_dropout:
            speaker = np.zeros_like(speaker)
        return previous, np.pad(codes, padding, constant_values=IGNORED), speaker
