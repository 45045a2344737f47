"""The game between the fast decoder and its discriminators."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vqcodec.models.discriminators import Discriminators, Judgement
from vqcodec.training.recipe import AdversarialConfig


class AdversarialLosses(NamedTuple):
    """Scalars of one round.

    Attributes:
        total: the weighted sum; its gradient improves both sides, each by its own losses alone.
        adversarial, feature_matching: of the decoder.
        discriminator: of the discriminators.
    """

    total: Tensor
    adversarial: Tensor
    feature_matching: Tensor
    discriminator: Tensor

    def scalars(self) -> dict[str, Tensor]:
        """Every loss but the total by name, without gradients."""
        pairs = zip(self._fields[1:], self[1:], strict=True)
        return {name: loss.detach() for name, loss in pairs}


class Adversary(nn.Module):
    """Discriminators and the losses of both sides, so that one backward pass serves them."""

    def __init__(self, config: AdversarialConfig) -> None:
        super().__init__()
        self.config = config
        self.discriminators = Discriminators(config.channels)

    def forward(self, decoded: Tensor, true: Tensor) -> AdversarialLosses:
        """Waveforms (B, T) and (B, T) -> losses of a round."""
        judged_true = self.discriminators(true)
        discriminator = discriminator_loss(judged_true, self.discriminators(decoded.detach()))
        # The decoder is to please the discriminators, not they the decoder.
        self.discriminators.requires_grad_(False)
        judged = self.discriminators(decoded)
        self.discriminators.requires_grad_(True)
        adversarial = adversarial_loss(judged)
        feature_matching = feature_matching_loss(judged_true, judged)
        total = (
            self.config.weight * adversarial
            + self.config.feature_matching * feature_matching
            + discriminator
        )
        return AdversarialLosses(total, adversarial, feature_matching, discriminator)


def discriminator_loss(true: Sequence[Judgement], decoded: Sequence[Judgement]) -> Tensor:
    """Hinge loss of the discriminators: 2 where they cannot tell, 0 where they surely can.

    EnCodec (arXiv 2210.13438), section 3.4.
    """
    losses = [
        F.relu(1 - a.scores.float()).mean() + F.relu(1 + b.scores.float()).mean()
        for a, b in zip(true, decoded, strict=True)
    ]
    return torch.stack(losses).mean()


def adversarial_loss(decoded: Sequence[Judgement]) -> Tensor:
    """Hinge loss of the decoder: 0 where the discriminators surely take its audio for true."""
    return torch.stack([F.relu(1 - b.scores.float()).mean() for b in decoded]).mean()


def feature_matching_loss(true: Sequence[Judgement], decoded: Sequence[Judgement]) -> Tensor:
    """L1 between hidden layers over the mean size of the true ones (EnCodec, eq. 2)."""

    def distance(x: Tensor, y: Tensor) -> Tensor:
        x, y = x.detach().float(), y.float()
        # Of every segment by itself, so that a batch may be shared by several processes.
        size = x.abs().mean((1, 2, 3)).clamp(min=1e-6)
        return ((y - x).abs().mean((1, 2, 3)) / size).mean()

    losses = [
        distance(x, y)
        for a, b in zip(true, decoded, strict=True)
        for x, y in zip(a.features, b.features, strict=True)
    ]
    return torch.stack(losses).mean()
