"""What is known of one recording on its way from a source to a sink."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import numpy as np

from vqcodec.audio.soundfiles import decode, describe
from vqcodec.errors import AudioError
from vqcodec.format.codes import Codes
from vqcodec.scale import storage


@dataclass(frozen=True)
class Sound:
    """Where a recording lies.

    Attributes:
        url: path or URL of a sound file, or its name in what holds it.
        data: its bytes, where something else holds them.
        start_s: where the recording begins in it.
        duration_s: how long it is; None up to the end.
        channel: which channel it is; None for the mean of all.
    """

    url: str
    data: bytes | None = field(default=None, repr=False)
    start_s: float = 0.0
    duration_s: float | None = None
    channel: int | None = None

    @property
    def is_whole(self) -> bool:
        """Whether it is all of its file."""
        return not self.start_s and self.duration_s is None and self.channel is None

    def read(self) -> bytes:
        """The bytes of the file; raises AudioError if there is none."""
        if self.data is not None:
            return self.data
        try:
            return storage.read(self.url)
        except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
            raise AudioError(
                f"{self.url}: cannot be opened ({error}); check that it is there"
            ) from None

    def source(self) -> str | dict[str, Any] | tuple[int, np.ndarray]:
        """What `audio.open_recording` takes for it; raises AudioError if it cannot be read."""
        if not self.url and self.data is None:
            raise AudioError("a row has neither bytes nor a path; take it out of the source")
        is_path = self.data is None and storage.is_local(self.url)
        if not self.is_whole:
            return self._cut(is_path)
        if is_path:
            return storage.absolute(self.url)
        return {"bytes": self.read(), "path": self.url}

    def _cut(self, is_path: bool) -> tuple[int, np.ndarray]:
        """The rate, and samples (T,)."""
        rate, samples = _frames(self.url) if is_path else _decoded(self.url, self.read())
        start = round(self.start_s * rate)
        end = len(samples) if self.duration_s is None else start + round(self.duration_s * rate)
        if not 0 <= start < end <= len(samples):
            raise AudioError(
                f"{self.url}: has {len(samples) / rate:.3f} s, not all of the "
                f"{(end - start) / rate:.3f} s from {self.start_s:.3f} s on; mend the manifest"
            )
        if self.channel is not None and self.channel >= samples.shape[1]:
            raise AudioError(f"{self.url}: has no channel {self.channel}; mend the manifest")
        part = samples[start:end]
        return rate, part.mean(1) if self.channel is None else part[:, self.channel]


@lru_cache(maxsize=1)  # cuts of one recording follow each other
def _frames(url: str) -> tuple[int, np.ndarray]:
    """Rate and samples (T, channels) of a file on this machine."""
    path = Path(storage.absolute(url))
    return describe(path, url).sample_rate, np.concatenate(list(decode(path, url)))


def _decoded(url: str, data: bytes) -> tuple[int, np.ndarray]:
    with NamedTemporaryFile(prefix="vqcodec-") as file:
        file.write(data)
        file.flush()
        path = Path(file.name)
        return describe(path, url).sample_rate, np.concatenate(list(decode(path, url)))


@dataclass(frozen=True)
class Record:
    """One recording, or its codes.

    Attributes:
        name: unique in the data set.
        speaker: who speaks, or "" where that is not told.
        text: what is said, or "" where that is not told.
        sound: where it lies; None where there are only codes.
        codes: reads them, where a source has them; raises CodesError.
        units: of a data set of units, (N,), or (2, N) with their durations in codes.
        extra: whatever else the source tells, by the names that it has there.
    """

    name: str
    speaker: str = ""
    text: str = ""
    sound: Sound | None = None
    codes: Callable[[], Codes] | None = None
    units: np.ndarray | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)


def key_of(name: str) -> str:
    """A name as a key of WebDataset, which ends at the first dot of its last part."""
    folder, slash, last = name.rpartition("/")
    return folder + slash + last.replace(".", "%2E")
