"""What is minimised: one module that takes a batch and returns every loss."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vqcodec.data.batches import NOT_ENCODED, Batch
from vqcodec.data.labels import UNLABELLED
from vqcodec.models.interfaces import Condition, Quantized
from vqcodec.models.loss_config import LossConfig
from vqcodec.models.mel import MelSpectrogram
from vqcodec.models.mu_law import N_LEVELS
from vqcodec.models.phase import with_phase_of
from vqcodec.models.quantizer import VectorQuantizer
from vqcodec.models.speaker_vector import guided
from vqcodec.models.vqvae import VQVAE
from vqcodec.models.waveform_loss import MultiResolutionSpectralLoss, WaveformLoss, WaveformLosses
from vqcodec.models.wavenet import WaveNet
from vqcodec.training.conversion_loss import ConversionLoss, ConversionLosses
from vqcodec.training.recipe import Recipe

SOFTEST_DB = 40.0


class Losses(NamedTuple):
    """What is minimised, and of what it is made.

    Attributes:
        total: the weighted sum.
        parts: scalars by their names in `LossConfig`, of those that have a weight and are heard at
            this stage, and `commitment`, the quantizer's own, already weighted.
        indices: (B, Q, N) codes of the batch.
        decoded: (B, T) float32 what was made of them in one pass, or None.
    """

    total: Tensor
    parts: dict[str, Tensor]
    indices: Tensor
    decoded: Tensor | None

    def scalars(self) -> dict[str, Tensor]:
        """Every loss by name, without gradients."""
        losses = {"total": self.total, **self.parts}
        return {name: loss.detach().float() for name, loss in losses.items()}


class Objective(nn.Module):
    """Model and losses together, so that distributed training wraps one module.

    `latent_mel` is the L1 of the log-mel predicted straight from the quantised latents; `phones`
    the cross-entropy in nats of phones, of `n_phones` classes, predicted from single codes, over
    all codes, of which those without a label count nothing; `wavenet` the cross-entropy in nats per
    sample. The others are `WaveformLosses`, `ConversionLosses` and `inconsistency`.
    """

    def __init__(self, model: VQVAE, recipe: Recipe, n_phones: int = 0) -> None:
        super().__init__()
        self.model, self.weights, self.freezes_codes = model, recipe.loss, recipe.freezes_codes
        self.trained_decoders = recipe.trained_decoders
        self.perturbation = recipe.perturbation
        config = model.config
        self.waveform_loss = WaveformLoss(config.sample_rate, recipe.loss)
        self.conversion_loss = None
        if recipe.loss.hears_conversions and model.fast is not None:
            self.conversion_loss = ConversionLoss(config, model.fast)
        hop_length = config.hop_length
        self.mel = MelSpectrogram(
            config.sample_rate,
            n_fft=max(512, 1 << (2 * hop_length - 1).bit_length()),
            hop_length=hop_length,
            n_mels=64,
            power=1.0,
        )
        self.mel_head = nn.Sequential(
            nn.Conv1d(config.quantizer.dim, 256, 5, padding=2), nn.GELU(), nn.Conv1d(256, 64, 1)
        )
        # It sees one code at a time: each is to be a phone by itself.
        self.phone_head = nn.Conv1d(config.quantizer.dim, n_phones, 1) if n_phones else None
        self.requires_grad_(not self.freezes_codes)
        for name, decoder in model.decoders.items():
            decoder.requires_grad_(name in self.trained_decoders)

    def compile_parts(self) -> None:
        """Compile what is plain arithmetic; spectra and codebook updates stay as they are."""
        model = self.model
        # Not the filterbank before them: torch 2.11 compiles its gradient to NaN on a CPU.
        layers = model.encoder.get_submodule("layers")
        parts = [layers, model.wavenet, *(model.fast.blocks if model.fast else ())]
        for part in parts:
            if part is not None:
                part.compile()

    def train(self, mode: bool = True) -> Objective:
        """Training mode; a frozen codec stays in evaluation mode."""
        super().train(mode)
        if self.freezes_codes:
            super().train(False)
        return self

    def forward(self, batch: Batch) -> Losses:
        """Losses of a batch."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.freezes_codes):
            reference = (
                batch.speaker if self.model.config.speaker.kind == "table" else batch.speaker_input
            )
            (quantized, indices, commitment), consistency = self._quantized(batch)
            speaker = self.model.speaker(reference)
        if self.freezes_codes:
            indices = torch.where(batch.codes == NOT_ENCODED, indices, batch.codes)
            quantized = self.model.latents(indices)
        condition = Condition(quantized, speaker, batch.streams)
        parts, zero = {"commitment": commitment}, commitment.new_zeros(())
        latent_mel = phones = wavenet = zero
        conversion = ConversionLosses(zero, zero)
        waveform = WaveformLosses(zero, zero, zero, zero, zero)
        decoded = None
        if not self.freezes_codes:
            latent_mel = F.l1_loss(self.mel_head(quantized).float(), self._log_mel(batch.waveform))
            parts["latent_mel"] = latent_mel
            if self.training:
                parts["consistency"] = consistency
            if self.phone_head is not None:
                logits = self.phone_head(quantized).float()
                phones = F.cross_entropy(
                    logits, batch.phones, ignore_index=UNLABELLED, reduction="sum"
                )
                parts["phones"] = phones = phones / batch.phones.numel()
        for name in self.trained_decoders:
            decoder = self.model.decoders[name]
            if isinstance(decoder, WaveNet):
                parts["wavenet"] = wavenet = self._surprise(decoder, batch.waveform, condition)
            else:
                decoded = decoder(condition)
                waveform = self.waveform_loss(decoded, batch.waveform)
                parts |= waveform._asdict()
                if self.conversion_loss is not None and torch.is_grad_enabled():
                    conversion = self.conversion_loss(self.model, decoder, batch, speaker)
                    parts |= conversion._asdict()
        total = (
            waveform.weighted(self.weights)
            + self.weights.latent_mel * latent_mel
            + self.weights.phones * phones
            + self.weights.wavenet * wavenet
            + self.weights.consistency * consistency
            + conversion.weighted(self.weights)
            + commitment
        )
        return Losses(total, with_weight(parts, self.weights), indices, decoded)

    def _surprise(self, wavenet: WaveNet, waveform: Tensor, condition: Condition) -> Tensor:
        """Cross-entropy in nats per sample of what it predicts."""
        informed = wavenet.informed(condition, self.model.fast)
        if informed.coarse is not None:
            waveform = with_phase_of(informed.coarse, waveform)
        levels = wavenet.to_levels(waveform)
        told = self._told(wavenet, waveform) if torch.is_grad_enabled() else levels
        logits = wavenet(levels, informed, told)
        surprise = F.cross_entropy(logits.flatten(0, -2).float(), levels.flatten())
        if wavenet.prediction is not None and torch.is_grad_enabled():
            error = wavenet.prediction_error(levels, informed)
            surprise = surprise + self.weights.prediction * error
        return surprise

    def _told(self, wavenet: WaveNet, waveform: Tensor) -> Tensor:
        """Levels (B, S, M) of which a WaveNet in training believes that it has made them."""
        dice, loudness = torch.rand(2, len(waveform), 1, device=waveform.device)
        is_softer = dice < self.perturbation.past_softer
        gain = torch.where(is_softer, 10 ** (-loudness * SOFTEST_DB / 20), 1.0)
        levels = wavenet.to_levels(waveform * gain)
        # Some segments a little and some a lot, evenly in the logarithm.
        exponents = torch.rand(len(waveform), 1, 1, device=levels.device)
        most = self.perturbation.past_noise
        deviation = (most**exponents).clamp(max=most)
        noise = deviation * torch.randn(levels.shape, device=levels.device)
        return (levels + noise.round().long()).clamp(0, N_LEVELS - 1)

    def _quantized(self, batch: Batch) -> tuple[Quantized, Tensor]:
        """What the encoder makes of its input, and how far that is from what it would plainly."""
        model, heard = self.model, self._converted(batch)
        is_other = (heard != batch.waveform).any(-1)
        compares = self.training and self.weights.consistency > 0 and bool(is_other.any())
        if not compares:
            quantized = model.quantizer(model.norm(model.encoder(heard)))
            return quantized, quantized.loss.new_zeros(())
        plain = batch.waveform[is_other]
        latents = model.norm(model.encoder(torch.cat([heard, plain])))
        perturbed, plain = latents[: len(heard)], latents[len(heard) :]
        quantizer = model.quantizer
        with torch.autocast(latents.device.type, enabled=False):
            first, second = plain.float(), perturbed[is_other].float()
            if isinstance(quantizer, VectorQuantizer):  # the others compare latents as they are
                first, second = quantizer.project(first), quantizer.project(second)
            else:
                first, second = first.transpose(1, 2), second.transpose(1, 2)
            consistency = inconsistency(first, second)
        return quantizer(perturbed), consistency

    @torch.no_grad()
    def _converted(self, batch: Batch) -> Tensor:
        """(B, T) the encoder's input, of which some is said in another voice."""
        model = self.model
        if not batch.target.shape[1] or model.fast is None:
            return batch.encoder_input
        rows = batch.converted.nonzero()[:, 0]
        if not len(rows):
            return batch.encoder_input
        target, own = model.speaker(batch.target[rows]), model.speaker(batch.reference[rows])
        latents = model.latents(model.encode(batch.waveform[rows]))
        encoder_input = batch.encoder_input.clone()
        encoder_input[rows] = model.fast(Condition(latents, guided(target, own))).float()
        return encoder_input

    def _log_mel(self, waveform: Tensor) -> Tensor:
        """(B, N * hop_length) -> (B, 64, N): frame n is centred on the middle of code n."""
        hop_length = self.model.config.hop_length
        with torch.autocast(waveform.device.type, enabled=False):
            shifted = F.pad(waveform, (0, hop_length))[:, hop_length // 2 :]
            frames = self.mel(shifted)[..., : waveform.shape[-1] // hop_length]
            return (frames + MultiResolutionSpectralLoss.FLOOR).log()


def with_weight(losses: dict[str, Tensor], weights: LossConfig) -> dict[str, Tensor]:
    """Return those of the losses by name that have a weight, or bring their own."""
    return {name: loss for name, loss in losses.items() if getattr(weights, name, 1.0) > 0}


def inconsistency(plain: Tensor, perturbed: Tensor) -> Tensor:
    """How far vectors (..., D) lie from those of the segment perturbed, over how far any two do.

    Only the plain ones are drawn, to what the perturbation leaves: drawn to each other, all vectors
    become alike in a few hundred steps, and say nothing. It is 0 where they are the same, and about
    1 where they have nothing to do with each other.
    """
    perturbed = perturbed.detach()
    flat = perturbed.flatten(0, -2)
    spread = (flat - flat.mean(0)).square().sum(-1).mean()
    return (plain - perturbed).square().sum(-1).mean() / (2 * spread)
