"""Sound files: libsndfile decodes and encodes them, PyAV decodes others; pitfalls fenced off."""

from __future__ import annotations

import contextlib
import io
import os
import re
import shutil
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import soundfile

from vqcodec.audio import damage, mediafiles
from vqcodec.errors import AudioError
from vqcodec.files import replacing

AudioTarget = str | os.PathLike[str] | BinaryIO

CHUNK_LENGTH = 16384

_MIN_RATE, _MAX_RATE = 1000, 768_000
_MAX_CHANNELS = 64
_UNKNOWN_LENGTH = 2**63 - 1  # libsndfile's SF_COUNT_MAX
_MAX_TRAILER_BYTES = 8192
# Of an MP3: the padding of its encoder, which a length tag leaves out.
_MAX_TRAILER_FRAMES = 2
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

READABLE_SUFFIXES = (*_ENCODINGS, ".aiff", ".aif", *mediafiles.SUFFIXES)
"""Of the recordings in a folder; what a file is read as is told by its content."""

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


class _SequentialFile(soundfile.SoundFile):
    """A sound file that is only read onwards.

    soundfile seeks after each read of a seekable file, and MP3 and FLAC decoders then go astray.
    """

    def seekable(self) -> bool:
        return False


def name_of(file: object) -> str:
    """Name a path or file object for error messages."""
    return str(file if isinstance(file, str | os.PathLike) else getattr(file, "name", "stream"))


def checked_rate(name: str, sample_rate: int) -> int:
    """Return a possible sample rate; raise AudioError about ``name`` for any other."""
    if not _MIN_RATE <= sample_rate <= _MAX_RATE or sample_rate != int(sample_rate):
        raise AudioError(
            f"{name}: a sample rate of {sample_rate} Hz is impossible; "
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
    """Decode a file from its start.

    Yields:
        Float32 samples of shape (T, channels), T free.

    Raises:
        AudioError: The file, called ``name``, cannot be opened, is damaged, or goes on after the
            end that its header gives.
    """
    with _open(path, name) as file:
        if isinstance(file, mediafiles.Sound):
            yield from file.blocks
        else:
            yield from _decode(file, path, name)


def _decode(file: _SequentialFile, path: Path, name: str) -> Iterator[np.ndarray]:
    position = 0
    digest = damage.FlacDigest(path) if file.format == "FLAC" else None
    try:
        while True:
            # libsndfile would decode beyond the end of an MP3, throw the rest away, and hide from
            # `_hides_audio` that there was any.
            size = CHUNK_LENGTH
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
            f"({_reason(error)}); {damage.keep_the_rest()}"
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


def _hides_audio(file: _SequentialFile) -> bool:
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
def listen(stream: BinaryIO, head: bytes, name: str) -> Iterator[_SequentialFile]:
    """Read a WAV from a pipe while it is being written.

    An interrupt, which ends whoever records as well, ends the recording; a second one the process.

    Args:
        stream: The pipe, unbuffered: what comes is passed on at once.
        head: What has already been read of it.
        name: What to call it in an error message.

    Raises:
        AudioError: It is no WAV that can be read.
    """
    reader, writer = os.pipe()
    sink = os.fdopen(writer, "wb", buffering=0)

    def forward() -> None:
        # libsndfile reads from descriptors, and `head` cannot be put back into that of `stream`.
        # What an interrupt has closed raises ValueError.
        with contextlib.suppress(BrokenPipeError, ValueError), sink:
            sink.write(head)
            while data := stream.read(1 << 16):
                sink.write(data)

    threading.Thread(target=forward, daemon=True).start()
    with (
        os.fdopen(reader, "rb") as source,
        _on_interrupt(sink.close),
        _decoder(source, name) as file,
    ):
        yield file


@contextmanager
def _on_interrupt(end: Callable[[], None]) -> Iterator[None]:
    """Call `end`, and at a second interrupt end the process.

    On another thread: while libsndfile waits for a pipe, this one hears of none.
    """
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        yield
        return
    awake, waker = os.pipe()
    os.set_blocking(waker, False)

    def watch() -> None:
        with os.fdopen(awake, "rb", buffering=0) as numbers:
            if numbers.read(1):
                end()
            if numbers.read(1):
                os._exit(128 + signal.SIGINT)

    threading.Thread(target=watch, daemon=True).start()
    handler = signal.signal(signal.SIGINT, lambda *_: None)
    before = signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        signal.signal(signal.SIGINT, handler)
        os.close(waker)


@contextmanager
def _open(path: Path, name: str) -> Iterator[_SequentialFile | mediafiles.Sound]:
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
        file = stack.enter_context(_decoder(stream, name))
        if not file.frames and file.format in ("WAV", "WAVEX"):
            finished = stack.enter_context(damage.FinishedFile(path))
            file = stack.enter_context(_SequentialFile(finished))
        if file.format in ("MP3", "FLAC"):
            end = damage.end_of_sound(path)
            if end < os.fstat(stream.fileno()).st_size:
                untagged = stack.enter_context(damage.UntaggedFile(path, end))
                file = stack.enter_context(_decoder(untagged, name))
        yield file


@contextmanager
def _decoder(stream: BinaryIO | damage.UntaggedFile, name: str) -> Iterator[_SequentialFile]:
    is_view = isinstance(stream, damage.UntaggedFile)
    try:
        file = _SequentialFile(stream if is_view else stream.fileno(), closefd=False)
    except soundfile.LibsndfileError as error:
        raise AudioError(
            f"{name}: is not audio that can be read ({_reason(error)}); "
            "convert it to WAV, for example with ffmpeg"
        ) from error
    with file:
        yield file


@contextmanager
def create(
    target: AudioTarget, *, sample_rate: int, n_samples: int
) -> Iterator[soundfile.SoundFile]:
    """Write a 16-bit mono file as `open_writer` does, at its own rate.

    Args:
        target: Path whose extension tells the format, or a binary file object for a WAV.
        sample_rate: Rate of the file in Hz.
        n_samples: How many samples will be written.

    Yields:
        The file to write to, a little at a time: libsndfile's Vorbis encoder overflows its stack
        when given minutes of audio at once.

    Raises:
        AudioError: The extension is unknown, the format cannot hold the rate, or the file cannot
            be written.
    """
    name = name_of(target)
    suffix = checked_suffix(target) if isinstance(target, str | os.PathLike) else ".wav"
    sample_rate = checked_rate(name, sample_rate)
    format, subtype = _encoding(name, suffix, sample_rate, n_samples)
    with _replacing(target, suffix) as temporary:
        try:
            file = soundfile.SoundFile(str(temporary), "w", sample_rate, 1, subtype, format=format)
        except soundfile.LibsndfileError as error:
            raise AudioError(
                f"{name}: cannot be written ({_reason(error)}); write a .wav"
            ) from error
        try:
            with file:
                yield file
        except soundfile.LibsndfileError as error:
            raise AudioError(
                f"{name}: cannot be written ({_reason(error)}); free space on its disk"
            ) from error


def checked_suffix(path: str | os.PathLike[str]) -> str:
    """Return the suffix of a sound file to write, in small letters.

    Raises:
        AudioError: No format is written under it.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in _ENCODINGS:
        raise AudioError(
            f"{path}: cannot write {suffix or 'a file without extension'}; "
            f"end the name in one of {' '.join(_ENCODINGS)}"
        )
    return suffix


def nearest_rate(path: str | os.PathLike[str], sample_rate: int) -> int:
    """Return the rate in Hz nearest to ``sample_rate`` that a file of this name can have.

    Raises:
        AudioError: No format is written under its suffix.
    """
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
    if isinstance(target, str | os.PathLike):
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
        return
    with tempfile.NamedTemporaryFile(prefix="vqcodec-", suffix=suffix) as file:
        yield Path(file.name)
        with open(file.name, "rb") as finished:
            shutil.copyfileobj(finished, target)
        target.flush()


def _reason(error: soundfile.LibsndfileError) -> str:
    return " ".join(error.error_string.split()).removeprefix("Error : ").rstrip(".")
