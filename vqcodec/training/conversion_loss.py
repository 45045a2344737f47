"""What is minimised of conversions: nobody has ever said them, so no waveform can be compared.

But it is known what melody they are to have: that of the source, moved to where the target
speaks. Codes tell something of their own pitch, which a decoder believes unless it is taught
otherwise. The timbre of conversions is to stay: taught the melody alone, they lose the voice.
"""

from __future__ import annotations

import copy
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vqcodec.data.batches import Batch
from vqcodec.models.config import ModelConfig
from vqcodec.models.interfaces import Condition, Decoder
from vqcodec.models.loss_config import LossConfig
from vqcodec.models.mel import MelSpectrogram
from vqcodec.models.pitch import UNVOICED, mean_log_f0
from vqcodec.models.speaker_vector import guided
from vqcodec.models.streams import build_streams
from vqcodec.models.vqvae import VQVAE
from vqcodec.models.waveform_loss import PeriodicityLoss

LARGEST_MOVE = 0.8  # of log F0: 14 semitones


class ConversionLosses(NamedTuple):
    """Scalars.

    Attributes:
        conversion_pitch: see `PitchLoss`.
        conversion_timbre: L1 of the log energies in mel bands too wide for single harmonics, from
            those that the decoder had before it was trained.
    """

    conversion_pitch: Tensor
    conversion_timbre: Tensor

    def weighted(self, weights: LossConfig) -> Tensor:
        """Their sum."""
        return (
            weights.conversion_pitch * self.conversion_pitch
            + weights.conversion_timbre * self.conversion_timbre
        )


class PitchLoss(nn.Module):
    """How much less a voice repeats itself after the period that it was told than its source did.

    Only autocorrelations after one period are compared, which formants hardly move: compared as a
    whole, they would have the formants of a higher voice as much higher. A voice an octave too high
    repeats itself after half the period as well, more than its source did.
    """

    ALLOWED_SHARE, ALWAYS_ALLOWED = 0.8, 0.4  # after half a period, of that after a whole one

    def __init__(self, sample_rate: int, hop_length: int) -> None:
        super().__init__()
        self.sample_rate, self.hop_length = sample_rate, hop_length
        self.periodicity = PeriodicityLoss(sample_rate)

    def forward(self, output: Tensor, told: Tensor, source: Tensor, own: Tensor) -> Tensor:
        """Compare a voice with its source, both (B, T) float32: a scalar, 0 or more.

        Beside them, (B, N), the contours that the voice was told and that the source has, voiced
        alike.
        """
        got, _ = self.periodicity.autocorrelation(output)
        wanted, energy = self.periodicity.autocorrelation(source)
        window, lags = len(self.periodicity.window), self.periodicity.lags
        centres = torch.arange(got.shape[1], device=got.device) * self.periodicity.hop_length
        code = ((centres + window // 2) // self.hop_length).clamp(max=own.shape[1] - 1)
        is_speech = energy > PeriodicityLoss.SILENCE * energy.amax(-1, keepdim=True)
        before, after = (self.sample_rate / contour[:, code].exp() for contour in (own, told))
        is_known = (own[:, code] != UNVOICED) & (after > lags.start) & (after < lags.stop - 1)
        counted = (is_speech & is_known).float()
        whole = self._at(wanted, before)
        lacking = F.relu(whole - self._at(got, after))
        allowed = self._at(wanted, before / 2).maximum(self.ALLOWED_SHARE * whole)
        excess = F.relu(self._at(got, after / 2) - allowed.clamp(min=self.ALWAYS_ALLOWED))
        distance = lacking + excess * (after / 2 >= lags.start)
        return (distance * counted).sum() / counted.sum().clamp(min=1)

    def _at(self, products: Tensor, lag: Tensor) -> Tensor:
        """(B, frames, lags) at one lag of each frame, (B, frames) samples, held at the ends."""
        last = products.shape[-1] - 1
        place = (lag - self.periodicity.lags.start).clamp(0, last)[..., None]
        index = place.long().clamp(max=last - 1)
        between = products.gather(2, index), products.gather(2, index + 1)
        return torch.lerp(*between, place - index)[..., 0]


class ConversionLoss(nn.Module):
    """Converts half of a batch's segments to the voice of the segment before each, and listens.

    It is for a model that is told the pitch and hears speakers, and its decoder before it is
    trained.
    """

    N_MELS, ENERGY_FLOOR = 24, 1e-3

    def __init__(self, config: ModelConfig, decoder: Decoder) -> None:
        super().__init__()
        self.stream = build_streams(config)["pitch"]
        self.pitch = PitchLoss(config.sample_rate, config.hop_length)
        self.before = copy.deepcopy(decoder)
        self.mel = MelSpectrogram(
            config.sample_rate, n_fft=1024, hop_length=256, n_mels=self.N_MELS
        )

    def forward(
        self, model: VQVAE, decoder: Decoder, batch: Batch, speaker: Tensor
    ) -> ConversionLosses:
        """Losses of conversions of two segments or more, which the speakers (B, S) say."""
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
            before = self.before(Condition(latents, told)).float()
        converted = decoder(Condition(latents, told, {"pitch": features}))
        with torch.autocast(source.device.type, enabled=False):
            own, new = (
                torch.from_numpy(contour.astype(np.float32)).to(source.device)
                for contour in (contours[:n], moved)
            )
            pitch = self.pitch(converted.float(), new, source, own)
            bands = [(self.mel(x) + self.ENERGY_FLOOR).log() for x in (converted.float(), before)]
        return ConversionLosses(pitch, F.l1_loss(*bands))
