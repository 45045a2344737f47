"""The lines of manifests, as their programs write them, and what they tell of recordings."""

from __future__ import annotations

import csv
import gzip
import io
import json
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any

from vqcodec.errors import DataError
from vqcodec.scale import storage

Item = dict[str, Any]
"""A file, and what is said of it."""

# What others call what we call so: manifests of NeMo and fairseq, columns of published data sets.
ALIASES = {
    "url": (
        "path",
        "audio",
        "audio_path",
        "audio_filepath",
        "file_name",
        "filename",
        "file",
        "wav",
    ),
    "name": ("name", "id", "utterance_id", "utt_id"),
    "speaker": ("speaker", "speaker_id", "spk_id", "client_id"),
    "text": ("text", "sentence", "transcription", "transcript", "normalized_text"),
}


def _csv_items(url: str) -> Iterator[Item]:
    reader = csv.DictReader(io.StringIO(storage.read(url).decode("utf-8-sig"), newline=""))
    yield from (_item(row, url, line) for line, row in enumerate(reader, 2))


def _tsv_items(url: str) -> Iterator[Item]:
    """Of fairseq: the folder, then a path below it and its number of samples on each line."""
    root, *lines = storage.read(url).decode().splitlines() or [""]
    if "\t" in root:
        raise DataError(
            f"{url}: does not begin with a folder, as lists of fairseq do; make a .csv of it with "
            "a column path, or vqcodec prepare commonvoice the folder of Common Voice"
        )
    for line in lines:
        path, _, n_samples = line.partition("\t")
        where = root if root.startswith("/") or "://" in root else storage.join(_folder(url), root)
        extra = {"n_frames": int(n_samples)} if n_samples.isdecimal() else {}
        yield {"url": storage.join(where, path), "name": stem_of(path), "extra": extra}


def json_lines(url: str) -> Iterator[Item]:
    """Of a manifest, or of Lhotse's cuts."""
    data = storage.read(url)
    text = (gzip.decompress(data) if url.endswith(".gz") else data).decode()
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            yield _cut(row, url) if "recording" in row else _item(row, url, number)
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            fault = f"{type(error).__name__}: {error}"
            raise DataError(
                f"{url}, line {number}: neither a recording nor a cut ({fault}); see "
                "encode-dataset --help"
            ) from None


MANIFEST_READERS: dict[str, Callable[[str], Iterator[Item]]] = {
    ".csv": _csv_items,
    ".tsv": _tsv_items,
    ".jsonl": json_lines,
}


def _item(row: dict[str, Any], url: str, line: int) -> Item:
    """Of a line of a manifest, as far as it is not empty."""
    found = {ours: told(row, ours) for ours in ALIASES}
    path, _ = found["url"]
    if not path:
        names = ", ".join(ALIASES["url"])
        raise DataError(f"{url}, line {line}: names no file; one of its columns is to be {names}")
    is_absolute = path.startswith("/") or "://" in path
    item: Item = {
        "url": path if is_absolute else storage.join(_folder(url), path),
        "name": found["name"][0] or stem_of(path),
        "speaker": found["speaker"][0],
        "text": found["text"][0],
    }
    if row.get("offset") not in (None, ""):  # of NeMo; a duration alone is that of the file
        try:
            start_s, duration_s = float(row["offset"]), float(row["duration"])
            if not math.isfinite(start_s + duration_s):
                raise ValueError
        except (LookupError, TypeError, ValueError):
            raise DataError(
                f"{url}, line {line}: an offset is seconds, and needs a duration in seconds"
            ) from None
        item |= {"start_s": start_s, "duration_s": duration_s}
        if not found["name"][0]:
            item["name"] += f"-{item['start_s']:.3f}"
    taken = {column for ours, (_, column) in found.items() if column in (ours, found["url"][1])}
    item["extra"] = {key: value for key, value in row.items() if key and key not in taken}
    return item


def told(row: Mapping[str, Any], ours: str) -> tuple[str, str]:
    """What a row tells of one of `ALIASES`, and in which column; "" where it tells nothing."""
    for column in ALIASES[ours]:
        if isinstance(value := row.get(column), str | int) and str(value):
            return str(value), column
    return "", ""


def _cut(row: dict[str, Any], url: str) -> Item:
    """Of one of Lhotse's cuts, which is kept as it is, too."""
    if row.get("type", "MonoCut") != "MonoCut":
        raise DataError(f"{url}: {row['id']} is a {row['type']}; save cuts of single recordings")
    recording = row["recording"]
    (source,) = recording["sources"]
    if source["type"] not in ("file", "url"):
        raise DataError(
            f"{url}: the sound of {row['id']} is of type {source['type']}; save it to files"
        )
    said = (row.get("supervisions") or [{}])[0]
    is_whole = row["start"] == 0 and abs(row["duration"] - recording["duration"]) < 1e-6
    many = len(recording.get("channel_ids") or source["channels"]) > 1
    path = source["source"]
    return {
        # As Lhotse reads it: a relative path is one below the working folder.
        "url": path if "://" in path else storage.absolute(path),
        "name": row["id"],
        "speaker": said.get("speaker") or "",
        "text": said.get("text") or "",
        "start_s": row["start"],
        "duration_s": None if is_whole else row["duration"],
        "channel": row["channel"] if many else None,
        "extra": {"cut": json.dumps(row)},
    }


def _folder(url: str) -> str:
    return url.rpartition("/")[0]


def stem_of(path: str) -> str:
    """What a file is called: its path without suffix, if that is one below its manifest."""
    bare = PurePosixPath(path).with_suffix("")
    return bare.name if bare.is_absolute() or ".." in bare.parts or "://" in path else str(bare)
