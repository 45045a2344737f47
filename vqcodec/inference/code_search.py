"""Code search: those codes for a recording that decode to what is nearest to it, for their bits.

An encoder answers at once, and its codes are not the best that its decoder could be told. They are
searched for from there, by analysis by synthesis (Schroeder and Atal 1985, "Code-excited linear
prediction", ICASSP), with the decoder's gradient as in content-adaptive compression of images
(Campos et al. 2019, arXiv 1906.01223). The vectors move; what is decoded are the codes nearest to
them, less likely ones seeming farther away (Chou, Lookabaugh and Gray 1989, "Entropy-constrained
vector quantization", IEEE Trans. ASSP 37(1)).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from types import MappingProxyType

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vqcodec.errors import VqcodecError
from vqcodec.format.ngram_coder import NgramModel
from vqcodec.inference import chunking
from vqcodec.inference.engines.pytorch import TorchEngine, run_decoder
from vqcodec.inference.melody import Voice
from vqcodec.models.interfaces import Condition
from vqcodec.models.loss_config import LONGEST_WINDOW, STOI_SECONDS, LossConfig
from vqcodec.models.pitch import Contour
from vqcodec.models.quantizer import VectorQuantizer
from vqcodec.models.receptive_field import encoder_context
from vqcodec.models.vqvae import VQVAE
from vqcodec.models.waveform_loss import WaveformLoss

STEPS, LEARNING_RATE = 20, 0.02
LENGTH = 500  # codes searched together, whose gradients are held in memory
BETAS = (0.5, 0.95)  # a gradient is another as soon as a code is: the last ones mislead
WEIGHTS = LossConfig(stoi=2.0, periodicity=1.0)
# Of half a squared distance, for a code that stands for 8 ms of sound; in proportion for others.
BIT_PENALTY, PENALTY_SECONDS = 0.01, 0.008
STEPS_PER_COSTS = 5  # they change little from step to step


def searched_blocks(
    engine: TorchEngine,
    blocks: Iterable[np.ndarray],
    voice: Voice,
    *,
    tables: NgramModel | None,
    contour: Contour | None = None,
) -> Iterator[np.ndarray]:
    """Encode as `encoding.code_blocks` does, but search for codes that decode to more.

    The same recording gives the same codes on one CPU, for any number of threads.

    Args:
        engine: of a model with a fast decoder.
        blocks: (T,) float32 at the model's rate and normalised level.
        voice: what the decoder will be told.
        tables: of the entropy coder, by which codes have a cost; without them none has.
        contour: (N,) of the recording, as it will be told.

    Yields:
        (1, n) uint16.

    Raises:
        VqcodecError: the model has no fast decoder, or another quantizer than `vq`.
    """
    config = engine.config
    search = CodeSearch(engine.model, None if tables is None else partial(_costs, tables), STEPS)
    heard = [-(-n // config.hop_length) for n in encoder_context(config.encoder)]
    decoded = search.fast.context
    grid = chunking.chunks(
        blocks,
        length=LENGTH,
        context=(heard[0] + decoded[0], heard[1] + decoded[1]),
        step=config.hop_length,
    )

    def searched(numbered: tuple[int, chunking.Chunk]) -> np.ndarray:
        """The codes that a chunk keeps, (1, n)."""
        number, chunk = numbered
        first = number * LENGTH - chunk.start
        n_codes = len(chunk.data) // config.hop_length
        told = None if contour is None else contour[first : first + n_codes]
        streams = {name: engine.tensor(own) for name, own in voice.streams(told).items()}
        codes = search(engine.tensor(chunk.data), engine.tensor(voice.vector), streams)
        return codes[0, :, chunk.start : chunk.end].cpu().numpy().astype(np.uint16)

    return chunking.map_in_order(searched, enumerate(grid), engine.n_threads)


class CodeSearch:
    """Analysis by synthesis for a batch of waveforms (the module's sources).

    Args:
        model: with a fast decoder; nothing of it changes.
        costs: codes (B, N) -> (B, N, codebook_size) the bits of each code in every place, if the
            others are those; without it none has a cost.
        steps: of the descent.

    Raises:
        VqcodecError: the model has no fast decoder, or another quantizer than `vq`.
    """

    def __init__(self, model: VQVAE, costs: Callable[[Tensor], Tensor] | None, steps: int) -> None:
        if model.fast is None or not isinstance(model.quantizer, VectorQuantizer):
            raise VqcodecError(
                "this model's codes cannot be refined: "
                "that needs a fast decoder and the quantizer vq"
            )
        self.model, self.fast, self.quantizer = model, model.fast, model.quantizer
        self.costs, self.steps = costs, steps
        sample_rate, hop_length = model.config.sample_rate, model.config.hop_length
        device = next(model.parameters()).device
        self.loss = WaveformLoss(sample_rate, WEIGHTS).to(device)
        self.bit_penalty = BIT_PENALTY * (hop_length / sample_rate) / PENALTY_SECONDS
        shortest = max(LONGEST_WINDOW, STOI_SECONDS * sample_rate)
        self.n_samples = int(-(-shortest // hop_length)) * hop_length

    def __call__(
        self,
        waveform: Tensor,
        speaker: Tensor,
        streams: Mapping[str, Tensor] = MappingProxyType({}),
    ) -> Tensor:
        """Search from the encoder's codes, for all waveforms together.

        Args:
            waveform: (B, N * hop_length) at normalised level.
            speaker: (B, S) what the decoder will be told.
            streams: (B, C, N) each, likewise.

        Returns:
            (B, 1, N) int64, or more of them where that is too short for the losses.
        """
        missing = max(0, self.n_samples - waveform.shape[1])
        waveform = F.pad(waveform, (0, missing))
        n_codes = missing // self.model.config.hop_length
        streams = {name: F.pad(own, (0, n_codes)) for name, own in streams.items()}
        with torch.no_grad():
            vectors = self.quantizer.project(self.model.norm(self.model.encoder(waveform)))
            codes = self.quantizer.nearest(vectors)[:, None]
        vectors.requires_grad_()
        # The gradients of a long chunk's single vectors are small.
        optimizer = torch.optim.Adam([vectors], LEARNING_RATE, BETAS, eps=1e-12)
        schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, self.steps)
        penalty, least, best = None, float("inf"), codes
        for step in range(self.steps):
            if self.costs is not None and step % STEPS_PER_COSTS == 0:
                penalty = self.bit_penalty * self.costs(codes[:, 0])
            latents, codes = self.quantizer.quantize(vectors, penalty)
            decoded = run_decoder(self.fast, Condition(latents, speaker, streams))
            loss = self.loss(decoded, waveform).weighted(WEIGHTS)
            if loss.item() < least:
                least, best = loss.item(), codes
            # Not `backward`, by which all threads would add to the model's own gradients.
            (vectors.grad,) = torch.autograd.grad(loss, [vectors])
            optimizer.step()
            schedule.step()
        return best


def _costs(tables: NgramModel, codes: Tensor) -> Tensor:
    """Codes (1, N) -> (1, N, codebook_size) bits."""
    costs = tables.costs(codes.cpu().numpy().astype(np.uint16))
    return torch.from_numpy(costs[:, 0])[None].to(codes.device)
