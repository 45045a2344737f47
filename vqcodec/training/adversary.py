"""The game between the fast decoder and its discriminators."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn

from vqcodec.models.discriminators import Discriminators
from vqcodec.training.config import AdversarialConfig
from vqcodec.training.losses import adversarial_loss, discriminator_loss, feature_matching_loss


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
    """Discriminators and the losses of both sides, so that one backward pass serves them.

    Args:
        config: weights and width.
    """

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
