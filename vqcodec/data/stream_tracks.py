"""What is heard for streams in the recordings of a prepared corpus, kept beside its audio."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from vqcodec.audio.tracks import TRACKERS
from vqcodec.data.clips import AudioClips, duration
from vqcodec.data.prepared import PreparedData
from vqcodec.errors import DataError
from vqcodec.files import write_atomically
from vqcodec.models.streams import Stream

VERSION = 1  # of the trackers; others' tracks are made anew

_logger = logging.getLogger("vqcodec.training")


@dataclass(frozen=True, eq=False)
class StreamTracks:
    """Values of streams for each code of the recordings, all of them end to end, as stored.

    Attributes:
        values: name of a stream -> (M,) float32.
        spans: name of a clip -> its first value and the one after its last.
        streams: what decoders are told of the values.
    """

    values: dict[str, npt.NDArray[np.float32]]
    spans: dict[str, tuple[int, int]]
    streams: Mapping[str, Stream]


def load_tracks(
    data: AudioClips, streams: Mapping[str, Stream], hop_length: int, *, makes: bool = True
) -> StreamTracks:
    """The tracks of a corpus at the rate of the model, for one or more streams.

    With `makes`, recordings of a prepared one are listened to where that was not done yet, and what
    was heard is kept; recordings in memory always are. Raises DataError if tracks cannot be read or
    written, or are not there.
    """
    heard = {
        name: heard_tracks(data, name, hop_length, makes=makes)
        if isinstance(data, PreparedData)
        else _heard(data, name, hop_length)
        for name in streams
    }
    ends = np.cumsum([len(own) for own in next(iter(heard.values()))]).tolist()
    names = [clip.name for clip in data.clips]
    spans = dict(zip(names, zip([0, *ends[:-1]], ends, strict=True), strict=True))
    values = {
        name: np.concatenate([streams[name].stored(own) for own in tracks])
        for name, tracks in heard.items()
    }
    return StreamTracks(values, spans, streams)


def heard_tracks(
    data: PreparedData, name: str, hop_length: int, *, makes: bool = True
) -> list[npt.NDArray[np.float32]]:
    """What was heard in each recording for the stream of a name, before it is stored.

    Arguments and errors are those of `load_tracks`.
    """
    path, key = data.root / f"{name}_{hop_length}.safetensors", _contents(data)
    heard = _read(path, key)
    if heard is None and makes:
        length = duration(len(data.audio) / data.sample_rate)
        _logger.info("listening to the %s of %s, once for all trainings", name, length)
        heard = np.concatenate(_heard(data, name, hop_length))
        try:
            write_atomically(path, save({"track": heard}, {"contents": key}))
        except OSError as error:
            raise DataError(
                f"{path}: cannot be written ({error.strerror}); mend that and train again"
            ) from error
    ends = np.cumsum([-(-clip.n_samples // hop_length) for clip in data.clips])
    if heard is None or len(heard) != ends[-1]:
        raise DataError(f"{path}: damaged; delete it, and it is made anew")
    return np.split(heard, ends[:-1])


def _contents(data: PreparedData) -> str:
    """What tells this audio, and what is heard in it, from others."""
    clips = [(clip.name, clip.n_samples, clip.gain) for clip in data.clips]
    return hashlib.sha256(json.dumps([VERSION, clips]).encode()).hexdigest()


def _read(path: Path, key: str) -> npt.NDArray[np.float32] | None:
    """The track of a file, if it is of these recordings."""
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="numpy") as file:
            track: npt.NDArray[np.float32] = file.get_tensor("track")
            return track if file.metadata()["contents"] == key else None
    except (SafetensorError, OSError, KeyError, TypeError, ValueError):
        raise DataError(f"{path}: damaged; delete it, and it is made anew") from None


def _heard(data: AudioClips, name: str, hop_length: int) -> list[npt.NDArray[np.float32]]:
    track = TRACKERS[name]
    # Trackers compute outside of Python: threads will do.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(lambda clip: track(data.read(clip), hop_length), data.clips))
