"""Sound files to read: libsndfile decodes them, PyAV the others; pitfalls fenced off."""

from __future__ import annotations

import contextlib
import io
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import BinaryIO

import numpy as np
import soundfile

from vqcodec.audio import damage, mediafiles
from vqcodec.errors import AudioError

BLOCK_LENGTH = 16_384
"""Samples of each channel that are read, resampled and written at a time."""

_MIN_RATE, _MAX_RATE = 1000, 768_000
_MAX_CHANNELS = 64
_UNKNOWN_LENGTH = 2**63 - 1  # libsndfile's SF_COUNT_MAX
_MAX_TRAILER_BYTES = 8192
# Of an MP3: the padding of its encoder, which a length tag leaves out.
_MAX_TRAILER_FRAMES = 2

_HEAD_BYTES = 12
# ISO media (MP4, M4A, 3GP, QuickTime), Matroska and WebM, AMR, AAC in ADTS frames.
_MEDIA_HEAD = re.compile(
    rb"....(ftyp|moov|mdat|wide|free|skip)|\x1aE\xdf\xa3|#!AMR|\xff[\xf0\xf1\xf8\xf9]", re.DOTALL
)


@dataclass(frozen=True)
class AudioInfo:
    """What a sound file holds.

    Attributes:
        sample_rate: Samples per second of each channel, in Hz.
        channels: Number of channels.
        n_samples: Samples of each channel, as many as reading delivers.
        format: Container as libsndfile names it, such as "WAV", or else FFmpeg, such as "mov".
        subtype: Sample coding, such as "PCM_16" or "aac".
    """

    sample_rate: int
    channels: int
    n_samples: int
    format: str
    subtype: str

    @property
    def duration_s(self) -> float:
        """Duration in seconds."""
        return self.n_samples / self.sample_rate


class SequentialFile(soundfile.SoundFile):
    """A sound file that is only read onwards.

    soundfile seeks after each read of a seekable file, and MP3 and FLAC decoders then go astray.
    """

    def seekable(self) -> bool:
        """Say no, whatever the file is."""
        return False


def name_of(file: object) -> str:
    """Name a path or file object for error messages."""
    return str(file if isinstance(file, str | os.PathLike) else getattr(file, "name", "stream"))


def checked_rate(name: str, sample_rate: int) -> int:
    """Return a possible sample rate; raise AudioError about ``name`` for any other."""
    possible = isinstance(sample_rate, Real) and _MIN_RATE <= sample_rate <= _MAX_RATE
    if not possible or sample_rate != int(sample_rate):
        raise AudioError(
            f"{name}: a sample rate of {sample_rate!r} Hz is impossible; "
            f"it must be a whole number from {_MIN_RATE} to {_MAX_RATE}"
        )
    return int(sample_rate)


def check_channels(name: str, channels: int) -> None:
    """Raise AudioError about ``name`` unless it has 1 to 64 channels."""
    if not 1 <= channels <= _MAX_CHANNELS:
        raise AudioError(
            f"{name}: {channels} channels are not supported; give 1 to {_MAX_CHANNELS}, "
            "in an array as (channels, samples)"
        )


def describe(path: Path, name: str) -> AudioInfo:
    """Do what :func:`vqcodec.audio.recording.info` does, calling the file ``name`` in errors."""
    with _open(path, name) as file:
        if isinstance(file, mediafiles.Sound):
            check_channels(name, file.channels)
            rate, n_samples = checked_rate(name, file.sample_rate), sum(map(len, file.blocks))
            return AudioInfo(rate, file.channels, n_samples, file.format, file.subtype)
        sample_rate = checked_rate(name, file.samplerate)
        check_channels(name, file.channels)
        damage.check(path, name, file.format, sample_rate)
        n_samples = file.frames
        # The header of an MP3 may only estimate its length, or count frames that are not there.
        if file.format == "MP3" or n_samples == _UNKNOWN_LENGTH:
            n_samples = sum(len(frames) for frames in decode(path, name))
        return AudioInfo(sample_rate, file.channels, n_samples, file.format, file.subtype)


def decode(path: Path, name: str) -> Iterator[np.ndarray]:
    """Decode a file from its start to float32 samples (T, channels), T free.

    Raises AudioError if it, called ``name``, cannot be opened, is damaged, or goes on after the end
    that its header gives.
    """
    with _open(path, name) as file:
        if isinstance(file, mediafiles.Sound):
            yield from file.blocks
        else:
            yield from _decode(file, path, name)


def _decode(file: SequentialFile, path: Path, name: str) -> Iterator[np.ndarray]:
    position = 0
    digest = damage.FlacDigest(path) if file.format == "FLAC" else None
    try:
        while True:
            # libsndfile would decode beyond the end of an MP3, throw the rest away, and hide from
            # `_hides_audio` that there was any.
            size = BLOCK_LENGTH
            if file.format == "MP3":
                size = min(size, max(0, file.frames - position))
            frames = file.read(size, dtype="float32", always_2d=True)
            if not len(frames):
                break
            position += len(frames)
            if digest:
                digest.update(frames)
            yield frames
    except soundfile.LibsndfileError as error:
        raise AudioError(
            f"{name}: cannot be decoded beyond {position / file.samplerate:.3f} s "
            f"({reason(error)}); {damage.keep_the_rest()}"
        ) from error
    if digest and not digest.is_right():
        raise AudioError(
            f"{name}: is damaged: its samples are not those whose MD5 its header has; "
            f"{damage.keep_the_rest()}"
        )
    # libsndfile ends an MP3 without a length tag where it guesses the end to be, joined
    # streams after the first, and a FLAC after as many samples as its header says.
    if file.format in ("MP3", "OGG", "FLAC") and _hides_audio(file):
        raise AudioError(
            f"{name}: more audio follows the end that its header gives, at "
            f"{position / file.samplerate:.3f} s; convert it to WAV, for example with ffmpeg"
        )


def _hides_audio(file: SequentialFile) -> bool:
    """Whether libsndfile has left sound unread in a file whose end it has reached."""
    source = file.name
    if isinstance(source, io.FileIO):
        descriptor, position = source.fileno(), source.tell()
        size = source.seek(0, os.SEEK_END)
    else:
        descriptor, position = source, os.lseek(source, 0, os.SEEK_CUR)
        size = os.fstat(source).st_size
    if size - position > _MAX_TRAILER_BYTES:
        return True
    if file.format != "MP3" or size <= position:
        return False
    os.lseek(descriptor, position, os.SEEK_SET)
    rest = os.read(descriptor, size - position)
    # All frames of a stream begin with the same two bytes, eleven set bits first.
    sync = rest[:2]
    return sync >= b"\xff\xe0" and rest.count(sync) > _MAX_TRAILER_FRAMES


@contextmanager
def _open(path: Path, name: str) -> Iterator[SequentialFile | mediafiles.Sound]:
    """Open a file by libsndfile, or by PyAV if that can and libsndfile cannot."""
    with contextlib.ExitStack() as stack:
        try:
            stream = stack.enter_context(path.open("rb", buffering=0))
            head = stream.read(_HEAD_BYTES)
            stream.seek(0)
        except OSError as error:
            raise AudioError(
                f"{name}: cannot be opened ({error.strerror}); give the path of a sound file"
            ) from error
        if _MEDIA_HEAD.match(head) and not mediafiles.is_installed():
            raise AudioError(
                f"{name}: is read with PyAV, which is missing; pip install 'vqcodec[av]'"
            )
        if _MEDIA_HEAD.match(head):
            yield stack.enter_context(mediafiles.open_media(path, name))
            return
        file = stack.enter_context(open_sound(stream, name))
        if not file.frames and file.format in ("WAV", "WAVEX"):
            finished = stack.enter_context(damage.FinishedFile(path))
            file = stack.enter_context(SequentialFile(finished))
        if file.format in ("MP3", "FLAC"):
            end = damage.end_of_sound(path)
            if end < os.fstat(stream.fileno()).st_size:
                untagged = stack.enter_context(damage.UntaggedFile(path, end))
                file = stack.enter_context(open_sound(untagged, name))
        yield file


@contextmanager
def open_sound(stream: BinaryIO | damage.UntaggedFile, name: str) -> Iterator[SequentialFile]:
    """Open what libsndfile can read: an unbuffered file, by its descriptor, or a view of one.

    Raises AudioError if it is none of that.
    """
    is_view = isinstance(stream, damage.UntaggedFile)
    try:
        file = SequentialFile(stream if is_view else stream.fileno(), closefd=False)
    except soundfile.LibsndfileError as error:
        raise AudioError(
            f"{name}: is not audio that can be read ({reason(error)}); "
            "convert it to WAV, for example with ffmpeg"
        ) from error
    with file:
        yield file


def reason(error: soundfile.LibsndfileError) -> str:
    """Tell in a few words what libsndfile says of an error."""
    return " ".join(error.error_string.split()).removeprefix("Error : ").rstrip(".")
