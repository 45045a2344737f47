"""Sound files to write: five formats, exact lengths, and targets that change only when complete."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
import soundfile

from vqcodec.audio.resampling import ExactResampler
from vqcodec.audio.soundfiles import checked_rate, name_of, reason
from vqcodec.errors import AudioError
from vqcodec.files import replacing

AudioTarget = str | os.PathLike[str] | BinaryIO

AUDIBLE_CLIPPING = 0.001
"""Share of samples that may be clipped without a word."""

_MAX_WAV_BYTES = 2**32 - 4096
_ENCODINGS = {
    ".wav": ("WAV", "PCM_16"),
    ".flac": ("FLAC", "PCM_16"),
    ".ogg": ("OGG", "VORBIS"),
    ".opus": ("OGG", "OPUS"),
    ".mp3": ("MP3", "MPEG_LAYER_III"),
}
# In Hz, where they are few.
_RATES = {
    "OPUS": (8000, 12_000, 16_000, 24_000, 48_000),
    "MPEG_LAYER_III": (8000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000),
}


class AudioWriter:
    """Writes mono blocks to a sound file; made by :func:`open_writer`.

    Attributes:
        n_clipped: Samples so far that lay outside [-1, 1] and were clipped.
    """

    def __init__(self, name: str, file: soundfile.SoundFile, resampler: ExactResampler) -> None:
        self.n_clipped = 0
        self._name = name
        self._file = file
        self._resampler = resampler

    def write(self, block: np.ndarray) -> None:
        """Append samples (T,) at the model's rate, clipped to [-1, 1]; AudioError if not finite."""
        block = np.asarray(block, dtype=np.float32)
        if not np.isfinite(block).all():
            raise AudioError(
                f"{self._name}: the audio to write holds NaN or infinite samples; "
                "the model that made it is damaged: use another"
            )
        self._put(self._resampler.process(block))

    def _put(self, pieces: Iterable[np.ndarray]) -> None:
        for samples in pieces:
            self.n_clipped += int(np.count_nonzero(np.abs(samples) > 1))
            self._file.write(to_int16(samples))


def to_int16(samples: np.ndarray) -> np.ndarray:
    """Quantise samples with full scale at 1, clipped to [-1, 1], to little-endian int16."""
    # The inverse of reading, which divides by 32768; libsndfile would scale by 32767.
    return np.rint(samples * 32768).clip(-32768, 32767).astype("<i2")


@contextmanager
def open_writer(
    target: AudioTarget, *, model_rate: int, output_rate: int, n_samples: int
) -> Iterator[AudioWriter]:
    """Write a 16-bit mono sound file of exact length, which appears only when complete.

    The audio goes to a temporary file that takes the target's place when the ``with`` block ends;
    if the block raises, it is deleted and the target stays as it was.

    Args:
        target: Path ending in .wav, .flac, .ogg, .opus or .mp3 (a WAV over 4 GB becomes RF64), or
            a binary file object, which receives a WAV.
        model_rate: Rate of the blocks in Hz.
        output_rate: Rate of the file in Hz; if equal, samples pass untouched.
        n_samples: Samples of the file: longer audio is trimmed, shorter is followed by zeros.

    Yields:
        The writer to pass blocks to.

    Raises:
        AudioError: The extension is unknown, the format cannot hold the rate, or the file cannot
            be written.
    """
    with create(target, sample_rate=output_rate, n_samples=n_samples) as file:
        resampler = ExactResampler(model_rate, output_rate, n_samples)
        writer = AudioWriter(name_of(target), file, resampler)
        yield writer
        writer._put(resampler.finish())


@contextmanager
def create(
    target: AudioTarget, *, sample_rate: int, n_samples: int
) -> Iterator[soundfile.SoundFile]:
    """Write a 16-bit mono file as :func:`open_writer` does, at its own rate.

    It is to be written a little at a time: libsndfile's Vorbis encoder overflows its stack when
    given minutes of audio at once.
    """
    name = name_of(target)
    suffix = checked_suffix(target) if isinstance(target, str | os.PathLike) else ".wav"
    sample_rate = checked_rate(name, sample_rate)
    format, subtype = _encoding(name, suffix, sample_rate, n_samples)
    with _replacing(target, suffix) as temporary:
        remedy = "write a .wav"
        try:
            with soundfile.SoundFile(
                str(temporary), "w", sample_rate, 1, subtype, format=format
            ) as file:
                remedy = "free space on its disk"
                yield file
        except soundfile.LibsndfileError as error:
            raise AudioError(f"{name}: cannot be written ({reason(error)}); {remedy}") from error


def checked_suffix(path: str | os.PathLike[str]) -> str:
    """The suffix, in small letters, of a sound file to write; AudioError if no format has it."""
    suffix = Path(path).suffix.lower()
    if suffix not in _ENCODINGS:
        raise AudioError(
            f"{path}: cannot write {suffix or 'a file without extension'}; "
            f"end the name in one of {' '.join(_ENCODINGS)}"
        )
    return suffix


def nearest_rate(path: str | os.PathLike[str], sample_rate: int) -> int:
    """Return the rate in Hz nearest to ``sample_rate`` that a file of this name can have."""
    return _nearest_rate(checked_suffix(path), sample_rate)


def _nearest_rate(suffix: str, sample_rate: int) -> int:
    _, subtype = _ENCODINGS[suffix]
    if subtype in _RATES:
        return min(_RATES[subtype], key=lambda rate: (abs(rate - sample_rate), -rate))
    # Beyond these libsndfile crashes the process, or writes a FLAC that cannot be decoded.
    if subtype == "VORBIS":
        return min(sample_rate, 200_000)
    if suffix == ".flac" and sample_rate > 65_535:
        return min(round(sample_rate, -1), 655_350)
    return sample_rate


def _encoding(name: str, suffix: str, sample_rate: int, n_samples: int) -> tuple[str, str]:
    format, subtype = _ENCODINGS[suffix]
    if (nearest := _nearest_rate(suffix, sample_rate)) != sample_rate:
        raise AudioError(
            f"{name}: cannot hold {sample_rate} Hz; choose a sample rate of {nearest} Hz "
            "or write a .wav"
        )
    if format == "WAV" and 2 * n_samples > _MAX_WAV_BYTES:
        format = "RF64"
    return format, subtype


@contextmanager
def _replacing(target: AudioTarget, suffix: str) -> Iterator[Path]:
    """Yield the path of a temporary file that becomes, or is copied to, the target at the end."""
    if not isinstance(target, str | os.PathLike):
        with tempfile.NamedTemporaryFile(prefix="vqcodec-", suffix=suffix) as file:
            yield Path(file.name)
            with open(file.name, "rb") as finished:
                shutil.copyfileobj(finished, target)
            target.flush()
        return
    if Path(target).is_dir():
        raise AudioError(f"{target}: is a folder; name a file in it")
    if Path(target).exists() and not Path(target).is_file():
        # A named pipe or a device, which somebody reads at the other end.
        with open(target, "wb") as pipe, _replacing(pipe, suffix) as temporary:
            yield temporary
        return
    with contextlib.ExitStack() as stack:
        try:  # learn before anything is decoded whether the folder can be written
            temporary = stack.enter_context(replacing(target))
        except OSError as error:
            raise AudioError(
                f"{target}: its folder cannot be written ({error.strerror}); "
                "create it or choose another"
            ) from error
        yield temporary
