"""What a model is made of: the part of a recipe that is stored inside every checkpoint."""

from __future__ import annotations

import math
import operator
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

from vqcodec.models import DecoderName

Count = Annotated[int, Field(ge=0, lt=1 << 63)]
Positive = Annotated[int, Field(gt=0, lt=1 << 63)]
# Far beyond what is of use; a damaged or hostile file is refused before anything is allocated.
Width = Annotated[int, Field(gt=0, le=4096)]
Depth = Annotated[int, Field(gt=0, le=64)]
Length = Annotated[int, Field(gt=0, le=1 << 16)]  # samples, or codes
MOST_CODEBOOKS = 32  # of a code file
# Of what is computed for a new model: a damaged or hostile file shall not take the memory for it.
LARGEST_FILTERBANK, LARGEST_CODEBOOK = 1 << 22, 1 << 24
Fraction = Annotated[float, Field(ge=0, lt=1)]
Probability = Annotated[float, Field(ge=0, le=1)]
Weight = Annotated[float, Field(ge=0)]


class Section(BaseModel):
    """A part of a configuration: immutable, and unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class EncoderConfig(Section):
    """The waveform encoder (models/encoder.py).

    Attributes:
        paper: the six stride-2, kernel-4 convolutions of the paper; `strides` must then be six 2s.
        n_filters: quadrature filter pairs of the first layer (not used by `paper`).
        kernel_length: length of those filters in samples (not used by `paper`).
        strides: downsampling of each layer; their product is the hop length.
        channels: width at the first rates (`paper`: of every layer).
        code_channels: width of the stack at the code rate (not used by `paper`).
        dilations: of the residual units at every rate (not used by `paper`).
        causal: a latent sees no sample after its hop (not with `paper`).
    """

    paper: bool = False
    n_filters: Width = 128
    kernel_length: Length = 512
    strides: Annotated[tuple[Length, ...], Field(min_length=1, max_length=16)] = (32, 4)
    channels: Width = 128
    code_channels: Width = 256
    dilations: Annotated[tuple[Length, ...], Field(max_length=16)] = (1, 3, 9)
    # Left out where it is off: the fingerprint of models from before it existed stays.
    causal: bool = Field(default=False, exclude_if=operator.not_)

    @property
    def hop_length(self) -> int:
        """Samples per code."""
        return math.prod(self.strides)

    @model_validator(mode="after")
    def _paper_strides(self) -> EncoderConfig:
        if self.paper and self.strides != (2,) * 6:
            raise ValueError("paper: true needs strides: [2, 2, 2, 2, 2, 2]")
        if self.paper and self.causal:
            raise ValueError("the paper's encoder is not causal: set paper or causal, not both")
        if not self.paper and self.kernel_length < self.strides[0]:
            raise ValueError(
                f"kernel_length {self.kernel_length} is shorter than the first stride "
                f"{self.strides[0]}: samples would be skipped"
            )
        if not self.paper and self.n_filters * self.kernel_length > LARGEST_FILTERBANK:
            raise ValueError(
                f"n_filters {self.n_filters} of kernel_length {self.kernel_length} are more than "
                f"{LARGEST_FILTERBANK} values"
            )
        return self


class QuantizerConfig(Section):
    """The bottleneck (models/quantizer.py); names as in vector-quantize-pytorch.

    Attributes:
        kind: `vq` is ours; the others are vector-quantize-pytorch's.
        codebook_dim: dimension in which codes are compared (`fsq`: not used).
        num_quantizers: codebooks of `residual_vq` and of each group of `grouped_residual_vq`.
        shared_codebook: whether all of `residual_vq` are one.
        groups: groups of `grouped_residual_vq`.
        levels: levels of each dimension of `fsq`; their product is the codebook size.
        estimator: gradient through the quantizer: straight-through, NSVQ or the rotation trick.
        codebook_update: exponential moving average, or the paper's codebook loss.
    """

    kind: Literal["vq", "residual_vq", "grouped_residual_vq", "fsq"] = "vq"
    dim: Width = 64
    codebook_size: Annotated[int, Field(ge=2, le=65536)] = 512
    codebook_dim: Width = 16
    num_quantizers: Depth = 1
    # Left out where it is off: the fingerprint of models from before it existed stays.
    shared_codebook: bool = Field(default=False, exclude_if=operator.not_)
    groups: Depth = 1
    levels: Annotated[tuple[Width, ...], Field(max_length=16)] = (8, 8, 8)
    estimator: Literal["ste", "nsvq", "rotation"] = "ste"
    codebook_update: Literal["ema", "loss"] = "ema"
    decay: Fraction = 0.98
    commitment_weight: Annotated[float, Field(ge=0)] = 0.25
    use_cosine_sim: bool = True
    threshold_ema_dead_code: Fraction = 0.05

    @model_validator(mode="after")
    def _known_to_its_kind(self) -> QuantizerConfig:
        if self.kind == "fsq" and math.prod(self.levels) != self.codebook_size:
            raise ValueError(
                f"levels {list(self.levels)} make {math.prod(self.levels)} codes, "
                f"codebook_size says {self.codebook_size}"
            )
        if self.kind != "residual_vq" and self.shared_codebook:
            raise ValueError(f"kind {self.kind} has no shared_codebook; kind residual_vq has")
        if self.kind != "vq" and self.estimator == "nsvq":
            raise ValueError(f"kind {self.kind} has no estimator nsvq; kind vq has")
        if self.kind != "vq" and self.codebook_update == "loss":
            raise ValueError(f"kind {self.kind} has no codebook_update loss; kind vq has")
        if self.kind != "fsq" and self.codebook_size * self.codebook_dim > LARGEST_CODEBOOK:
            raise ValueError(
                f"codebook_size {self.codebook_size} of width {self.codebook_dim} is more than "
                f"{LARGEST_CODEBOOK} values"
            )
        if self.n_codebooks > MOST_CODEBOOKS:
            raise ValueError(
                f"num_quantizers and groups make {self.n_codebooks} codebooks; code files have "
                f"{MOST_CODEBOOKS} at most"
            )
        return self

    @property
    def has_margins(self) -> bool:
        """Whether the quantizer can tell how sure it is of its codes."""
        return self.kind == "vq"

    @property
    def n_codebooks(self) -> int:
        """Code sequences per recording."""
        return {
            "residual_vq": self.num_quantizers,
            "grouped_residual_vq": self.num_quantizers * self.groups,
        }.get(self.kind, 1)


class SpeakerConfig(Section):
    """Who speaks (models/speaker.py): a learned table, or an encoder of a reference clip."""

    kind: Literal["encoder", "table"] = "encoder"
    dim: Literal[64] = 64
    channels: Width = 128


class IstftDecoderConfig(Section):
    """The fast decoder (models/istft.py).

    Attributes:
        channels: width of every block.
        n_layers: ConvNeXt blocks.
        expansion: of their perceptrons over `channels`.
        kernel_size: of their convolutions, odd.
        n_fft: of the inverse STFT, in samples.
        upsample: frames per code; long hops need several, or `n_fft` grows beyond what speech
            stands still for.
        causal: convolutions see no later code; half a window of look-ahead remains.
    """

    channels: Width = 384
    n_layers: Depth = 8
    expansion: Depth = 2
    kernel_size: Depth = 7
    n_fft: Length = 512
    upsample: Depth = 1
    causal: bool = False

    @model_validator(mode="after")
    def _odd_kernel(self) -> IstftDecoderConfig:
        if self.kernel_size % 2 == 0:
            raise ValueError(f"kernel_size {self.kernel_size} must be odd")
        return self


class WaveNetConfig(Section):
    """The autoregressive decoder (models/wavenet.py).

    Attributes:
        n_stacks: of the dilations.
        layers_per_stack: whose dilations are 1, 2, 4 and so on.
        residual_channels: width of what passes from layer to layer.
        skip_channels: width of what the layers add to the output.
        condition_channels: width of what each layer is told of codes and speaker.
        hidden_channels: width between the skips and the logits, of every band.
        pre_emphasis: coefficient of the filter that samples pass before they are modelled.
        n_bands: sub-bands (models/filterbank.py), of which a step makes a sample each.
        hears_fast: whether it is told what the fast decoder knows of the codes.
        prediction_order: steps from which a filter, another for each code, predicts the next, so
            that the layers need only learn what it leaves; 0 for none.
        coarse_steps: of the fast decoder's waveform, about its own, that a step hears; 0 for none.
    """

    n_stacks: Depth = 2
    layers_per_stack: Annotated[int, Field(gt=0, le=16)] = 10
    residual_channels: Width = 64
    skip_channels: Width = 64
    condition_channels: Width = 32
    hidden_channels: Width = 256
    pre_emphasis: Fraction = 0.86
    n_bands: Literal[1, 4] = 1
    hears_fast: bool = False
    prediction_order: Annotated[int, Field(ge=0, le=64)] = 0
    coarse_steps: Annotated[int, Field(ge=0, le=31)] = 0

    @property
    def temperatures(self) -> tuple[float, ...]:
        """Of the draws of each band, the lowest first; see docs/decisions.md."""
        return (0.1, 0.1, 0.3, 0.5)[: self.n_bands] if self.coarse_steps else (1.0,) * self.n_bands

    @model_validator(mode="before")
    @classmethod
    def _read_former(cls, values: Any) -> Any:
        """Drop what earlier files say that a WaveNet does not have, and none has now."""
        if not isinstance(values, dict):
            return values
        absent = [name for name in ("pitch_taps", "n_harmonics") if values.get(name) == 0]
        return {name: value for name, value in values.items() if name not in absent}

    def coarse_channels(self, hop_length: int) -> int:
        """Values of the coarse waveform that it is told with each code."""
        if not self.coarse_steps:
            return 0
        return hop_length + (self.coarse_steps - 1) * self.n_bands

    @property
    def beside(self) -> tuple[int, int]:
        """Coarse steps before, and after its own, that a step hears."""
        before = self.coarse_steps // 2
        return before, max(self.coarse_steps - 1, 0) - before

    @property
    def dilations(self) -> list[int]:
        """Of every layer, in steps."""
        return [2**index for index in range(self.layers_per_stack)] * self.n_stacks


class PitchConfig(Section):
    """The stream of voicing and pitch (models/pitch.py).

    Attributes:
        codes_per_symbol: of the quantised contour.
        alphabet_size: symbols, unvoiced included.
        step_cents: from a symbol to the next; the speaker's mean is the middle one.
    """

    codes_per_symbol: Annotated[int, Field(gt=0, le=255)] = 4
    alphabet_size: Annotated[int, Field(ge=4, le=4096)] = 64
    step_cents: Annotated[int, Field(gt=0, le=1200)] = 50


class ModelConfig(Section):
    """Everything needed to build a model.

    Attributes:
        fast, wavenet: the decoders; one of them may be null.
        pitch: a stream that the decoders are told beside the codes (models/streams.py).
    """

    sample_rate: Annotated[int, Field(gt=0, le=384_000)] = 16000
    encoder: EncoderConfig = EncoderConfig()
    quantizer: QuantizerConfig = QuantizerConfig()
    speaker: SpeakerConfig = SpeakerConfig()
    fast: IstftDecoderConfig | None = IstftDecoderConfig()
    wavenet: WaveNetConfig | None = WaveNetConfig()
    # Left out where there is none: the fingerprint of models from before it existed stays.
    pitch: PitchConfig | None = Field(default=None, exclude_if=operator.not_)

    @property
    def hop_length(self) -> int:
        """Samples per code."""
        return self.encoder.hop_length

    @property
    def decoders(self) -> tuple[DecoderName, ...]:
        """Those that it has."""
        names: tuple[DecoderName, ...] = get_args(DecoderName)
        return tuple(name for name in names if getattr(self, name) is not None)

    @model_validator(mode="after")
    def _decoders_fit(self) -> ModelConfig:
        if not self.decoders:
            raise ValueError("a model needs a decoder: fast, wavenet or both")
        if self.fast is not None:
            self._fits_hop(self.fast)
        if self.wavenet is not None:
            self._wavenet_fits(self.wavenet)
        if self.pitch is not None and self.sample_rate != 16_000:
            raise ValueError(
                f"pitch is tracked at a sample_rate of 16000, not {self.sample_rate}: leave it out"
            )
        return self

    def _wavenet_fits(self, wavenet: WaveNetConfig) -> None:
        if wavenet.hears_fast and self.fast is None:
            raise ValueError(
                "wavenet.hears_fast needs the fast decoder: give it, or leave that out"
            )
        if wavenet.coarse_steps and not wavenet.hears_fast:
            raise ValueError(
                "wavenet.coarse_steps need wavenet.hears_fast: give it, or leave them out"
            )
        if wavenet.coarse_steps * wavenet.n_bands > self.hop_length:
            raise ValueError(
                f"wavenet.coarse_steps {wavenet.coarse_steps} are more than the steps of a hop, "
                f"{self.hop_length // wavenet.n_bands}: take fewer"
            )
        if self.hop_length % wavenet.n_bands:
            raise ValueError(
                f"wavenet.n_bands {wavenet.n_bands} must divide the hop length {self.hop_length}"
            )

    def _fits_hop(self, fast: IstftDecoderConfig) -> None:
        if self.hop_length % fast.upsample:
            raise ValueError(
                f"fast.upsample {fast.upsample} must divide the hop length {self.hop_length}"
            )
        frame_hop = self.hop_length // fast.upsample
        if fast.n_fft < 2 * frame_hop:
            raise ValueError(
                f"fast.n_fft {fast.n_fft} must be at least twice the hop length {frame_hop} of its "
                "frames, or the windows leave holes; raise it or fast.upsample"
            )
        if (fast.n_fft - frame_hop) % 2:
            raise ValueError(f"fast.n_fft {fast.n_fft} minus hop {frame_hop} must be even")


class PriorConfig(Section):
    """What the transformer of a prior is made of (models/code_transformer.py).

    Attributes:
        channels: width between the layers.
        n_layers: each an attention and a feed-forward network of four times the width.
        n_heads: of the attention.
        context: codes that a layer attends to, the newest included; several layers see further.
        dropout: of the embeddings and of every layer's two branches, in training.
    """

    channels: Width = 256
    n_layers: Depth = 4
    n_heads: Width = 4
    context: Annotated[Length, Field(ge=2)] = 320
    dropout: Fraction = 0.1

    @model_validator(mode="after")
    def _even_heads(self) -> PriorConfig:
        if self.channels % (2 * self.n_heads):
            raise ValueError(
                f"channels {self.channels} must be a multiple of twice n_heads {self.n_heads}: "
                "rotary positions turn pairs of channels"
            )
        return self
