"""What the parts of a model are to each other: the closed set of ideas that the other files fill.

Letters in shapes: B batch, T samples, N codes, Q codebooks, D channels of the latents, S channels
of a speaker vector, C any channels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Integral, Real
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypedDict

from vqcodec.errors import VqcodecError
from vqcodec.models import DecoderChoice, Melody

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
        features: (B, N, C) of `IstftDecoder.features`, for a WaveNet that listens to them.
        coarse: (B, T) what the fast decoder makes of all that, for a WaveNet that hears it.
    """

    latents: Tensor
    speaker: Tensor
    streams: Mapping[str, Tensor] = MappingProxyType({})
    features: Tensor | None = None
    coarse: Tensor | None = None


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


LARGEST_SHIFT, LARGEST_STRETCH = 24.0, 4.0


@dataclass(frozen=True)
class Graph:
    """A network, or several in a row, for engines without torch (models/graphs.py makes them).

    Attributes:
        onnx: a serialised ONNX model without weights.
        weights: names of those that it asks for, as in the model's state.
        context: `Decoder.context` of a decoder.
    """

    onnx: bytes
    weights: tuple[str, ...]
    context: tuple[int, int] | None = None


class SynthesisKeywords(TypedDict, total=False):
    """The fields of `DecodeOptions` but the sample rate, as keyword arguments."""

    decoder: DecoderChoice
    seed: int
    temperature: float
    pitch: float
    melody: Melody


class DecodeKeywords(SynthesisKeywords, total=False):
    """The fields of `DecodeOptions`, as keyword arguments."""

    sample_rate: int | None


@dataclass(frozen=True, kw_only=True)
class DecodeOptions:
    """How codes shall become sound.

    Args:
        decoder: by name; `auto` is the best that the model has.
        seed: of the WaveNet's draws, 0 or more; the same seed gives the same audio.
        temperature: of the WaveNet's draws, 0 or more, by which those of its bands are multiplied;
            lower is cleaner and duller.
        sample_rate: of the result in Hz; the recording's own when None.
        pitch: semitones from -24 to 24 by which the voice shall be higher.
        melody: `keep` the rise and fall of the voice, make it `flat`, or multiply it by a factor
            from 0 to 4.

    Raises:
        VqcodecError: one of them is impossible.
    """

    decoder: DecoderChoice = "auto"
    seed: int = 0
    temperature: float = 1.0
    sample_rate: int | None = None
    pitch: float = 0.0
    melody: Melody = "keep"

    def __post_init__(self) -> None:
        # numpy's numbers are real ones, too
        if not isinstance(self.pitch, Real) or not abs(self.pitch) <= LARGEST_SHIFT:
            raise VqcodecError(
                f"pitch {self.pitch!r}: give semitones from -{LARGEST_SHIFT:g} to {LARGEST_SHIFT:g}"
            )
        if isinstance(self.melody, str):
            possible = self.melody in ("keep", "flat")
        else:
            possible = isinstance(self.melody, Real) and 0 <= self.melody <= LARGEST_STRETCH
        if not possible:
            raise VqcodecError(
                f"melody {self.melody}: give keep, flat, or a factor from 0 to {LARGEST_STRETCH:g}"
            )
        numbers = isinstance(self.seed, Integral) and isinstance(self.temperature, Real)
        if not numbers or self.seed < 0 or not 0 <= self.temperature < math.inf:
            raise VqcodecError(
                f"seed {self.seed!r}, temperature {self.temperature!r}: the seed must be 0 or "
                "more and whole, and the temperature 0 or more and finite"
            )

    @property
    def stretch(self) -> float:
        """By what the melody is multiplied."""
        if isinstance(self.melody, str):
            return {"keep": 1.0, "flat": 0.0}[self.melody]
        return float(self.melody)

    @property
    def needs_pitch(self) -> bool:
        """Whether codes have to tell the pitch."""
        return self.pitch != 0 or self.stretch != 1


def read_melody(text: str) -> Melody:
    """A melody as people write it: keep, flat, or a factor.

    Raises:
        VqcodecError: it is neither, or an impossible factor.
    """
    names: dict[str, Melody] = {"keep": "keep", "flat": "flat"}
    try:
        melody = names[text] if text in names else float(text)
    except ValueError:
        raise VqcodecError(f"melody {text}: give keep, flat, or a factor such as 1.5") from None
    return DecodeOptions(melody=melody).melody
