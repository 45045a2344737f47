"""A recording whose phase is that of a coarse waveform: what a WaveNet that hears one is to say.

Decoders are taught magnitudes, and so their phase is one of their own. A recording as it was would
leave a WaveNet to guess how the two differ; with the phase of what it hears, it need only mend.
"""

from __future__ import annotations

import torch
from torch import Tensor

N_FFT, FRAME_HOP = 512, 128


@torch.no_grad()
def with_phase_of(coarse: Tensor, waveform: Tensor) -> Tensor:
    """Give a waveform (B, T) the phase of a coarse one (B, T), T over 256; returns (B, T).

    It is one projection as of Griffin and Lim 1984, "Signal estimation from modified short-time
    Fourier transform", IEEE Trans. ASSP 32(2).
    """
    window = torch.hann_window(N_FFT, device=waveform.device)
    with torch.autocast(waveform.device.type, enabled=False):
        own, other = (
            torch.stft(sound.float(), N_FFT, FRAME_HOP, window=window, return_complex=True)
            for sound in (waveform, coarse)
        )
        spectrum = torch.polar(own.abs(), other.angle())
        return torch.istft(spectrum, N_FFT, FRAME_HOP, window=window, length=waveform.shape[-1])
