"""The wiring: encoder, bottleneck, speaker and decoders make one VQ-VAE (arXiv 1711.00937)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from vqcodec.models import AUTOREGRESSIVE, DecoderName
from vqcodec.models.config import ModelConfig
from vqcodec.models.encoder import build_encoder
from vqcodec.models.interfaces import Quantizer
from vqcodec.models.istft import IstftDecoder
from vqcodec.models.quantizer import LatentNorm, build_quantizer
from vqcodec.models.speaker import SpeakerEncoder, SpeakerTable
from vqcodec.models.streams import Stream, build_streams
from vqcodec.models.wavenet import WaveNet

# Names of weights that follow from the configuration begin so; no file holds these.
DERIVED = ("speaker.mel.",)
# By their sections of `ModelConfig`, under which their weights are stored.
DECODERS: dict[DecoderName, Callable[..., nn.Module]] = {
    "fast": IstftDecoder,
    "wavenet": WaveNet,
}


class VQVAE(nn.Module):
    """A speech VQ-VAE. Absent decoders are None; only a speaker table has rows for `n_speakers`."""

    fast: IstftDecoder | None
    wavenet: WaveNet | None

    def __init__(self, config: ModelConfig, n_speakers: int = 0) -> None:
        super().__init__()
        self.config = config
        dim, speaker = config.quantizer.dim, config.speaker
        self.encoder = build_encoder(config.encoder, dim, config.sample_rate)
        self.norm = LatentNorm(dim)
        self.quantizer: Quantizer = build_quantizer(config.quantizer)
        self.speaker: SpeakerEncoder | SpeakerTable = (
            SpeakerEncoder(speaker.dim, speaker.channels, config.sample_rate)
            if speaker.kind == "encoder"
            else SpeakerTable(n_speakers, speaker.dim)
        )
        self.streams: dict[str, Stream] = build_streams(config)
        channels = {name: stream.channels for name, stream in self.streams.items()}
        parts = dim, speaker.dim, config.hop_length, channels
        for name, build in DECODERS.items():
            section = getattr(config, name)
            own = parts if name not in AUTOREGRESSIVE else (*parts, _feature_channels(config))
            setattr(self, name, None if section is None else build(section, *own))

    @property
    def decoders(self) -> dict[DecoderName, nn.Module]:
        """Those it has, the best first."""
        return {name: getattr(self, name) for name in self.config.decoders}

    @torch.no_grad()
    def encode(self, waveform: Tensor) -> Tensor:
        """Waveform (B, N * hop_length) at normalised level -> codes (B, Q, N) int64."""
        return self.quantizer(self.norm(self.encoder(waveform))).indices

    @torch.no_grad()
    def latents(self, codes: Tensor) -> Tensor:
        """Codes (B, Q, N) -> latents (B, D, N) float32, whatever the autocast."""
        with torch.autocast(codes.device.type, enabled=False):
            return self.quantizer.decode(codes)


def _feature_channels(config: ModelConfig) -> int:
    """Of what a WaveNet hears of the fast decoder for each code."""
    if config.wavenet is None or config.fast is None or not config.wavenet.hears_fast:
        return 0
    return config.fast.upsample * config.fast.channels
