"""Voices: named speaker vectors, what is known of them, and files that keep enrolled ones."""

from __future__ import annotations

import base64
import binascii
import difflib
import importlib.resources
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from vqcodec.errors import SpeakerError
from vqcodec.files import write_atomically
from vqcodec.weights import registry

FORMAT, VERSION = "vqcodec-voices", 1
VECTOR_LENGTH = 64
PATIENCE_S = 10.0
PITCHES = "pitch_hz"  # of the voices of a model by their names, in its provenance


@dataclass(frozen=True)
class VoiceInfo:
    """What is known of a voice; None where it is not.

    Attributes:
        sex: `female` or `male`.
        pitch_hz: median fundamental frequency of its voiced frames.
        accent: of English.
        seconds: of sound in the recordings that it was made of.
        source: what these were.
    """

    sex: str | None = None
    pitch_hz: float | None = None
    accent: str | None = None
    seconds: float | None = None
    source: str | None = None

    def __str__(self) -> str:
        pitch = None if self.pitch_hz is None else f"{self.pitch_hz:.0f} Hz"
        seconds = None if self.seconds is None else f"{self.seconds:.0f} s"
        known = (self.sex, pitch, seconds, self.source, self.accent)
        return ", ".join(part for part in known if part is not None)


@dataclass(frozen=True, eq=False, repr=False)
class Speaker:
    """Who speaks.

    Attributes:
        vector: (64,) int8, the stored form of a model's speaker vector.
        name: of the voice, or None for one that is known only from a recording.
        info: what is known of the voice.
        fingerprint: of the model whose vector it is; None where that is not known.
    """

    vector: np.ndarray
    name: str | None = None
    info: VoiceInfo = VoiceInfo()
    fingerprint: bytes | None = None

    def __repr__(self) -> str:
        known = f": {self.info}" if str(self.info) else ""
        return f"<Speaker {self.name or 'of a recording'}{known}>"


@dataclass(frozen=True)
class _Entry:
    """A voice of a file, and what it was called before."""

    speaker: Speaker
    formerly: tuple[str, ...] = ()


_Entries = dict[tuple[str, str], _Entry]  # by model, as hexadecimal digits, and name


class VoicesFile:
    """Enrolled voices, each tied to the model whose speaker encoder made it. A JSON file.

    Args:
        path: need not exist yet.

    Raises:
        SpeakerError: it exists and is not a voices file.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._entries: _Entries = {}
        try:
            if not self.path.exists():
                return
            content = json.loads(self.path.read_text(encoding="utf-8"))
            if content["format"] != FORMAT or content["version"] > VERSION:
                raise ValueError(f"format {content['format']} {content['version']}")
            for voice in content["voices"]:
                entry = _from_json(voice)
                self._entries[voice["model"], voice["name"]] = entry
        except (
            *(OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError),
            *(binascii.Error, SpeakerError),
        ) as error:
            raise SpeakerError(
                f"{self.path}: not a readable voices file ({error}): move it away and enroll again"
            ) from None

    def voices(self, fingerprint: bytes) -> dict[str, Speaker]:
        """Name -> voice of those enrolled for a model."""
        return {
            name: entry.speaker
            for (model, name), entry in self._entries.items()
            if model == fingerprint.hex()
        }

    def models(self, name: str) -> list[bytes]:
        """Fingerprints of the models for which a voice of this name is enrolled."""
        return [bytes.fromhex(model) for model, other in self._entries if other == name]

    def names(self) -> list[str]:
        """Of all enrolled voices."""
        return sorted({name for _, name in self._entries})

    def renamed(self, fingerprint: bytes, name: str) -> str | None:
        """What a model's voice is called that once had this name; None if there is none."""
        for (model, now), entry in self._entries.items():
            if model == fingerprint.hex() and name in entry.formerly:
                return now
        return None

    def add(self, fingerprint: bytes, voice: Speaker) -> None:
        """Add or replace a named voice and write the file; what others add, even meanwhile, stays.

        The model whose speaker encoder made it has this fingerprint. Raises SpeakerError if the
        name is none, or another process keeps the file locked, and OSError if it cannot be written.
        """
        check_name(voice.name or "")
        with self._rewritten() as entries:
            _give(entries, fingerprint.hex(), _Entry(voice))

    def remove(self, name: str, models: Iterable[bytes]) -> None:
        """Remove the voice of this name from those of some models, and write the file.

        Errors are as of `add`; a SpeakerError also if one of the models has no such voice.
        """
        with self._rewritten() as entries:
            for fingerprint in models:
                self._take(entries, fingerprint.hex(), name)

    def rename(self, old: str, new: str, models: Iterable[bytes]) -> None:
        """Rename the voice of some models, and write the file, which remembers the old name.

        Errors are as of `remove`; a SpeakerError also if the new name is taken.
        """
        check_name(new)
        with self._rewritten() as entries:
            for model in (fingerprint.hex() for fingerprint in models):
                if (model, new) in entries:
                    raise SpeakerError(f"{new}: is a voice already; choose another name")
                entry = self._take(entries, model, old)
                voice = replace(entry.speaker, name=new)
                _give(entries, model, _Entry(voice, (*entry.formerly, old)))

    def _take(self, entries: _Entries, model: str, name: str) -> _Entry:
        try:
            return entries.pop((model, name))
        except KeyError:
            raise SpeakerError(f"{name}: is no voice in {self.path}") from None

    @contextmanager
    def _rewritten(self) -> Iterator[_Entries]:
        """What is in the file now, for the block to change; then it is written."""
        from filelock import FileLock, Timeout  # whoever only reads does without

        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(self.path.with_name(f".{self.path.name}.lock"), timeout=PATIENCE_S):
                entries = VoicesFile(self.path)._entries
                yield entries
                voices = [_to_json(model, entries[model, name]) for model, name in sorted(entries)]
                content = {"format": FORMAT, "version": VERSION, "voices": voices}
                write_atomically(self.path, (json.dumps(content, indent=1) + "\n").encode())
        except Timeout:
            raise SpeakerError(
                f"{self.path}: another process keeps it locked, {PATIENCE_S:.0f} s by now: try "
                "again when that has ended"
            ) from None
        self._entries = entries


def _give(entries: _Entries, model: str, entry: _Entry) -> None:
    """Add a voice; its name is no other one's former name any more."""
    name = entry.speaker.name or ""
    entries[model, name] = entry
    for key, other in entries.items():
        if key[0] == model and name in other.formerly:
            entries[key] = replace(other, formerly=tuple(n for n in other.formerly if n != name))


def _to_json(model: str, entry: _Entry) -> dict[str, Any]:
    voice = entry.speaker
    known = {key: value for key, value in asdict(voice.info).items() if value is not None}
    if entry.formerly:
        known["formerly"] = list(entry.formerly)
    vector = base64.b64encode(voice.vector.tobytes()).decode()
    return {"model": model, "name": voice.name, "vector": vector, **known}


def _from_json(voice: Any) -> _Entry:
    """What `_to_json` wrote, or older versions, which said nothing but model, name and vector."""
    name, formerly = check_name(voice["name"]), tuple(map(check_name, voice.get("formerly", [])))
    bytes.fromhex(voice["model"])
    vector = np.frombuffer(base64.b64decode(voice["vector"], validate=True), np.int8)
    if len(vector) != VECTOR_LENGTH:
        raise ValueError(f"voice {name!r} has {len(vector)} values, not {VECTOR_LENGTH}")
    return _Entry(Speaker(vector, name, _info(voice)), formerly)


def _info(known: Mapping[str, Any]) -> VoiceInfo:
    """What a JSON object says of a voice; ValueError or TypeError if that is impossible."""
    words = {key: known.get(key) for key in ("sex", "accent", "source")}
    for word in words.values():
        if word is not None and not word.isprintable():
            raise ValueError(f"{word!r} cannot be printed")
    pitch, seconds = (
        None if known.get(key) is None else float(known[key]) for key in ("pitch_hz", "seconds")
    )
    return VoiceInfo(**words, pitch_hz=pitch, seconds=seconds)


@cache
def packaged_info() -> Mapping[str, VoiceInfo]:
    """Name -> what is known of the voices of the packaged models, which have the same ones."""
    file = importlib.resources.files("vqcodec.weights") / "voices.json"
    return {name: _info(known) for name, known in json.loads(file.read_text("utf-8")).items()}


def voice_info(provenance: Mapping[str, Any], fingerprint: bytes) -> dict[str, VoiceInfo]:
    """Name -> what is known of the voices of a model, by its provenance and fingerprint."""
    pitches = provenance.get(PITCHES, {})
    known = {name: VoiceInfo(pitch_hz=float(hertz)) for name, hertz in pitches.items()}
    return known | dict(packaged_info() if registry.maker(fingerprint) else {})


def default_path() -> Path:
    """Where enrolled voices are kept: `voices.json` in the user's settings folder for vqcodec."""
    from typer import get_app_dir  # not before it is asked for: it takes a while to import

    return Path(get_app_dir("vqcodec"), "voices.json")


def model_names(models: Iterable[bytes]) -> list[str]:
    """What to call models of these fingerprints."""
    return [registry.maker(model) or f"a model of your own ({model.hex()})" for model in models]


def models_with(name: str, enrolled: VoicesFile | None) -> list[str]:
    """What to call the models, packaged or in a file, that have a voice of this name."""
    headers = [registry.read_header(path) for path in registry.packaged().values()]
    found = [header.name for header in headers if name in header.voices]
    found += model_names([] if enrolled is None else enrolled.models(name))
    return list(dict.fromkeys(found))


def check_name(name: str) -> str:
    """The name of a new voice, if it can be told from a file.

    Raises SpeakerError if it is empty, over 64 bytes, or has characters that paths have.
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
