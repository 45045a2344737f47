"""What a training step is given, and where it is read."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

NOT_ENCODED = -1


class Batch(NamedTuple):
    """Level-normalised float32.

    Attributes:
        waveform: (B, T) what is to be decoded.
        encoder_input: (B, T) the same, perhaps perturbed or augmented.
        reference: (B, R) another clip of each speaker.
        speaker_input: (B, R) the same, perhaps augmented.
        speaker: (B,) int64 rows of the speaker table.
        phones: (B, N) int64 the phone class at the centre of each code, or `UNLABELLED`.
        codes: (B, Q, N) int64 to be decoded; what is `NOT_ENCODED` is for the encoder. Where no
            recording has codes, Q is 1.
        converted: (B,) bool whose encoder input is to be said in another voice first.
        target: (B, R) a clip of that voice, silence where none is needed; of no width where none
            ever is.
        streams: what decoders are told, (B, C, N) by the names of the streams.
        values: (B, N) of which these are the features.
    """

    waveform: Tensor
    encoder_input: Tensor
    reference: Tensor
    speaker_input: Tensor
    speaker: Tensor
    phones: Tensor
    codes: Tensor
    converted: Tensor
    target: Tensor
    streams: dict[str, Tensor]
    values: dict[str, Tensor]

    def to(self, device: torch.device) -> Batch:
        """The same batch on `device`."""
        fields: list[Any] = [
            {name: own.to(device, non_blocking=True) for name, own in field.items()}
            if isinstance(field, dict)
            else field.to(device, non_blocking=True)
            for field in self
        ]
        return Batch(*fields)


class Draws(NamedTuple):
    """Where a batch is to be read, and how its encoder input is perturbed: (B,) if not said.

    Attributes:
        spans: (B, 3, 2) of segment, reference and target, or more with what other talkers say: the
            first sample in the prepared audio, and how many are read; the rest is silence.
        levels: (B, 3) or more: what their int16 is divided by.
        speaker: rows of the speaker table.
        perturbed: whether at all; never where codes are taken, which no perturbation would change.
        converted: as `perturbed`, and never both.
        semitones, formant_ratio: see `perturb`.
        code, n_codes: first column of `EncodedClips.codes`, and how many are taken there.
        values: (B, 2) first value of `StreamTracks`, and how many are told.
        seed: of what else is drawn.
    """

    spans: Tensor
    levels: Tensor
    speaker: Tensor
    perturbed: Tensor
    converted: Tensor
    semitones: Tensor
    formant_ratio: Tensor
    code: Tensor
    n_codes: Tensor
    values: Tensor
    seed: Tensor
