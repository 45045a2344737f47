"""What is minimised where encoders alone are trained: they hear dirt, and answer as in the clean.

Codebook and decoders stay, and with them what codes mean. The encoder is drawn to what the one of
before made of the clean segment, and to what the decoder, told its codes, brings nearest to that.
"""

from __future__ import annotations

import copy

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vqcodec.data.batches import Batch
from vqcodec.format.ngram_coder import NgramModel
from vqcodec.models.interfaces import Condition
from vqcodec.models.quantizer import VectorQuantizer
from vqcodec.models.vqvae import VQVAE
from vqcodec.models.waveform_loss import WaveformLoss, WaveformLosses
from vqcodec.training.objective import Losses, with_weight
from vqcodec.training.recipe import Recipe

# Of half a squared distance, at which a code is less likely by a factor of e.
SOFTNESS = 0.02


class EncoderObjective(nn.Module):
    """Model and losses together, as `Objective`; copies of the initial encoders stay.

    It needs a fast decoder, the quantizer `vq` and a speaker encoder. `commitment` is the squared
    distance of the vectors from their codes; `latents` that from those of the initial encoder,
    which hears the clean segment (knowledge distillation, Hinton et al. 2015, arXiv 1503.02531);
    `voice` that of speaker vectors of length 1 likewise, 0 to 4; `bits` the mean cost of all codes
    by the entropy coder, each as likely as its vector is near, zero without tables.
    """

    def __init__(self, model: VQVAE, recipe: Recipe, tables: NgramModel | None) -> None:
        super().__init__()
        assert model.fast is not None
        assert isinstance(model.quantizer, VectorQuantizer)
        self.model, self.weights, self.tables = model, recipe.loss, tables
        self.fast, self.quantizer = model.fast, model.quantizer
        self.initial = nn.ModuleDict(
            {"encoder": copy.deepcopy(model.encoder), "speaker": copy.deepcopy(model.speaker)}
        )
        self.commitment_weight = model.config.quantizer.commitment_weight
        self.waveform_loss = WaveformLoss(model.config.sample_rate, recipe.loss)
        self.requires_grad_(False)
        for part in (model.encoder, model.speaker):
            part.requires_grad_(True)

    def compile_parts(self) -> None:
        """Compile what is plain arithmetic."""
        for part in (self.model.encoder.get_submodule("layers"), *self.fast.blocks):
            part.compile()

    def train(self, mode: bool = True) -> EncoderObjective:
        """Always evaluation mode: neither codebook nor norms are to move."""
        super().train(False)
        return self

    def forward(self, batch: Batch) -> Losses:
        """Losses of a batch."""
        model, quantizer = self.model, self.quantizer
        vectors = quantizer.project(model.norm(model.encoder(batch.encoder_input)))
        with torch.no_grad():
            clean = quantizer.project(model.norm(self.initial["encoder"](batch.waveform)))
            speaker = self.initial["speaker"](batch.reference)
        with torch.autocast(vectors.device.type, enabled=False):
            vectors, clean = vectors.float(), clean.float()
            latents, indices = quantizer.quantize(vectors)
            commitment = _squared_distance(vectors, quantizer.vectors(indices[:, 0]))
            drift = _squared_distance(vectors, clean)
            bits = self._bits(vectors, indices)
        heard = F.normalize(model.speaker(batch.speaker_input), dim=-1)
        voice = _squared_distance(heard, F.normalize(speaker, dim=-1))
        decoded = self.fast(Condition(latents, speaker, batch.streams))
        waveform: WaveformLosses = self.waveform_loss(decoded, batch.waveform)
        total = (
            waveform.weighted(self.weights)
            + self.commitment_weight * commitment
            + self.weights.latents * drift
            + self.weights.voice * voice
            + self.weights.bits * bits
        )
        parts = {
            **waveform._asdict(),
            "commitment": commitment,
            "latents": drift,
            "voice": voice,
            **({} if self.tables is None else {"bits": bits}),
        }
        return Losses(total, with_weight(parts, self.weights), indices, decoded)

    def _bits(self, vectors: Tensor, indices: Tensor) -> Tensor:
        if self.tables is None or not self.weights.bits:
            return vectors.new_zeros(())
        codes = indices.cpu().numpy().astype(np.uint16)
        costs = np.stack([self.tables.costs(own)[:, 0] for own in codes])
        likely = (self.quantizer.closeness(vectors) / SOFTNESS).softmax(-1)
        return (likely * torch.from_numpy(costs).to(vectors.device)).sum(-1).mean()


def _squared_distance(vectors: Tensor, others: Tensor) -> Tensor:
    return (vectors - others).square().sum(-1).mean()
