"""How a decoder gets streams: convolutions that start at zero.

So a trained decoder can be given one and loses nothing (as in ControlNet, Zhang et al. 2023, arXiv
2302.05543, section 3.1); and what it is not told, it takes for zeros, which add nothing.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vqcodec.models.receptive_field import STREAM_KERNEL_SIZE, stream_reach


class StreamInputs(nn.Module):
    """Adds streams, by their names and channels, to what a decoder knows."""

    def __init__(
        self, stream_channels: Mapping[str, int], channels: int, upsample: int = 1
    ) -> None:
        super().__init__()
        self.upsample = upsample
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
        """Input (B, C, N * upsample) and the streams that are known, (B, C', N) -> as the input."""
        for name, convolution in self.convolutions.items():
            if name in streams:
                told = convolved(convolution, streams[name]).transpose(1, 2)  # type: ignore[arg-type]
                x = x + (told.repeat_interleave(self.upsample, -1) if self.upsample > 1 else told)
        return x


def convolved(convolution: nn.Conv1d, x: Tensor) -> Tensor:
    """(B, C, N) -> (B, N', C'), one matrix product over the taps of every output.

    Its sums are the same bits for any N, which those of a library's convolution need not be.
    """
    padding, kernel_size = int(convolution.padding[0]), convolution.kernel_size[0]
    padded = F.pad(x, (padding, padding)).transpose(1, 2)
    n_outputs = padded.shape[1] - kernel_size + 1
    taps = torch.cat([padded[:, k : k + n_outputs] for k in range(kernel_size)], dim=-1)
    return F.linear(taps, convolution.weight.transpose(1, 2).flatten(1), convolution.bias)
