"""Who speaks: a vector of fixed size, from a reference recording or from a table of names."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vqcodec.models.mel import MelSpectrogram


class SpeakerEncoder(nn.Module):
    """Pools a reference clip into one vector, whose values have a root mean square of 1.

    Log-mel frames pass strided convolutions; attentive statistics pooling (Okabe et al. 2018,
    arXiv 1803.10963) then forgets when things were said and keeps how. The vector is rounded to
    the grid of its 64-byte stored form (straight-through in training), so decoding with a stored
    vector equals decoding with a fresh one.
    """

    def __init__(self, dim: int, channels: int, sample_rate: int) -> None:
        super().__init__()
        self.mel = MelSpectrogram(sample_rate, n_fft=512, hop_length=160, n_mels=64)
        self.layers = nn.Sequential(
            nn.Conv1d(64, channels, 5, stride=2, padding=2),
            nn.GELU(),
            nn.Conv1d(channels, channels, 5, stride=2, padding=2),
            nn.GELU(),
            nn.Conv1d(channels, 2 * channels, 5, padding=2),
            nn.GELU(),
        )
        self.attention = nn.Conv1d(2 * channels, 1, 1)
        self.output = nn.Linear(4 * channels, dim)

    def forward(self, reference: Tensor) -> Tensor:
        """Waveform (B, T), normalised level -> speaker vectors (B, S) on the int8 grid."""
        with torch.autocast(reference.device.type, enabled=False):
            log_mel = 0.3 * (self.mel(reference.float()) + 1e-5).log() + 1
        x = self.layers(log_mel)
        weights = self.attention(x).float().softmax(dim=-1)
        mean = (weights * x).sum(-1)
        deviation = ((weights * x.square()).sum(-1) - mean.square()).clamp(min=1e-5).sqrt()
        return to_grid(self.output(torch.cat([mean, deviation], dim=1)).float())


class SpeakerTable(nn.Module):
    """The paper's one-hot speakers: a learned vector for every training speaker."""

    def __init__(self, n_speakers: int, dim: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(n_speakers, dim)

    def forward(self, index: Tensor) -> Tensor:
        """(B,) int64 -> (B, S) on the int8 grid."""
        return to_grid(self.embedding(index))


def to_grid(vector: Tensor) -> Tensor:
    """Scale vectors (B, S) to unit RMS and round them to multiples of 1/32 in [-4, 127/32].

    The gradient is straight-through, and the result what `from_int8(to_int8(...))` gives back.
    """
    unit = F.normalize(vector, dim=-1) * vector.shape[-1] ** 0.5
    rounded = (unit * 32).round().clamp(-128, 127) / 32
    return unit + (rounded - unit).detach()
