"""The recordings of a part, one after another."""

from __future__ import annotations

import gzip
import io
import json
import os
import re
import tarfile
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from vqcodec.errors import DataError
from vqcodec.extras import library
from vqcodec.files import AUDIO_SUFFIXES
from vqcodec.format.codes import Codes
from vqcodec.scale import storage
from vqcodec.scale.code_columns import METADATA, Layout, codes_of
from vqcodec.scale.listing import RESERVED, Part, audio_column, split_in
from vqcodec.scale.manifests import Item, told
from vqcodec.scale.records import Record, Sound, key_of

# As webdataset parts names: folders may have dots, and what follows the first one of the file's
# name is what it holds.
KEY = re.compile(r"((?:.*/)?[^./][^./]*)\.([^/]*)")


def read_part(part: Part) -> Iterator[Record]:
    """The recordings of a part; sounds are not looked at yet.

    Raises DataError if what holds them is damaged, after what was before; OSError if it cannot be
    read.
    """
    for item in part.items:
        yield from _READERS[part.kind](item)


def _read_file(item: Item) -> Iterator[Record]:
    names = ("start_s", "duration_s", "channel")
    sound = Sound(item["url"], **{name: item[name] for name in names if name in item})
    yield Record(item["name"], item["speaker"], item["text"], sound, extra=item["extra"])


def _read_parquet(item: Item) -> Iterator[Record]:
    pa = library("pyarrow")
    with storage.reading(item["url"]) as file:
        try:
            table = library("pyarrow.parquet").ParquetFile(file).read_row_group(item["group"])
        except pa.ArrowException as error:
            raise _damaged(item, error) from None
    yield from _rows(table, item, f"{_bare(item)}-{item['group']}")


def _read_arrow(item: Item) -> Iterator[Record]:
    pa = library("pyarrow")
    with storage.reading(item["url"]) as file:
        try:
            for number, batch in enumerate(pa.ipc.open_stream(file)):
                yield from _rows(batch, item, f"{_bare(item)}-{number}")
        except pa.ArrowException as error:
            raise _damaged(item, error) from None


def _rows(table: Any, item: Item, place: str) -> Iterator[Record]:
    """Of a table or a batch of rows, which are called by their place if by nothing else."""
    layout = Layout.of_schema(table.schema)
    has_units = METADATA in (table.schema.metadata or {}) and layout is None
    column = None if layout or has_units else audio_column(table.schema)
    for number, row in enumerate(table.to_pylist()):
        given = {key: told(row, key)[0] for key in ("name", "speaker", "text")}
        if layout or has_units:
            yield Record(
                **{key: row[key] for key in ("name", "speaker", "text")},
                codes=partial(codes_of, row, layout) if layout else None,
                units=_units(row) if has_units else None,
                extra={key: value for key, value in row.items() if key not in RESERVED},
            )
            continue
        assert column is not None
        held = row.pop(column)
        data, path = (
            (held, "")
            if isinstance(held, bytes | None)
            else (held["bytes"], held.get("path") or "")
        )
        name = given["name"] or PurePosixPath(path).stem or f"{place}-{number}"
        if data:
            sound = Sound(path or name, data)
        elif path and "://" not in path:
            sound = Sound(os.path.join(item["folder"], path))
        else:
            sound = Sound(path)
        extra = {
            f"source_{key}" if key in RESERVED else key: value
            for key, value in row.items()
            if key not in ("name", "speaker", "text")
        }
        if split := split_in(item["name"]):
            extra.setdefault("split", split)
        yield Record(name, given["speaker"], given["text"], sound, extra=extra)


def _units(row: Mapping[str, Any]) -> np.ndarray:
    units = np.asarray(row["units"], np.int64)
    return units if row["durations"] is None else np.stack([units, row["durations"]])


def _read_tar(item: Item) -> Iterator[Record]:
    with storage.reading(item["url"]) as file:
        try:
            for key, members in samples(file):
                yield _sample(key, members, item)
        except (tarfile.TarError, EOFError) as error:
            raise _damaged(item, error) from None


def samples(file: Any) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Of a WebDataset shard: keys, and what each has by the rest of its names."""
    key, members = "", dict[str, bytes]()
    with tarfile.open(fileobj=file, mode="r|*") as tar:
        for member in tar:
            match = KEY.fullmatch(member.name)
            if match is None or not member.isfile():
                continue  # as webdataset does: a folder, or a file without a suffix
            if match[1] != key and members:
                yield key, members
                members = {}
            key = match[1]
            if match[2] in members:
                raise tarfile.TarError(f"{member.name} comes twice")
            members[match[2]] = _content(tar, member)
    if members:
        yield key, members


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    stream = tar.extractfile(member)
    assert stream is not None
    return stream.read()


def _sample(key: str, members: Mapping[str, bytes], item: Item) -> Record:
    row = described(members)
    said = {key: told(row, key)[0] for key in ("name", "speaker", "text")}
    text = said["text"] or next(
        (
            data.decode(errors="replace").strip()
            for kind, data in members.items()
            if kind.lower() == "txt"
        ),
        "",
    )
    data = members.get("codes")
    codes = None if data is None else partial(Codes.from_bytes, data, f"{item['name']}: {key}")
    sounds = [kind for kind in members if f".{kind.rpartition('.')[2].lower()}" in AUDIO_SUFFIXES]
    sound = Sound(f"{key}.{sounds[0]}", members[sounds[0]]) if len(sounds) == 1 else None
    others = {kind: data for kind, data in members.items() if sound is None or kind != sounds[0]}
    # A key that had to be changed tells so beside it.
    name = said["name"] if key_of(said["name"]) == key else key
    array = members.get("units.npy")
    units = None if array is None or codes else np.load(io.BytesIO(array))
    return Record(name, said["speaker"], text, sound, codes, units, {"members": others})


def described(members: Mapping[str, bytes]) -> dict[str, Any]:
    """What the .json of a sample tells."""
    row: Any = {}
    for kind, data in members.items():
        if kind.lower() == "json":
            try:
                row = json.loads(data)
            except ValueError:
                row = {}
    return row if isinstance(row, dict) else {}


def _read_shar(item: Item) -> Iterator[Record]:
    """Of the cuts that `sinks.write_lhotse` writes, and the archive of their codes."""
    layout = Layout.of_json(item["layout"])
    cuts = gzip.decompress(storage.read(item["url"])).decode().splitlines()
    with storage.reading(item["codes"]) as file, tarfile.open(fileobj=file) as tar:
        arrays = [_content(tar, one) for one in tar if one.name.endswith(".npy")]
    for line, data in zip(cuts, arrays, strict=True):
        cut, array = json.loads(line), np.load(io.BytesIO(data))
        said, custom = cut["supervisions"][0], cut["custom"]
        row = {**custom["vqcodec"], "codes": array, "speaker": said["speaker"]}
        yield Record(
            cut["id"],
            said["speaker"],
            said["text"],
            codes=partial(codes_of, row, layout) if "voice" in row else None,
            units=None if "voice" in row else array.astype(np.int64),
            extra={"extra": json.dumps(custom["extra"])},
        )


_READERS: dict[str, Callable[[Item], Iterator[Record]]] = {
    "files": _read_file,
    "parquet": _read_parquet,
    "arrow": _read_arrow,
    "tar": _read_tar,
    "shar": _read_shar,
}


def _bare(item: Item) -> str:
    return str(PurePosixPath(item["name"]).with_suffix(""))


def _damaged(item: Item, error: Exception) -> DataError:
    return DataError(f"{item['url']}: is damaged ({error}); copy it again")
