"""The networks: encoder, quantizer, speaker, decoders, and their wiring.

Shapes, everywhere: waveform (B, T) float32 at the model's sample rate, level-normalised; latents
(B, D, N); codes (B, Q, N) int64 in [0, codebook_size), where Q is the number of codebooks;
speaker vectors (B, S). N = ceil(T / hop_length).
"""

from __future__ import annotations

from typing import Literal

# A decoder has the name of its section in `ModelConfig`; some predict sample after sample. Here,
# because a command line that only checks its options imports nothing else.
DecoderName = Literal["fast", "wavenet"]
DecoderChoice = Literal["auto", DecoderName]
AUTOREGRESSIVE: tuple[DecoderName, ...] = ("wavenet",)
Melody = Literal["keep", "flat"] | float
