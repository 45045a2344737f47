"""What is minimised of conversions: nobody has ever said them, so no waveform can be compared.

Of a conversion this much is known: it has the melody of its source, moved to where the target
speaks, and sounds like the target. Codes tell something of their own pitch, and a decoder believes
them unless it is told what conversions are to be.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vqcodec.data.dataset import Batch
from vqcodec.models.config import ModelConfig
from vqcodec.models.interfaces import Condition, Decoder
from vqcodec.models.loss_config import LossConfig
from vqcodec.models.pitch import UNVOICED, mean_log_f0
from vqcodec.models.speaker_vector import guided
from vqcodec.models.streams import build_streams
from vqcodec.models.vqvae import VQVAE
from vqcodec.models.waveform_loss import PeriodicityLoss

LARGEST_MOVE = 0.8  # of log F0: 14 semitones


class ConversionLosses(NamedTuple):
    """Scalars.

    Attributes:
        conversion_periodicity: see `PeriodicityLoss`.
        conversion_speaker: 1 - cosine of the speaker vectors of conversions and of their targets.
    """

    conversion_periodicity: Tensor
    conversion_speaker: Tensor

    def weighted(self, weights: LossConfig) -> Tensor:
        """Their sum."""
        return (
            weights.conversion_periodicity * self.conversion_periodicity
            + weights.conversion_speaker * self.conversion_speaker
        )


class ConversionLoss(nn.Module):
    """Converts half of a batch's segments to the voice of the segment before each, and listens.

    Args:
        config: of a model that is told the pitch and hears speakers.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.stream = build_streams(config)["pitch"]
        self.periodicity = PeriodicityLoss(config.sample_rate)

    def forward(
        self, model: VQVAE, decoder: Decoder, batch: Batch, speaker: Tensor
    ) -> ConversionLosses:
        """Losses of conversions.

        Args:
            model: whose codes they are.
            decoder: of the model.
            batch: of two segments or more.
            speaker: (B, S) who speaks them.
        """
        n = len(speaker) // 2
        source, target = batch.waveform[:n], speaker.roll(1, 0)[:n]
        with torch.no_grad():
            latents = model.latents(model.encode(source))
            contours = batch.values["pitch"].cpu().numpy()
            means = np.array([mean_log_f0(contour) for contour in contours], np.float32)
            moves = (np.roll(means, 1) - means).clip(-LARGEST_MOVE, LARGEST_MOVE)[:n]
            moved = np.where(contours[:n] != UNVOICED, contours[:n] + moves[:, None], UNVOICED)
            features = torch.from_numpy(self.stream.features(moved)).to(source.device)
            told = guided(target, speaker[:n])
        converted = decoder(Condition(latents, told, {"pitch": features}))
        with torch.autocast(source.device.type, enabled=False):
            log_ratio = torch.from_numpy(moves).to(source.device)
            periodicity = self.periodicity(converted.float(), source, log_ratio)
            heard = model.speaker(converted.float())
        return ConversionLosses(periodicity, (1 - F.cosine_similarity(heard, target)).mean())
