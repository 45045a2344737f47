"""Damage that a decoder passes over: containers compared with what they say of themselves.

One rule holds for all of it. A recording of which something is missing or wrong is refused, with
the place and the remedy; one that only was never finished is read to its end, with a warning.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import mmap
import os
import struct
import warnings
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vqcodec.errors import AudioError, RecordingWarning

# Programs that write to pipes promise as much as they can: ffmpeg 2^32 - 1 bytes, SoX 2^31 - 37.
_UNKNOWN_SIZE = 0x7FFF0000
_REVERSED_BITS = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def check(path: Path, name: str, container: str, sample_rate: int) -> None:
    """Look for damage in a file that libsndfile can open, and whose container it names.

    Raises:
        AudioError: Something is missing; nothing is known of the damage of other containers.
    """
    if look := _CHECKS.get(container):
        with _mapped(path) as data:
            look(data, name, sample_rate)


@contextlib.contextmanager
def _mapped(path: Path) -> Iterator[mmap.mmap]:
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        yield data


def keep_the_rest(options: str = "") -> str:
    """The remedy for damage."""
    return f"copy or export it again, or keep what is left: ffmpeg {options}-i DAMAGED REPAIRED.wav"


def cut_off(name: str, promised_s: float, there_s: float) -> AudioError:
    """The error for a file that is shorter than its header says."""
    return AudioError(
        f"{name}: is cut off: of {promised_s:.3f} s that its header promises, {there_s:.3f} s are "
        f"there; {keep_the_rest()}"
    )


def lost_sound(name: str, lost_s: float, start_s: float) -> AudioError:
    """The error for a file of which pieces are missing, the first one at `start_s`."""
    return AudioError(
        f"{name}: is damaged: {lost_s:.3f} s of sound are lost or broken, from {start_s:.3f} s on; "
        f"{keep_the_rest()}"
    )


def _unfinished(name: str) -> None:
    warnings.warn(
        f"{name}: was never finished, perhaps because its recorder was interrupted; "
        "all that it holds is read",
        RecordingWarning,
        stacklevel=2,
    )


# WAV and AIFF


class _DataChunk(NamedTuple):
    start: int  # of the chunk
    promised: int | None  # bytes
    bytes_per_frame: int


def _data_chunk(data: mmap.mmap) -> _DataChunk | None:
    """Find the chunk of samples (Microsoft RIFF; EBU Tech 3306; Apple AIFF 1.3)."""
    order = ">" if data[:4] == b"FORM" else "<"
    start, bytes_per_frame, long_size = 12, 1, None
    while start + 8 <= len(data):
        kind, size = struct.unpack(f"{order}4sI", data[start : start + 8])
        if kind in (b"data", b"SSND"):
            if size == 0xFFFFFFFF and long_size is not None:
                return _DataChunk(start, long_size, bytes_per_frame)
            return _DataChunk(start, size if size < _UNKNOWN_SIZE else None, bytes_per_frame)
        if kind == b"ds64":
            (long_size,) = struct.unpack("<Q", data[start + 16 : start + 24])
        elif kind == b"fmt ":
            bytes_per_frame = max(1, *struct.unpack("<H", data[start + 20 : start + 22]))
        elif kind == b"COMM":
            channels, _, bits = struct.unpack(">HIH", data[start + 8 : start + 16])
            bytes_per_frame = max(1, channels * -(-bits // 8))
        start += 8 + size + size % 2
    return None


def _check_chunks(data: mmap.mmap, name: str, sample_rate: int) -> None:
    """Compare the promised size of the samples with the file."""
    samples = _data_chunk(data)
    if samples is None or samples.promised is None:
        return
    there = len(data) - samples.start - 8
    if not samples.promised:
        if there >= samples.bytes_per_frame:
            _unfinished(name)
    elif there < samples.promised:
        per_second = samples.bytes_per_frame * sample_rate
        raise cut_off(name, samples.promised / per_second, there / per_second)
    elif not _are_chunks(data, samples.start + 8 + samples.promised):
        raise AudioError(
            f"{name}: goes on after the end that its header gives; "
            f"{keep_the_rest('-ignore_length 1 ')}"
        )


def _are_chunks(data: mmap.mmap, start: int) -> bool:
    """Whether what follows the samples are chunks that reach to the end, or a few bytes of it.

    Some programs forget the byte that pads an odd size, others write something else than zero, or
    put the tag of an MP3 at the end.
    """
    order = ">" if data[:4] == b"FORM" else "<"
    end = len(data) - (128 if data[max(start, len(data) - 128) :].startswith(b"TAG") else 0)
    size = start % 2  # of the samples, which start at an even place
    while start + 8 <= end:
        if not _is_chunk(data, start) and (size % 2 or data[start] == 0):
            start += 1
        if not _is_chunk(data, start):
            return not any(data[start:end])
        (size,) = struct.unpack(f"{order}I", data[start + 4 : start + 8])
        start += 8 + size
    return True


def _is_chunk(data: mmap.mmap, start: int) -> bool:
    """Whether the name of a chunk stands here."""
    return all(32 <= letter < 127 for letter in data[start : start + 4])


class FinishedFile(io.FileIO):
    """A WAV whose recorder was interrupted before it wrote the size of the samples.

    libsndfile would find none; it reads to the end where that size is unknown.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        with _mapped(path) as data:
            samples = _data_chunk(data)
        self._size_at = samples.start + 4 if samples else 1 << 62

    def readinto(self, buffer: Any) -> int:
        """Read on."""
        start = self.tell()
        n_read = super().readinto(buffer)
        view = memoryview(buffer).cast("B")
        for position in range(max(self._size_at, start), min(self._size_at + 4, start + n_read)):
            view[position - start] = 0xFF
        return n_read


# Ogg


_END = 4  # of a stream, among the flags of a page


class _Page(NamedTuple):
    start: int
    end: int
    flags: int
    granule: int
    serial: int
    number: int
    body: bytes


def _check_pages(data: mmap.mmap, name: str, sample_rate: int) -> None:
    """Count the pages of an Ogg stream and add up what lies between those left (RFC 3533)."""
    pages = _pages(data)
    first = last = next(pages, None)
    if first is None or last is None:
        raise AudioError(f"{name}: is damaged at its start; {keep_the_rest()}")
    # Opus counts samples at 48 kHz, whatever the rate was, and some of them are not heard.
    is_opus = first.body.startswith(b"OpusHead")
    rate = 48_000 if is_opus else sample_rate
    skip = struct.unpack("<H", first.body[10:12])[0] if is_opus else 0
    lost, lost_at, heard_to = 0, -1, 0
    for page in pages:
        if last.flags & _END:
            break
        if page.serial != first.serial:
            continue
        if page.number != last.number + 1:
            lost_at = heard_to if lost_at < 0 else lost_at
            lost += max(page.granule, heard_to) - heard_to
        if page.granule >= 0:
            heard_to = page.granule
        last = page
    if lost_at >= 0:
        raise lost_sound(name, lost / rate, max(lost_at - skip, 0) / rate)
    end = f"{max(heard_to - skip, 0) / rate:.3f} s"
    if not last.flags & _END:
        if any(data[last.end :]):
            raise AudioError(f"{name}: is cut off or damaged after {end}; {keep_the_rest()}")
        _unfinished(name)


def _pages(data: mmap.mmap) -> Iterator[_Page]:
    """The undamaged pages."""
    start = 0
    while (start := data.find(b"OggS", start)) >= 0:
        head = data[start : start + 27]
        lengths = data[start + 27 : start + 27 + head[26]] if len(head) == 27 else b""
        end = start + 27 + len(lengths) + sum(lengths)
        if len(head) < 27 or len(lengths) < head[26] or end > len(data):
            start += 4
            continue
        _, flags, granule, serial, number, crc = struct.unpack("<BBqIII", head[4:26])
        body = data[start + 27 + len(lengths) : end]
        if _ogg_crc(head[:22] + bytes(4) + head[26:] + lengths + body) == crc:
            yield _Page(start, end, flags, granule, serial, number, body)
            start = end
        else:
            start += 4


def _ogg_crc(data: bytes) -> int:
    """CRC-32 as zlib's, with bits in the other order and no inversion."""
    crc = zlib.crc32(data.translate(_REVERSED_BITS), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{crc:032b}"[::-1], 2)


# MP3 and what else is tagged


def _after_tag(data: mmap.mmap, start: int = 0) -> int:
    """Where an ID3v2 tag that begins at `start` ends; `start` if there is none."""
    head = data[start : start + 10]
    if len(head) < 10 or not head.startswith(b"ID3"):
        return start
    size = sum((byte & 127) << 7 * place for place, byte in enumerate(head[:5:-1]))
    has_footer = head[3] >= 4 and head[5] & 16
    return start + size + (20 if has_footer else 10)


def _check_tag(data: mmap.mmap, name: str, sample_rate: int) -> None:
    """Compare the bytes that the tag of an encoder (Xing, Info) counts with the file."""
    start = _after_tag(data)
    head = data[start : start + 256]
    found = max(head.find(tag) for tag in (b"Xing", b"Info"))
    flags = head[found + 7] if 0 <= found < len(head) - 16 else 0
    if not flags & 2:
        return
    offset = found + (12 if flags & 1 else 8)
    (promised,) = struct.unpack(">I", head[offset : offset + 4])
    there = len(data) - start
    if there < promised:
        raise AudioError(
            f"{name}: is cut off: {there} of the {promised} bytes that its header promises are "
            f"there; {keep_the_rest()}"
        )


_CHECKS: dict[str, Callable[[mmap.mmap, str, int], None]] = {
    "WAV": _check_chunks,
    "WAVEX": _check_chunks,
    "RF64": _check_chunks,
    "AIFF": _check_chunks,
    "OGG": _check_pages,
    "MP3": _check_tag,
}


def end_of_sound(path: Path) -> int:
    """Where the tags begin that stand at the end of an MP3 or FLAC; its size if there are none.

    ID3v1, APEv2, Lyrics3 and ID3v2 with or without a footer, in any order.
    """
    with _mapped(path) as data:
        end = len(data)
        while 0 < (start := _tag_before(data, end)) < end:
            end = start
    return end


def _tag_before(data: mmap.mmap, end: int) -> int:
    """Where a tag that ends at `end` starts; `end` if there is none."""
    if data[max(0, end - 128) : end].startswith(b"TAG"):
        return end - 128
    tail = data[max(0, end - 32) : end]
    if tail.startswith(b"APETAGEX"):  # its size leaves its head out
        start = end - int.from_bytes(tail[12:16], "little")
        return start - 32 if data[max(0, start - 32) : max(0, start)][:8] == b"APETAGEX" else start
    if tail.endswith(b"LYRICS200") and tail[-15:-9].isdigit():
        return end - 15 - int(tail[-15:-9])
    start = end
    while (start := data.rfind(b"ID3", 0, start)) > 0:
        if _after_tag(data, start) == end:
            return start
    return end


class UntaggedFile(io.FileIO):
    """A file without the tags that begin at `end`, which libsndfile would decode."""

    def __init__(self, path: Path, end: int) -> None:
        super().__init__(path)
        self._end = end

    def readinto(self, buffer: Any) -> int:
        """Read on."""
        view = memoryview(buffer).cast("B")
        return super().readinto(view[: max(0, self._end - self.tell())])

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Go to a place."""
        if whence == os.SEEK_END:
            offset, whence = offset + self._end, os.SEEK_SET
        return super().seek(offset, whence)


# FLAC


class FlacDigest:
    """The MD5 of a FLAC file's samples, compared with its header's (RFC 9639, section 8.2)."""

    def __init__(self, path: Path) -> None:
        with _mapped(path) as data:
            start = _after_tag(data)
            start = data.find(b"fLaC", start, start + (1 << 16))
            info = data[start + 8 : start + 42] if start >= 0 else b""
        is_there = len(info) == 34
        self._bits = ((info[12] & 1) << 4 | info[13] >> 4) + 1 if is_there else 0
        self._expected = info[18:34]
        self._md5 = hashlib.md5(usedforsecurity=False)

    def update(self, frames: np.ndarray) -> None:
        """Add float32 samples (T, channels), full scale at 1."""
        if not any(self._expected):
            return
        size = -(-self._bits // 8)
        whole = np.rint(frames * np.float32(1 << (self._bits - 1))).astype("<i4")
        if size == 2:  # most files, and several times as fast as bytes that are picked
            self._md5.update(whole.astype("<i2").data)
        else:
            self._md5.update(whole.view(np.uint8).reshape(-1, 4)[:, :size].tobytes())

    def is_right(self) -> bool:
        """Whether the header has no digest, or this one."""
        return not any(self._expected) or self._md5.digest() == self._expected
