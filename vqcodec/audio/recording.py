"""Recordings of any rate and channel count as mono blocks, in bounded memory."""

from __future__ import annotations

import io
import os
import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from numbers import Integral
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from vqcodec.audio.level import gain_of
from vqcodec.audio.offset import regroup, without_offset
from vqcodec.audio.resampling import resample_blocks, resampled_length
from vqcodec.audio.soundfiles import (
    BLOCK_LENGTH,
    AudioInfo,
    check_channels,
    checked_rate,
    decode,
    describe,
    name_of,
)
from vqcodec.errors import AudioError

AudioSource = (
    str
    | os.PathLike[str]
    | BinaryIO
    | bytes
    | npt.ArrayLike
    | tuple[int, npt.ArrayLike]
    | Mapping[str, Any]
)

MOST_KEPT = 1 << 20  # samples: 4 MB, or a minute at 16 kHz
# Integer samples passed as floats reach thousands; nothing real is 60 dB over full scale.
_MAX_MAGNITUDE = 1000.0


class Recording:
    """A readable recording of one or more channels; made by :func:`open_recording`.

    A recording of up to `MOST_KEPT` samples is read once and kept; a longer one is read afresh by
    each method, from its start, holding a few hundred kilobytes of it.

    Attributes:
        name: What error messages call the recording.
        sample_rate: Own sample rate in Hz.
        n_samples: Samples of each channel at that rate.
    """

    def __init__(
        self,
        name: str,
        *,
        sample_rate: int,
        n_samples: int,
        read: Callable[[], Iterator[np.ndarray]],
    ) -> None:
        if n_samples == 0:
            raise AudioError(f"{name}: holds no samples; record or export it again")
        self.name = name
        self.sample_rate = sample_rate
        self.n_samples = n_samples
        self._read = read
        self._kept: list[np.ndarray] | None = None
        # What `speech` gave last, by rate and gain: a codec hears it three times.
        self._heard: tuple[tuple[int, float], list[np.ndarray]] | None = None

    @property
    def duration_s(self) -> float:
        """Duration in seconds."""
        return self.n_samples / self.sample_rate

    def blocks(self, sample_rate: int, block_length: int) -> Iterator[np.ndarray]:
        """Read the channel mean at another rate.

        Args:
            sample_rate: Rate of the blocks in Hz; the recording's own passes samples untouched.
            block_length: Samples in each block.

        Returns:
            Float32 blocks of shape (block_length,), the last one shorter if need be;
            :func:`resampled_length` samples in all, the same ones whatever ``block_length``.

        Raises:
            AudioError: The rate is impossible or, while reading, the recording is damaged, cut
                off, or holds a sample that is not finite.
        """
        sample_rate = checked_rate(self.name, sample_rate)
        return regroup(self._resampled(self._mono(), sample_rate), block_length)

    def speech(self, sample_rate: int, block_length: int, gain: float) -> Iterator[np.ndarray]:
        """Read what a model hears: :meth:`blocks` without an offset, at the recording's level.

        The gain of the recording tells what offset matters (`vqcodec.audio.offset.without_offset`).
        """
        return regroup(self._centred(checked_rate(self.name, sample_rate), gain), block_length)

    def _centred(self, sample_rate: int, gain: float) -> Iterable[np.ndarray]:
        asked = sample_rate, gain
        heard = self._heard  # read once: another thread may hear it at another rate meanwhile
        if heard is not None and heard[0] == asked:
            return heard[1]
        centred = without_offset(self._mono(), self.sample_rate, gain)
        resampled = self._resampled(centred, sample_rate)
        n_resampled = resampled_length(self.n_samples, self.sample_rate, sample_rate)
        if max(self.n_samples, n_resampled) > MOST_KEPT:
            return resampled
        blocks = list(resampled)
        self._heard = asked, blocks
        return blocks

    def _resampled(self, blocks: Iterable[np.ndarray], sample_rate: int) -> Iterator[np.ndarray]:
        n_samples = resampled_length(self.n_samples, self.sample_rate, sample_rate)
        return resample_blocks(blocks, self.sample_rate, sample_rate, n_samples)

    def gain(self) -> float:
        """Measure the level, as `vqcodec.audio.level.gain_of`: ``normalised = mono / gain``."""
        return gain_of(self._mono(), self.sample_rate)

    def _mono(self) -> Iterator[np.ndarray]:
        if self._kept is not None:
            yield from self._kept
            return
        position, blocks = 0, list[np.ndarray]()
        for block in mix(self._read(), self.name, self.sample_rate):
            position += len(block)
            if self.n_samples <= MOST_KEPT:
                block.setflags(write=False)
                blocks.append(block)
            yield block
        if position != self.n_samples:
            raise AudioError(
                f"{self.name}: ends at {position / self.sample_rate:.3f} s of the "
                f"{self.n_samples / self.sample_rate:.3f} s its header promises; "
                "copy or export it again"
            )
        if self.n_samples <= MOST_KEPT:
            self._kept = blocks


def mix(frames: Iterable[np.ndarray], name: str, sample_rate: int) -> Iterator[np.ndarray]:
    """Average the channels of float32 blocks (T, channels), T free, to blocks (T,).

    Raises AudioError if a sample is not finite or far beyond full scale.
    """
    position = 0
    for block in frames:
        wrong = ~(np.abs(block) <= _MAX_MAGNITUDE)
        if wrong.any():
            row, channel = np.argwhere(wrong)[0]
            raise AudioError(
                f"{name}: the sample at {(position + row) / sample_rate:.3f} s is "
                f"{block[row, channel]:g}; samples must be finite with full scale at 1: "
                "repair or export it again"
            )
        position += len(block)
        # The mean of one channel, -0 having become 0 as in a sum, in a hundredth of the time.
        yield block[:, 0] + np.float32(0) if block.shape[1] == 1 else block.mean(axis=1)


def info(path: str | os.PathLike[str]) -> AudioInfo:
    """Describe a sound file.

    The headers of MP3 and of what PyAV reads may only estimate the length: these are decoded once
    to count.

    Args:
        path: WAV, FLAC, Ogg (Vorbis or Opus), MP3, AIFF or whatever else libsndfile decodes; with
            PyAV installed also M4A, AAC, 3GP, AMR, WebM, MP4, MOV or MKV.

    Returns:
        Its rate, channels, length and coding; ``n_samples`` is 0 if it holds no audio.

    Raises:
        AudioError: The file cannot be opened or decoded, or its rate or channels are impossible.
    """
    return describe(Path(path), str(path))


def open_recording(source: AudioSource | Recording, sample_rate: int | None = None) -> Recording:
    """Open a recording for reading.

    Args:
        source: Path of a sound file; its bytes, or a binary file object or named pipe, which are
            first copied to a temporary file that lives as long as the recording; an array-like of
            shape (T,) or (channels, T), float with full scale at 1, int16 or int32; a pair (rate,
            array) as SciPy and Gradio give it, with shape (T,) or (T, channels); an example of a
            data set, with "array" and "sampling_rate" or with "bytes" or "path"; or a recording
            that is open already, which is returned.
        sample_rate: Rate of an array in Hz, 1000 to 768000; all else knows its own.

    Returns:
        The recording, from 1 sample long and with at most 64 channels.

    Raises:
        AudioError: The source is missing, not audio, empty or of an impossible rate or shape.
    """
    knows_rate = knows_its_rate(source)
    name, held, own_rate = _unpacked(source)
    if knows_rate and sample_rate is not None:
        raise AudioError(f"{name}: knows its own sample rate; leave sample_rate out")
    if isinstance(held, Recording):
        return held
    if isinstance(held, str | os.PathLike):
        if not Path(held).is_fifo():
            return _file_recording(Path(held), name)
        with open(held, "rb") as stream:
            return spool(stream, name)
    if isinstance(held, io.TextIOBase):
        raise AudioError(f'{name}: is open as text; open it as bytes, with the mode "rb"')
    if hasattr(held, "read"):
        return spool(held, name)
    return _array_recording(held, sample_rate if own_rate is None else own_rate)


def knows_its_rate(source: object) -> bool:
    """Whether a source is anything but a bare array."""
    is_file = isinstance(source, str | os.PathLike | bytes | bytearray) or hasattr(source, "read")
    return is_file or isinstance(source, Recording | Mapping) or is_pair(source)


def is_pair(source: object) -> bool:
    """Whether a source is a pair of rate and array, or tries to be."""
    if not isinstance(source, tuple) or len(source) != 2:
        return False
    return any(isinstance(one, Integral) for one in source)


def _unpacked(source: Any) -> tuple[str, Any, int | None]:
    """What to call a source, the file or array in it, and the rate that comes with an array."""
    if isinstance(source, Mapping):
        if source.get("array") is not None and "sampling_rate" in source:
            return "array", source["array"], source["sampling_rate"]
        inside = source.get("bytes") or source.get("path")
        if inside is None:
            raise AudioError(
                f"a dictionary with {', '.join(map(str, source)) or 'nothing'}: give one with "
                "array and sampling_rate, or with bytes or path"
            )
        return str(source.get("path") or "bytes"), _unpacked(inside)[1], None
    if is_pair(source):
        rate, samples = source
        if not isinstance(rate, Integral):
            raise AudioError(
                "a pair of array and rate: give (rate, array) with shape (samples,) or "
                "(samples, channels), or the array and sample_rate by themselves"
            )
        return "array", _as_array(samples, "array").T, int(rate)
    if isinstance(source, bytes | bytearray):
        return "bytes", io.BytesIO(source), None
    return name_of(source), source, None


def load(
    source: AudioSource | Recording, sample_rate: int, *, source_rate: int | None = None
) -> np.ndarray:
    """Read a whole recording at one rate, not normalised.

    Args:
        source: As in :func:`open_recording`.
        sample_rate: Rate of the result in Hz.
        source_rate: Rate of the source in Hz if it is an array.

    Returns:
        Channel mean, float32 of shape (T,) with T as :func:`resampled_length` says.

    Raises:
        AudioError: As in :func:`open_recording` and :meth:`Recording.blocks`.
    """
    recording = open_recording(source, source_rate)
    n_samples = resampled_length(recording.n_samples, recording.sample_rate, sample_rate)
    (samples,) = recording.blocks(sample_rate, n_samples)
    return samples


def _file_recording(path: Path, name: str) -> Recording:
    details = describe(path, name)
    return Recording(
        name,
        sample_rate=details.sample_rate,
        n_samples=details.n_samples,
        read=partial(decode, path, name),
    )


def spool(stream: BinaryIO, name: str, head: bytes = b"") -> Recording:
    """Open a copy of a stream that may be read but once, and of which `head` has been read."""
    descriptor, copy = tempfile.mkstemp(prefix="vqcodec-")
    try:
        with os.fdopen(descriptor, "wb") as spool:
            spool.write(head)
            shutil.copyfileobj(stream, spool)
        recording = _file_recording(Path(copy), name)
    except BaseException:
        os.unlink(copy)
        raise
    weakref.finalize(recording, os.unlink, copy)
    return recording


def _array_recording(source: npt.ArrayLike, sample_rate: int | None) -> Recording:
    array = _as_array(source, "array")
    if array.dtype.kind in "OSU" and array is not source:
        raise AudioError(
            f"{type(source).__name__}: is no recording; give a path, bytes, an open file, or an "
            "array of samples and its rate"
        )
    if sample_rate is None:
        raise AudioError(
            "array: has no sample rate of its own; give sample_rate in Hz, or (rate, array)"
        )
    samples = as_channels(array, "array")
    return Recording(
        "array",
        sample_rate=checked_rate("array", sample_rate),
        n_samples=samples.shape[1],
        read=partial(array_frames, samples),
    )


def as_channels(source: npt.ArrayLike, name: str) -> np.ndarray:
    """Samples as (channels, T) of their own type; AudioError if that is impossible."""
    samples = _as_array(source, name)
    if samples.dtype.newbyteorder("=") not in (np.int16, np.int32) and samples.dtype.kind != "f":
        raise AudioError(
            f"{name}: samples of type {samples.dtype}; convert them to float with full scale at 1"
        )
    if samples.ndim not in (1, 2):
        raise AudioError(f"{name}: shape {samples.shape}; give (samples,) or (channels, samples)")
    samples = np.atleast_2d(samples)
    check_channels(name, samples.shape[0])
    return samples


def _as_array(source: npt.ArrayLike, name: str) -> np.ndarray:
    try:
        return np.asarray(source)
    except (TypeError, ValueError, RuntimeError) as error:
        raise AudioError(
            f"{name}: NumPy cannot read it; give a NumPy array or a detached CPU tensor"
        ) from error


def array_frames(samples: np.ndarray) -> Iterator[np.ndarray]:
    """Samples (channels, T), as `as_channels` gives them, as float32 blocks (n, channels)."""
    full_scale = np.iinfo(samples.dtype).max + 1 if samples.dtype.kind == "i" else 1
    for start in range(0, samples.shape[1], BLOCK_LENGTH):
        with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite: refused later
            chunk = samples[:, start : start + BLOCK_LENGTH].T.astype(np.float32, order="C")
        yield chunk / np.float32(full_scale)
