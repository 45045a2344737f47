"""What the parts of a model are to each other: the closed set of ideas that the other files fill.

Letters in shapes: B batch, T samples, N codes, Q codebooks, D channels of the latents, S channels
of a speaker vector, C any channels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypedDict

from vqcodec.errors import VqcodecError
from vqcodec.models import DecoderName

if TYPE_CHECKING:
    from torch import Tensor


class Quantized(NamedTuple):
    """What a quantizer makes of latents.

    Attributes:
        quantized: (B, D, N) latents, with a gradient for the encoder.
        indices: (B, Q, N) int64 in [0, codebook_size).
        loss: scalar, already weighted: commitment and, where it exists, codebook loss.
    """

    quantized: Tensor
    indices: Tensor
    loss: Tensor


class Margins(NamedTuple):
    """How sure a quantizer is of its codes.

    Attributes:
        indices: (B, Q, N) int64.
        margins: (B, N) half the difference of the squared distances to the nearest codebook vector
            and to the second nearest; infinite where a quantizer cannot tell.
        distances: (B, N) squared, to the nearest; (B, 0) where a quantizer cannot tell.
    """

    indices: Tensor
    margins: Tensor
    distances: Tensor


class Quantizer(Protocol):
    """The bottleneck (models/quantizer.py): latents to codes and back."""

    def __call__(self, latents: Tensor) -> Quantized:
        """(B, D, N) -> what it makes of them; in training it may learn from them."""

    def margins(self, latents: Tensor) -> Margins:
        """(B, D, N) -> codes and how sure they are."""

    def decode(self, indices: Tensor) -> Tensor:
        """(B, Q, N) int64 -> latents (B, D, N)."""


class Condition(NamedTuple):
    """All that a decoder is told.

    Attributes:
        latents: (B, D, N) of the codes.
        speaker: (B, S) who shall say it.
        streams: further features at the rate of the codes, (B, C, N) each, by the names in
            models/streams.py. What a decoder knows and is not told, it takes for zeros.
    """

    latents: Tensor
    speaker: Tensor
    streams: Mapping[str, Tensor] = MappingProxyType({})


class Decoder(Protocol):
    """A decoder that makes a waveform in one pass (models/istft.py).

    The WaveNet (models/wavenet.py) is told the same, but predicts sample after sample and so has
    its own samplers (inference/wavenet/).
    """

    def __call__(self, condition: Condition) -> Tensor:
        """A condition of N codes -> waveform (B, N * hop_length), normalised level."""

    @property
    def context(self) -> tuple[int, int]:
        """Codes before, and codes after its own, that the samples of a code's hop depend on."""


class SynthesisKeywords(TypedDict, total=False):
    """The fields of `DecodeOptions` but the sample rate, as keyword arguments."""

    decoder: DecoderName | None
    seed: int
    temperature: float


class DecodeKeywords(SynthesisKeywords, total=False):
    """The fields of `DecodeOptions`, as keyword arguments."""

    sample_rate: int | None


@dataclass(frozen=True, kw_only=True)
class DecodeOptions:
    """How codes shall become sound.

    Args:
        decoder: by name; the best that the model has when None.
        seed: of the WaveNet's draws, 0 or more; the same seed gives the same audio.
        temperature: of the WaveNet's draws, 0 or more; lower is cleaner and duller.
        sample_rate: of the result in Hz; the recording's own when None.

    Raises:
        VqcodecError: the seed or the temperature is impossible.
    """

    decoder: DecoderName | None = None
    seed: int = 0
    temperature: float = 1.0
    sample_rate: int | None = None

    def __post_init__(self) -> None:
        if self.seed < 0 or not 0 <= self.temperature < math.inf:
            raise VqcodecError(
                f"seed {self.seed}, temperature {self.temperature}: the seed must be 0 or more, "
                "and the temperature 0 or more and finite"
            )
