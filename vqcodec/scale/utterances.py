"""A source of any kind as a corpus to prepare: Lhotse's cuts, the folders of `datasets`, shards."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from vqcodec.audio.recording import AudioSource
from vqcodec.data.corpora import Utterance, hashed_split
from vqcodec.errors import DataError
from vqcodec.scale.listing import SPLIT_ALIASES, Part, list_source, split_in
from vqcodec.scale.part_reading import described, read_part
from vqcodec.scale.records import Record


def source_utterances(root: str | Path) -> list[Utterance]:
    """List a source as of `list_source`.

    The split is as of `told_split`, or by a hash of the name. Whoever is not named is a speaker of
    one recording. Names that several speakers' recordings have, as tables name them by files that
    lay in folders, begin with the speaker.

    Raises:
        DataError: as `list_source`, or a recording has no sound, or two of one speaker one name.
    """
    listing = list_source(str(root))
    found = [
        (part, place, record)
        for part in listing.parts
        for place, record in enumerate(_without_sounds(part))
    ]
    calls = Counter(record.name for _, _, record in found)
    found = [
        (part, place, replace(record, name=f"{record.speaker}/{record.name}"))
        if calls[record.name] > 1 and record.speaker
        else (part, place, record)
        for part, place, record in found
    ]
    for name, n_called in Counter(record.name for _, _, record in found).items():
        if n_called > 1:
            raise DataError(f"{root}: {n_called} recordings are called {name}; give them names")
    counts = Counter(record.speaker for _, _, record in found)
    return [
        _utterance(part, place, record, counts[record.speaker] if record.speaker else 1)
        for part, place, record in found
    ]


def told_split(part: Part, record: Record) -> str | None:
    """What a source says that a recording is for, or else the name of the file that it is in."""
    told = _told(record.extra).get("split")
    known = SPLIT_ALIASES.get(told) if isinstance(told, str) else None
    return known or named_split(part)


def _told(extra: Mapping[str, Any]) -> dict[str, Any]:
    """Columns, and what is told in the .json of a sample, in a cut's `custom`, or in ours."""
    members = extra.get("members")  # of a table, pairs; and there others may have such a column
    pairs = members.items() if isinstance(members, Mapping) else members
    held = {}
    for pair in pairs if isinstance(pairs, Iterable) else ():
        match pair:
            case (str(kind), bytes(data)):
                held[kind] = data
    custom = _object(_object(extra.get("cut")).get("custom"))
    return {
        **extra,
        **described(held),
        **_object(extra.get("extra") or custom.get("extra")),
        **custom,
    }


def _object(value: Any) -> dict[str, Any]:
    """What is an object, or JSON of one; else nothing."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            return {}
    return value if isinstance(value, dict) else {}


def named_split(part: Part) -> str | None:
    """The split that the file of a part is named for, as data sets of Hugging Face have it."""
    return None if part.kind == "files" else split_in(part.items[0]["name"])


def _without_sounds(part: Part) -> Iterator[Record]:
    for record in read_part(part):
        if record.sound is None:
            raise DataError(f"{record.name}: has no sound; take it out of the source")
        yield record


def _utterance(part: Part, place: int, record: Record, n_of_speaker: int) -> Utterance:
    assert record.sound is not None
    split = told_split(part, record) or hashed_split(record.name, n_of_speaker)
    is_held = record.sound.data is not None
    return Utterance(
        Path(record.name),
        record.name,
        record.speaker or record.name,
        split,
        record.text,
        sound=partial(_held, json.dumps(asdict(part)), place) if is_held else record.sound.source,
    )


def _held(part: str, place: int) -> AudioSource:
    """A sound that another file holds."""
    sound = _records(part)[place].sound
    assert sound is not None
    return sound.source()


@lru_cache(maxsize=1)  # they are asked for in their order
def _records(part: str) -> list[Record]:
    return list(read_part(Part(**json.loads(part))))
