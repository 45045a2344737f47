"""The weights of the losses: a part of recipes that searches at inference have, too."""

from __future__ import annotations

from vqcodec.models.config import Section, Weight

LONGEST_WINDOW = 2048  # samples
PERIODICITY_SECONDS = 0.064
STOI_SECONDS = 0.4


class LossConfig(Section):
    """Weights of the losses; see `SpectralLoss`, `Quantized` and models/wavenet.py.

    Attributes:
        stoi: of `IntelligibilityLoss`, for segments of 0.4 s or more.
        periodicity: of `PeriodicityLoss`, for segments of 64 ms or more.
        latent_mel: of predicting the log-mel straight from the quantised latents: it tells the
            encoder what matters before the decoder can.
        phones: of predicting from each code the phone that is said, for data prepared with labels
            (as supervised tokenizers do: Du et al. 2024, CosyVoice, arXiv 2407.05407, section 2.1).
        wavenet: of the WaveNet's cross-entropy.
        prediction: of the error of the WaveNet's filter, beside its cross-entropy.
        consistency: of the distance of the codes of a segment from those of the same segment
            perturbed, which draws them to what the perturbation leaves. Validation does not see
            what it improves: the newest model is kept.
        conversion_pitch: of `PitchLoss` of conversions between the segments of a batch, for models
            that are told the pitch.
        conversion_timbre: of how their timbre leaves what the initial model made of them.
        latents, voice: at stage `encoder`, of how far the encoders leave what those of the initial
            model made of the clean segment.
        bits: at that stage, of what a code takes by the entropy coder.
    """

    mel: Weight = 1.0
    log_stft: Weight = 0.5
    convergence: Weight = 0.5
    stoi: Weight = 0.0
    periodicity: Weight = 0.0
    latent_mel: Weight = 0.5
    phones: Weight = 0.0
    wavenet: Weight = 1.0
    prediction: Weight = 0.0
    consistency: Weight = 0.0
    conversion_pitch: Weight = 0.0
    conversion_timbre: Weight = 0.0
    latents: Weight = 1.5
    voice: Weight = 1.0
    bits: Weight = 0.006

    @property
    def hears_conversions(self) -> bool:
        """Whether any of the weights is one of conversions."""
        return self.conversion_pitch + self.conversion_timbre > 0
