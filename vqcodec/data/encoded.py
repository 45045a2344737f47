"""Codes that recordings of a prepared corpus have in files, where an encoder would make others.

Such are refined codes: they take too long to find to be made anew for every batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from vqcodec.data.clips import AudioClips
from vqcodec.data.labels import match_recordings
from vqcodec.errors import CodesError, DataError
from vqcodec.files import files_below
from vqcodec.format.codes import Codes
from vqcodec.format.ngram_coder import NgramModel


@dataclass(frozen=True, eq=False)
class EncodedClips:
    """The codes of recordings, end to end.

    Attributes:
        codes: (Q, M) int32.
        places: name of a clip -> its first column and the one after its last.
    """

    codes: npt.NDArray[np.int32]
    places: dict[str, tuple[int, int]]


def read_encoded(
    folder: Path, data: AudioClips, *, fingerprint: bytes, tables: NgramModel | None
) -> EncodedClips:
    """Read the code files of a prepared corpus.

    Args:
        folder: with .codes files at any depth, named as the recordings or mirroring their folder,
            as `vqcodec encode CORPUS FOLDER` writes them; those without a recording are not used.
        data: the prepared folder.
        fingerprint: of the model that must have made them.
        tables: of that model's entropy coder.

    Raises:
        DataError: there is none, none has a recording, or one is not of the recording of its name
            or not the only one.
        CodesError: one cannot be read, or is of another model.
    """
    paths = {
        path.relative_to(folder).with_suffix("").as_posix(): path
        for path in files_below(folder, (".codes",))
    }
    if not paths:
        raise DataError(f"{folder}: holds no .codes file; make them with vqcodec encode")
    clips = {clip.name: clip for clip in data.clips}
    owners = match_recordings(paths, list(clips))
    if not owners:
        raise DataError(
            f"{folder}: none of {len(paths)} code files has a recording in {data.root}; name them "
            f"alike, such as {data.clips[0].name}.codes"
        )
    parts, places, end = [], {}, 0
    for name, owner in owners.items():
        codes = Codes.load(paths[name], tables=tables)
        if codes.fingerprint != fingerprint:
            raise CodesError(
                f"{paths[name]}: made by model {codes.fingerprint.hex()}, not by the one that is "
                f"trained, {fingerprint.hex()}; encode the recording with that (--model)"
            )
        if owner in places:
            raise DataError(f"{paths[name]}: {owner} has codes already; remove one of the files")
        n_codes = -(-clips[owner].n_samples // codes.hop_length)
        if codes.n_codes != n_codes:
            raise DataError(
                f"{paths[name]}: has {codes.n_codes} codes where the recording {owner} has "
                f"{n_codes}; encode that again"
            )
        parts.append(codes.codes.astype(np.int32))
        places[owner] = (end, end + n_codes)
        end += n_codes
    return EncodedClips(np.concatenate(parts, axis=1), places)
