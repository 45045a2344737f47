"""Voices: named speaker vectors, and files that keep enrolled ones."""

from __future__ import annotations

import base64
import binascii
import difflib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from filelock import FileLock

from vqcodec.errors import SpeakerError
from vqcodec.files import write_atomically

FORMAT, VERSION = "vqcodec-voices", 1
VECTOR_LENGTH = 64


@dataclass(frozen=True, eq=False)
class Speaker:
    """Who speaks.

    Attributes:
        vector: (64,) int8, the stored form of a model's speaker vector.
        name: of the voice, or None for one that is known only from a recording.
    """

    vector: np.ndarray
    name: str | None = None


class VoicesFile:
    """Enrolled voices, each tied to the model whose speaker encoder made it. A JSON file.

    Args:
        path: need not exist yet.

    Raises:
        SpeakerError: it exists and is not a voices file.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._voices: dict[tuple[str, str], np.ndarray] = {}
        if not self.path.exists():
            return
        try:
            content = json.loads(self.path.read_text(encoding="utf-8"))
            if content["format"] != FORMAT or content["version"] > VERSION:
                raise ValueError(f"format {content['format']} {content['version']}")
            for voice in content["voices"]:
                vector = np.frombuffer(base64.b64decode(voice["vector"], validate=True), np.int8)
                if len(vector) != VECTOR_LENGTH:
                    raise ValueError(f"voice {voice['name']!r} has {len(vector)} values, not 64")
                self._voices[voice["model"], check_name(voice["name"])] = vector
        except (
            *(OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError),
            *(binascii.Error, SpeakerError),
        ) as error:
            raise SpeakerError(
                f"{self.path}: not a readable voices file ({error}): move it away and enroll again"
            ) from None

    def voices(self, fingerprint: bytes) -> dict[str, np.ndarray]:
        """Name -> (64,) int8 of the voices enrolled for a model."""
        model = fingerprint.hex()
        return {name: vector for (owner, name), vector in self._voices.items() if owner == model}

    def add(self, fingerprint: bytes, name: str, vector: np.ndarray) -> None:
        """Add or replace a voice and write the file; what others add, even meanwhile, stays."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(self.path.with_name(f".{self.path.name}.lock")):
            self._voices = VoicesFile(self.path)._voices
            self._voices[fingerprint.hex(), name] = vector
            voices = [
                {"model": model, "name": key, "vector": base64.b64encode(value.tobytes()).decode()}
                for (model, key), value in sorted(self._voices.items())
            ]
            content = {"format": FORMAT, "version": VERSION, "voices": voices}
            write_atomically(self.path, (json.dumps(content, indent=1) + "\n").encode())


def check_name(name: str) -> str:
    """The name of a new voice, if it can be told from a file.

    Raises:
        SpeakerError: empty, over 64 bytes, or with characters that paths have.
    """
    if not name.isprintable() or not 1 <= len(name.encode()) <= 64 or set(name) & set("/\\."):
        raise SpeakerError(
            f"{name!r} cannot name a voice: use 1 to 64 printable characters without / \\ or ."
        )
    return name


def unknown_voice(name: str, known: Iterable[str] | Mapping[str, object]) -> SpeakerError:
    """The error for a voice that is neither named nor a file, with the nearest known names."""
    names = list(known)
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.3)
    listed = f"voices like it: {', '.join(near)}" if near else f"voices: {', '.join(names[:8])}"
    return SpeakerError(
        f"{name}: neither a voice nor a recording; {listed if names else 'there is no voice'} "
        "(vqcodec speakers lists all)"
    )
