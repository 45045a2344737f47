"""What the server does with the files that it is sent: as the command line, without its folders."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import IO, Any, BinaryIO, Literal, NamedTuple, TypeVar, cast

from vqcodec.audio.recording import Recording, spool
from vqcodec.audio.writing import AUDIBLE_CLIPPING
from vqcodec.codec import Codec, load
from vqcodec.errors import RecordingWarning, SpeakerError, VqcodecError
from vqcodec.format.codes import Codes
from vqcodec.format.header import MAGIC
from vqcodec.inference.units import NOBODY, Units, text_line
from vqcodec.models.interfaces import DecodeOptions
from vqcodec.weights.registry import maker
from vqcodec.weights.voices import Speaker

KEPT_BYTES = 1 << 20
"""Of a result in memory; a larger one goes to a temporary file."""

Made = TypeVar("Made")


class TooLongError(VqcodecError):
    """A recording, or what codes hold, lasts longer than the server allows."""


def check_seconds(name: str, seconds: float, most: float) -> None:
    """Raise a TooLongError about what lasts longer."""
    if seconds > most:
        raise TooLongError(f"{name}: lasts {seconds:.0f} s, and {most:g} s are taken; cut it")


class Upload(NamedTuple):
    """A file that was sent, at its start, and what errors call it."""

    name: str
    file: BinaryIO


class Service:
    """A codec for others' files. One call at a time: each takes all cores.

    Args:
        model: as in `vqcodec.load`; code files of other packaged models are decoded by these when
            it is None.
        voices: as in `vqcodec.load`.
        device: as in `vqcodec.load`.
        max_seconds: that a recording may last.

    Raises:
        CheckpointError, SpeakerError, VqcodecError: as `vqcodec.load`.
    """

    def __init__(
        self,
        model: str | None = None,
        *,
        voices: str | os.PathLike[str] | Literal[False] | None = None,
        device: str = "auto",
        max_seconds: float = 600.0,
    ) -> None:
        self.model, self.max_seconds = model, max_seconds
        self._load = cache(lambda name: load(name, voices=voices, device=device))
        self.codec: Codec = self._load(model)

    def encode(self, recording: Upload, speaker: str | None = None) -> IO[bytes]:
        """A code file of a recording, which names the voice if one is given.

        Raises VqcodecError if the recording cannot be read or is too long, or the voice is unknown.
        """
        voice = None if speaker is None else _voice(self.codec, speaker)
        codes = self.codec.encode(self._heard(recording), speaker=voice)
        return _filled(lambda file: file.write(codes.to_bytes()))

    def decode(
        self,
        codes: Upload,
        speaker: str | None = None,
        reference: Upload | None = None,
        **options: Any,
    ) -> IO[bytes]:
        """A WAV of a code file, in another voice if one is given, by name or by a recording.

        The options are those of `DecodeOptions`. Raises VqcodecError if the codes cannot be read,
        are of another model or last too long, or the voice or an option is impossible.
        """
        read = self._codes(codes)
        codec = self._load(self.model or maker(read.fingerprint))
        codec.check(read)
        return self._sound(codec, read, self._chosen(codec, speaker, reference), options)

    def convert(
        self,
        recording: Upload,
        speaker: str | None = None,
        reference: Upload | None = None,
        **options: Any,
    ) -> IO[bytes]:
        """A WAV of a recording in another voice; arguments and errors as of `decode`."""
        voice = self._chosen(self.codec, speaker, reference)
        if voice is None:
            raise SpeakerError("no voice: give speaker, a name, or reference, a recording of one")
        self.codec.check_options(DecodeOptions(**options), voice)
        own = None if self.codec.hears_speakers else voice
        codes = self.codec.encode(self._heard(recording), speaker=own)
        return self._sound(self.codec, codes, voice, options)

    def units(self, file: Upload, *, dedup: bool = False) -> IO[bytes]:
        """A line of units of a recording or a code file, as `units.text_line` writes it.

        Raises VqcodecError if the file cannot be read, lasts too long, or has several codebooks.
        """
        beginning = file.file.read(len(MAGIC))
        file.file.seek(0)
        if beginning == MAGIC:
            codes = self._codes(file)
            if self.model is not None:
                self.codec.check(codes)
        else:
            codes = self.codec.encode(self._heard(file), speaker=NOBODY)
        line = text_line(Path(file.name).stem, Units.of(codes, collapse=dedup))
        return _filled(lambda target: target.write(line.encode(errors="surrogateescape")))

    def _heard(self, upload: Upload) -> Recording:
        recording = spool(upload.file, upload.name)
        check_seconds(upload.name, recording.duration_s, self.max_seconds)
        return recording

    def _codes(self, upload: Upload) -> Codes:
        tables = None if self.model is None else self.codec.tables
        codes = Codes.from_bytes(upload.file.read(), upload.name, tables=tables)
        check_seconds(upload.name, codes.duration_s, self.max_seconds)
        return codes

    def _chosen(self, codec: Codec, name: str | None, reference: Upload | None) -> Speaker | None:
        if name is not None and reference is not None:
            raise SpeakerError(f"{name}: a speaker and a reference; give one of them")
        if reference is not None:
            return codec.speaker(self._heard(reference))
        return None if name is None else _voice(codec, name)

    def _sound(
        self, codec: Codec, codes: Codes, voice: Speaker | None, options: dict[str, Any]
    ) -> IO[bytes]:
        def write(file: BinaryIO) -> None:
            clipped = codec.decode_to(file, codes, speaker=voice, **options)
            if clipped > AUDIBLE_CLIPPING:
                told = f"{clipped:.1%} of the samples are too loud and were clipped"
                warnings.warn(told, RecordingWarning, stacklevel=1)

        return _filled(write)


def told(work: Callable[[], Made]) -> tuple[Made, list[str]]:
    """Do some work, and say what it warned of in recordings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", RecordingWarning)
        made = work()
    return made, [str(one.message) for one in caught if issubclass(one.category, RecordingWarning)]


def _voice(codec: Codec, name: str) -> Speaker:
    """A voice by its name alone: a path of the server's is none."""
    if name not in codec.voices:
        raise codec.unknown_voice(name)
    return codec.voices[name]


def _filled(write: Callable[[BinaryIO], object]) -> IO[bytes]:
    """A temporary file with what is written to it, at its start."""
    file = SpooledTemporaryFile(KEPT_BYTES)  # noqa: SIM115
    try:
        write(cast(BinaryIO, file))
    except BaseException:
        file.close()
        raise
    file.seek(0)
    return cast(IO[bytes], file)
