"""Streams: what a decoder is told beside the codes, at their rate.

A stream is computed from the recording and reaches a decoder by a convolution that starts at zero,
so that a trained decoder gets it without losing anything (as in ControlNet, Zhang et al. 2023,
arXiv 2302.05543, section 3.1).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor, nn

from vqcodec.errors import ConfigError
from vqcodec.models.config import ModelConfig
from vqcodec.models.receptive_field import STREAM_KERNEL_SIZE, stream_reach


class Stream(nn.Module):
    """Features of a recording.

    Attributes:
        channels: C.
    """

    channels: int

    def forward(self, waveform: Tensor) -> Tensor:
        """Waveform (B, N * hop_length) at normalised level -> features (B, C, N)."""
        raise NotImplementedError


STREAMS: dict[str, Callable[[ModelConfig], Stream]] = {}


def build_streams(config: ModelConfig) -> nn.ModuleDict:
    """The streams that `config` names.

    Raises:
        ConfigError: there is none of such a name.
    """
    if unknown := [name for name in config.streams if name not in STREAMS]:
        known = ", ".join(STREAMS) or "none"
        raise ConfigError(
            f"model.streams {', '.join(unknown)}: not among those there are ({known}); leave it out"
        )
    return nn.ModuleDict({name: STREAMS[name](config) for name in config.streams})


def stream_channels(streams: nn.ModuleDict) -> dict[str, int]:
    """Channels of each stream by its name."""
    return {name: int(stream.channels) for name, stream in streams.items()}  # type: ignore[arg-type]


class StreamInputs(nn.Module):
    """Adds streams to what a decoder knows.

    Args:
        stream_channels: of each stream by its name.
        channels: of the decoder.
    """

    def __init__(self, stream_channels: Mapping[str, int], channels: int) -> None:
        super().__init__()
        self.convolutions = nn.ModuleDict(
            {
                name: nn.Conv1d(
                    before,
                    channels,
                    STREAM_KERNEL_SIZE,
                    padding=STREAM_KERNEL_SIZE // 2,
                    bias=False,
                )
                for name, before in stream_channels.items()
            }
        )
        for convolution in self.convolutions.values():
            nn.init.zeros_(convolution.weight)  # type: ignore[arg-type]

    @property
    def reach(self) -> int:
        """Codes on each side that a code's features are mixed with."""
        return stream_reach(len(self.convolutions))

    def forward(self, x: Tensor, streams: Mapping[str, Tensor]) -> Tensor:
        """Input (B, C, N) and the streams that are known -> (B, C, N)."""
        for name, convolution in self.convolutions.items():
            if name in streams:
                x = x + convolution(streams[name])
        return x
