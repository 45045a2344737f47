"""Which phone is said where in a prepared corpus, for models whose codes are to know phones.

A prepared folder may hold ``phones.safetensors``: the stretches of all its audio, each from its
start to the next one's, and the phone class of each.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from vqcodec.data.clips import AudioClips
from vqcodec.data.labels import UNLABELLED, check_span, match_recordings, read_folder
from vqcodec.data.prepared import PreparedData
from vqcodec.errors import DataError
from vqcodec.files import write_atomically

_FILE = "phones.safetensors"


@dataclass(frozen=True, eq=False)
class PhoneTrack:
    """The phones of prepared audio.

    Attributes:
        starts: (M,) int64, where each stretch begins, in samples, in order; the first is 0.
        phones: (M,) int64, its class, or `UNLABELLED`.
        classes: names of the classes.
        n_clips: recordings that have labels.
    """

    starts: npt.NDArray[np.int64]
    phones: npt.NDArray[np.int64]
    classes: tuple[str, ...]
    n_clips: int


def add_phones(data: PreparedData, labels: Path) -> PhoneTrack:
    """Label prepared audio by a folder of label files; labels that it had are replaced.

    They are as of `vqcodec.data.labels.read_folder`, named as the recordings or mirroring their
    folder; those without a recording are not used.

    Raises:
        DataError: the labels cannot be read, none has a recording or one of another length, or the
            folder cannot be written.
    """
    read = read_folder(labels)
    owners = match_recordings(read, [clip.name for clip in data.clips])
    if not owners:
        raise DataError(
            f"{labels}: none of {len(read)} label files has a recording in {data.root}; name them "
            f"alike, such as {data.clips[0].name}.lab"
        )
    of_clip = {owner: read[name] for name, owner in owners.items()}
    stretches = [(0, "")]
    for clip in data.clips:
        if clip.name in of_clip:
            check_span(clip.name, of_clip[clip.name], clip.n_samples / data.sample_rate)
        for start, end, phone in of_clip.get(clip.name, []):
            # Labels may reach beyond the recording, and there may be gaps between them.
            first, last = (
                clip.start + min(round(time * data.sample_rate), clip.n_samples)
                for time in (start, end)
            )
            stretches += [(first, phone), (last, "")]
    classes = tuple(sorted({phone for _, phone in stretches} - {""}))
    numbers = {"": UNLABELLED} | {phone: number for number, phone in enumerate(classes)}
    starts = np.array([start for start, _ in stretches], np.int64)
    track = PhoneTrack(
        np.maximum.accumulate(starts),  # rounded times may overlap by a sample
        np.array([numbers[phone] for _, phone in stretches], np.int64),
        classes,
        len(of_clip),
    )
    metadata = {"classes": json.dumps(classes), "n_clips": str(track.n_clips)}
    tensors = {"starts": track.starts, "phones": track.phones}
    try:
        write_atomically(data.root / _FILE, save(tensors, metadata))
    except OSError as error:
        raise DataError(
            f"{data.root / _FILE}: cannot be written ({error.strerror}); mend that and run "
            "vqcodec prepare again"
        ) from error
    return track


def read_phones(data: AudioClips) -> PhoneTrack:
    """The labels of a prepared folder; raises DataError if it has none, or they are damaged."""
    path = data.root / _FILE
    if not path.is_file():
        raise DataError(
            f"{data.root}: has no phone labels, which loss.phones needs; run vqcodec prepare again "
            "with --labels, or set loss.phones=0"
        )
    try:
        with safe_open(path, framework="numpy") as file:
            starts, phones = file.get_tensor("starts"), file.get_tensor("phones")
            classes = tuple(json.loads(file.metadata()["classes"]))
            n_clips = int(file.metadata()["n_clips"])
    except (SafetensorError, OSError, KeyError, TypeError, ValueError):
        raise _damaged(path) from None
    if (
        starts.shape != phones.shape
        or not starts.size
        or (starts.dtype, phones.dtype) != (np.int64, np.int64)
        or starts[0] != 0
        or (np.diff(starts) < 0).any()
        or not UNLABELLED <= phones.min() <= phones.max() < len(classes)
    ):
        raise _damaged(path)
    return PhoneTrack(starts, phones, classes, n_clips)


def _damaged(path: Path) -> DataError:
    return DataError(f"{path}: damaged; run vqcodec prepare again with --labels")
