"""Disguises for the encoder's input: who speaks is changed, what is said and its timing are not.

When the encoder hears a stranger but the decoder must answer in the true voice, the codes learn
to leave the voice out (as the information perturbation of Choi et al. 2021, NANSY,
arXiv 2110.14513).
"""

from __future__ import annotations

import librosa
import numpy as np

N_FFT, HOP_LENGTH = 1024, 256
# Cepstral coefficients below this quefrency draw the vocal tract, those above the pitch.
LIFTER_MS = 2.0


def disguise(
    waveform: np.ndarray, sample_rate: int, *, semitones: float, formant_ratio: float
) -> np.ndarray:
    """Shift the pitch and stretch the spectral envelope, each by its own amount.

    Args:
        waveform: (T,) float32.
        sample_rate: in Hz.
        semitones: of pitch, positive is higher.
        formant_ratio: of formant frequencies; 1 keeps them.

    Returns:
        (T,) float32 at the RMS of the input.
    """
    padded = np.pad(waveform, (0, max(N_FFT - len(waveform), 0)))
    # The phase vocoder moves pitch and formants together ...
    shifted = librosa.effects.pitch_shift(
        padded, sr=sample_rate, n_steps=semitones, n_fft=N_FFT, hop_length=HOP_LENGTH
    )
    spectrum = librosa.stft(shifted, n_fft=N_FFT, hop_length=HOP_LENGTH)
    envelope = _log_envelope(np.abs(spectrum), sample_rate)
    # ... so the envelope is read where the wanted formants stood after that.
    bins = np.arange(len(envelope)) * 2 ** (semitones / 12) / formant_ratio
    low = np.minimum(bins.astype(int), len(envelope) - 1)
    high = np.minimum(low + 1, len(envelope) - 1)
    part = (bins - np.floor(bins))[:, None]
    wanted = (1 - part) * envelope[low] + part * envelope[high]
    changed = librosa.istft(
        spectrum * np.exp(wanted - envelope),
        n_fft=N_FFT,
        hop_length=HOP_LENGTH,
        length=len(padded),
    )[: len(waveform)]
    level = np.sqrt(np.mean(np.square(waveform)) / max(np.mean(np.square(changed)), 1e-12))
    return (changed * level).astype(np.float32)


def _log_envelope(magnitude: np.ndarray, sample_rate: int) -> np.ndarray:
    """(bins, frames) -> smooth natural-log envelope of the same shape, by cepstral liftering."""
    cepstrum = np.fft.irfft(np.log(magnitude + 1e-4), axis=0)
    keep = round(LIFTER_MS * 1e-3 * sample_rate)
    cepstrum[keep : len(cepstrum) - keep + 1] = 0.0
    return np.fft.rfft(cepstrum, axis=0).real
