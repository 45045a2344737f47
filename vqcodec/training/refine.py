"""Better codes for a recording: those that decode to what is nearest to it, for their bits.

An encoder answers at once, and its codes are not the best that its decoder could be told. They are
searched for from there, by analysis by synthesis (Schroeder and Atal 1985, "Code-excited linear
prediction", ICASSP), with the decoder's gradient as in content-adaptive compression of images
(Campos et al. 2019, arXiv 1906.01223). The vectors move; what is decoded are the codes nearest to
them, less likely ones seeming farther away (Chou, Lookabaugh and Gray 1989, "Entropy-constrained
vector quantization", IEEE Trans. ASSP 37(1)).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vqcodec import windows
from vqcodec.decoding import decode_latents
from vqcodec.entropy import NgramTables
from vqcodec.errors import VqcodecError
from vqcodec.models import encoder, spectral
from vqcodec.models.quantizer import VectorQuantizer
from vqcodec.models.vqvae import VQVAE
from vqcodec.training.config import LONGEST_WINDOW, STOI_SECONDS, LossConfig
from vqcodec.training.losses import WaveformLoss

STEPS, LEARNING_RATE = 40, 0.02
WEIGHTS = LossConfig(stoi=5.0, periodicity=1.0)
# Of half a squared distance, for a code of 128 samples; one that stands for less may cost more.
BIT_PENALTY, PENALTY_HOP = 0.005, 128
STEPS_PER_COSTS = 5  # they change little from step to step


def refined_code_blocks(
    model: VQVAE,
    blocks: Iterable[np.ndarray],
    speaker: Tensor,
    *,
    tables: NgramTables | None,
) -> Iterator[np.ndarray]:
    """Encode as `encoding.code_blocks` does, but search for codes that decode to more.

    The same recording gives the same codes on one CPU, for any number of threads.

    Args:
        model: with a fast decoder, on the device of `speaker`.
        blocks: (T,) float32 at the model's rate and normalised level.
        speaker: (1, S) what the decoder will be told.
        tables: of the entropy coder, by which codes have a cost; without them none has.

    Yields:
        (1, n) uint16.

    Raises:
        VqcodecError: the model has no fast decoder, or another quantizer than `vq`.
    """
    config, quantizer = model.config, model.quantizer
    if config.fast is None or not isinstance(quantizer, VectorQuantizer):
        raise VqcodecError(
            "this model's codes cannot be refined: that needs a fast decoder and the quantizer vq"
        )
    heard = [-(-n // config.hop_length) for n in encoder.context(config.encoder)]
    decoded = spectral.context(config.fast, config.hop_length)
    grid = windows.windows(
        blocks,
        length=windows.LENGTH,
        context=(heard[0] + decoded[0], heard[1] + decoded[1]),
        step=config.hop_length,
    )
    search = _Search(model, quantizer, speaker, tables)
    return windows.map_in_order(search, grid, speaker.device)


class _Search:
    """What is common to all windows of a recording."""

    def __init__(
        self,
        model: VQVAE,
        quantizer: VectorQuantizer,
        speaker: Tensor,
        tables: NgramTables | None,
    ) -> None:
        self.model, self.quantizer, self.tables = model, quantizer, tables
        self.speaker, self.device = speaker, speaker.device
        self.loss = WaveformLoss(model.config.sample_rate, WEIGHTS).to(self.device)
        self.bit_penalty = BIT_PENALTY * model.config.hop_length / PENALTY_HOP

    def __call__(self, window: windows.Window) -> np.ndarray:
        """The codes that a window keeps, (1, n)."""
        best = self._refine(self._waveform(window))
        return best[0, :, window.start : window.end].cpu().numpy().astype(np.uint16)

    def _waveform(self, window: windows.Window) -> Tensor:
        """(1, T), long enough for every loss."""
        config = self.model.config
        shortest = max(LONGEST_WINDOW, STOI_SECONDS * config.sample_rate)
        n_samples = int(-(-shortest // config.hop_length)) * config.hop_length
        waveform = torch.from_numpy(window.data)[None].to(self.device)
        return F.pad(waveform, (0, max(0, n_samples - waveform.shape[1])))

    def _refine(self, waveform: Tensor) -> Tensor:
        """Waveform (1, T) -> codes (1, 1, T / hop_length)."""
        with torch.no_grad():
            vectors = self.quantizer.project(self.model.norm(self.model.encoder(waveform)))
            codes = self.quantizer.nearest(vectors)[:, None]
        vectors.requires_grad_()
        # The gradients of a long window's single vectors are small.
        optimizer = torch.optim.Adam([vectors], LEARNING_RATE, betas=(0.9, 0.9), eps=1e-12)
        schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, STEPS)
        penalty, least, best = None, float("inf"), codes
        for step in range(STEPS):
            if self.tables is not None and step % STEPS_PER_COSTS == 0:
                costs = self.tables.costs(codes[0].cpu().numpy().astype(np.uint16))
                penalty = self.bit_penalty * torch.from_numpy(costs[:, 0]).to(self.device)
            latents, codes = self.quantizer.quantize(vectors, penalty)
            loss = self._distance(latents, waveform)
            if loss.item() < least:
                least, best = loss.item(), codes
            # Not `backward`, by which all threads would add to the model's own gradients.
            (vectors.grad,) = torch.autograd.grad(loss, [vectors])
            optimizer.step()
            schedule.step()
        return best

    def _distance(self, latents: Tensor, waveform: Tensor) -> Tensor:
        """How far what latents (1, D, N) decode to is from a waveform (1, T)."""
        assert self.model.fast is not None
        decoded = decode_latents(self.model.fast, latents, self.speaker)
        return self.loss(decoded, waveform).weighted(WEIGHTS)
