"""Watches the codebook while it trains, and says what to do before a run is wasted."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class CodebookUsage(NamedTuple):
    """Of all codes seen since the last report.

    Attributes:
        perplexity: 2 to the entropy of the code distribution in bits, mean over codebooks;
            codebook_size at best, 1 when collapsed.
        used: share of the codebook that was used at all, in [0, 1].
        dead: codes never used, over all codebooks.
        n_codes: codes seen, of each codebook.
    """

    perplexity: float
    used: float
    dead: int
    n_codes: int


class CollapseMonitor:
    """Counts codes and warns when a codebook falls asleep."""

    # Below a tenth of the codebook, more bits are paid for than carry anything.
    LOWEST_PERPLEXITY = 0.1

    def __init__(self, codebook_size: int, n_codebooks: int) -> None:
        self.codebook_size = codebook_size
        self.counts = torch.zeros(n_codebooks, codebook_size, dtype=torch.int64)

    def update(self, indices: Tensor) -> None:
        """Count indices (B, Q, N)."""
        for counts, used in zip(self.counts, indices.transpose(0, 1).cpu(), strict=True):
            counts += torch.bincount(used.flatten(), minlength=self.codebook_size)

    def usage(self, counts: Tensor | None = None) -> CodebookUsage:
        """Statistics since the last call, and start again.

        They are of counts (Q, K), such as the sum over processes; of `self.counts` when None.
        """
        counts = self.counts if counts is None else counts
        probability = counts.double() / counts.sum(-1, keepdim=True).clamp(min=1)
        entropy = -(probability * probability.clamp(min=1e-12).log()).sum(-1)
        used = counts > 0
        usage = CodebookUsage(
            entropy.exp().mean().item(),
            used.double().mean().item(),
            int((~used).sum()),
            int(counts[0].sum()),
        )
        self.counts.zero_()
        return usage

    def warning(self, usage: CodebookUsage) -> str | None:
        """One line with the remedy if the codebook has collapsed, else None.

        Fewer codes than the codebook holds say nothing yet.
        """
        enough = usage.n_codes >= self.codebook_size
        if not enough or usage.perplexity >= self.LOWEST_PERPLEXITY * self.codebook_size:
            return None
        return (
            f"the codebook is collapsing: perplexity {usage.perplexity:.1f} of "
            f"{self.codebook_size}, {usage.dead} codes unused; use model.quantizer.codebook_dim "
            "8-16 with use_cosine_sim, more unquantized_steps, or a lower "
            "optimizer.learning_rate"
        )
