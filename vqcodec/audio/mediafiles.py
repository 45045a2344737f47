"""What phones and browsers record, and the sound of films, through FFmpeg's libraries (PyAV)."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from vqcodec.audio import damage
from vqcodec.errors import AudioError

if TYPE_CHECKING:
    from av import AudioFrame
    from av.container import InputContainer

# Longer padding than the last packets of any codec is no padding.
_MAX_PADDING, _OPUS_RATE, _OPUS_UNIT = 8192, 48_000, 120
# Clocks of browsers jitter; whatever damages a Matroska file takes more of it.
_MAX_GAP_S = 0.1


class Sound(NamedTuple):
    """The first audio stream of a file.

    Attributes:
        sample_rate: In Hz.
        channels: Of it.
        format: Container, as FFmpeg names it.
        subtype: Codec, as FFmpeg names it.
        blocks: Float32, (T, channels) each.
    """

    sample_rate: int
    channels: int
    format: str
    subtype: str
    blocks: Iterator[np.ndarray]


def is_installed() -> bool:
    """Whether PyAV can be imported."""
    try:
        import av  # noqa: F401
    except ImportError:
        return False
    return True


@contextmanager
def open_media(path: Path, name: str) -> Iterator[Sound]:
    """Open a file that libsndfile cannot read.

    Raises AudioError if it is no media file, holds no sound, or, while its blocks are read, is
    damaged.
    """
    import av

    try:
        container = av.open(str(path), metadata_errors="replace")
    except (av.FFmpegError, ValueError) as error:
        raise AudioError(
            f"{name}: is not audio that can be read; convert it to WAV, for example with ffmpeg"
        ) from error
    with container:
        if not container.streams.audio:
            raise AudioError(f"{name}: holds no sound; name another file")
        stream = container.streams.audio[0]
        rate = stream.codec_context.sample_rate
        # Only this family counts samples; the others' times are in milliseconds, or guesses.
        promised = None
        if "mp4" in container.format.name and stream.duration and stream.time_base:
            promised = round(stream.duration * stream.time_base * rate)
        yield Sound(
            rate,
            stream.codec_context.channels,
            container.format.name.split(",")[0],
            stream.codec_context.name,
            _complete(_decoded(container, name), promised, rate, name),
        )


def _decoded(container: InputContainer, name: str) -> Iterator[np.ndarray]:
    import av

    resampler = av.AudioResampler(format="fltp")
    stream = container.streams.audio[0]
    n_done, rate = 0, stream.codec_context.sample_rate
    try:
        frames: Iterator[AudioFrame] = container.decode(stream)
        if "matroska" in container.format.name:
            frames = _without_gaps(frames, _stated_s(container), _is_alone(container), name)
        first = next(frames, None)
        n_late = _opus_delay(stream, first.samples) if first else 0
        for frame in itertools.chain([first] if first else [], frames):
            for converted in resampler.resample(frame):
                samples = converted.to_ndarray().T[n_late:]
                n_late -= converted.samples - len(samples)
                n_done += len(samples)
                yield np.ascontiguousarray(samples, dtype=np.float32)
    except (av.FFmpegError, ValueError) as error:
        raise AudioError(
            f"{name}: cannot be decoded beyond {n_done / rate:.3f} s ({error}); "
            f"{damage.keep_the_rest()}"
        ) from error


def _stated_s(container: InputContainer) -> float | None:
    """When the sound of a Matroska file ends by its header; None if that says nothing of it."""
    if not container.duration:
        return None
    # In microseconds, of all streams; ffmpeg and mkvmerge note that of each.
    whole = container.duration / 1e6
    noted = container.streams.audio[0].metadata.get("DURATION", "")
    if time := re.fullmatch(r"(\d+):(\d\d):(\d\d(?:\.\d+)?)", noted.strip("\0 ")):
        hours, minutes, seconds = map(float, time.groups())
        return min(whole, 3600 * hours + 60 * minutes + seconds)
    return whole if _is_alone(container) else None


def _is_alone(container: InputContainer) -> bool:
    """Whether the times of a file are those of its sound."""
    streams = container.streams
    return len(streams.audio) == 1 and not streams.video and not streams.subtitles


def _without_gaps(
    frames: Iterator[AudioFrame], stated_s: float | None, is_alone: bool, name: str
) -> Iterator[AudioFrame]:
    """Compare the times of frames with their lengths, and the end with that of the header.

    FFmpeg's libraries pass over what they cannot read of a Matroska file.
    """
    lost, lost_at, heard, end = 0.0, -1.0, 0.0, None
    first, padding = 0.0, 0.0
    for frame in frames:
        length = frame.samples / frame.sample_rate
        padding = _MAX_PADDING / frame.sample_rate
        if frame.pts is not None and frame.time_base is not None:
            start = float(frame.pts * frame.time_base)
            if end is not None and start - end > _MAX_GAP_S:
                lost_at = heard if lost_at < 0 else lost_at
                lost += start - end
            elif end is None:
                first = start
            end = start
        heard += length
        end = (end or 0.0) + length
        yield frame
    # Sound that accompanies nothing starts at 0, unless its duration is counted from its start.
    starts_at_0 = is_alone and stated_s is not None and (end or 0.0) <= stated_s + padding
    if starts_at_0 and first > _MAX_GAP_S:
        lost, lost_at = lost + first, 0.0
    if lost_at >= 0:
        raise damage.lost_sound(name, lost, lost_at)
    if stated_s is not None and (end or 0.0) < stated_s - padding:
        raise damage.cut_off(name, stated_s, end or 0.0)


def _opus_delay(stream: Any, first_length: int) -> int:
    """Samples that FFmpeg's libraries leave of the start that Opus skips (RFC 7845, section 4.2).

    They skip as many samples at 48 kHz as the container counts at the rate of the recording.
    """
    head = bytes(stream.codec_context.extradata or b"")
    if stream.codec_context.name not in ("opus", "libopus") or head[:8] != b"OpusHead":
        return 0
    delay = int.from_bytes(head[10:12], "little")
    for rate in (48_000, 24_000, 16_000, 12_000, 8_000, 0):
        skipped = delay * rate // _OPUS_RATE
        if (first_length + skipped) % _OPUS_UNIT == 0:
            return delay - skipped
    return 0


def _complete(
    blocks: Iterator[np.ndarray], promised: int | None, rate: int, name: str
) -> Iterator[np.ndarray]:
    """Leave the padding of the last packets out, and refuse less than what is promised."""
    n_done = 0
    for block in blocks:
        start = n_done
        n_done += len(block)
        if promised is None or n_done <= promised:
            yield block
        elif start < promised:
            yield block[: promised - start]
    if promised is None:
        return
    if n_done > promised + _MAX_PADDING:
        raise AudioError(
            f"{name}: goes on after the end that its header gives, at {promised / rate:.3f} s; "
            "convert it to WAV, for example with ffmpeg"
        )
    if n_done < promised - _MAX_PADDING:
        raise damage.cut_off(name, promised / rate, n_done / rate)
