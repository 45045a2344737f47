"""What is made of a part's recordings, as one file or two of a data set.

The same records give the same bytes, whoever writes them and however often.
"""

from __future__ import annotations

import base64
import gzip
import io
import json
import tarfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from vqcodec.audio import info
from vqcodec.errors import DataError
from vqcodec.extras import library
from vqcodec.scale import storage
from vqcodec.scale.code_columns import Layout
from vqcodec.scale.dataset_files import Content, SinkName, data_files
from vqcodec.scale.records import Record, key_of


@dataclass(frozen=True)
class Made:
    """What was made of a recording: a row as of `columns_by_content`, or a file."""

    columns: Mapping[str, Any]
    suffix: str
    data: Callable[[], bytes]


@dataclass(frozen=True)
class Form:
    """What all parts of a data set share.

    Attributes:
        sink: path or URL of its folder.
        to: kind of its files.
        content: of them.
        layout: of the codes that it has or was made of.
        extra: name -> Arrow type of what records tell beside name, speaker and text.
    """

    sink: str
    to: SinkName
    content: Content
    layout: Layout
    extra: Mapping[str, Any]


Add = Callable[[Record, Made], None]
"""Writes what was made of a recording, beside what was there."""


def columns_by_content(content: Content, has_pitch: bool) -> dict[str, Any]:
    """The columns of a table that is made, and their Arrow types."""
    pa = library("pyarrow")
    numbers = pa.list_(pa.uint16())
    if content == "sound":
        audio = pa.struct({"bytes": pa.binary(), "path": pa.string()})
        return {"duration": pa.float64(), "audio": audio}
    if content == "units":
        return {"duration": pa.float64(), "units": numbers, "durations": pa.list_(pa.int32())}
    pitch = {"pitch": numbers, "pitch_hz": pa.float32()} if has_pitch else {}
    return {
        "duration": pa.float64(),
        "codes": numbers,
        "n_samples": pa.int64(),
        "sample_rate": pa.int32(),
        "gain": pa.float32(),
        "voice": pa.binary(),
        **pitch,
    }


@contextmanager
def write_parquet(form: Form, number: int) -> Iterator[Add]:
    """A table: `load_dataset("parquet", data_files=...)` and whatever else reads Parquet."""
    rows: list[dict[str, Any]] = []
    yield lambda record, made: rows.append({**_said(record), **made.columns, **record.extra})
    pa = library("pyarrow")
    strings = dict.fromkeys(("name", "speaker", "text"), pa.string())
    own = columns_by_content(form.content, form.layout.pitch is not None)
    metadata = form.layout.metadata if form.content != "sound" else None
    schema = pa.schema({**strings, **own, **form.extra}, metadata)
    (url,) = _urls(form, number)
    with storage.writing(url) as path:
        table = pa.Table.from_pylist(rows, schema)
        library("pyarrow.parquet").write_table(table, path, compression="zstd")


@contextmanager
def write_webdataset(form: Form, number: int) -> Iterator[Add]:
    """A tar archive of files, those of a recording beside each other under its key."""
    keys: set[str] = set()

    def add(record: Record, made: Made) -> None:
        key, members = key_of(record.name), record.extra.get("members")
        if key in keys:
            raise DataError(f"{record.name}: another recording is called so; rename one")
        keys.add(key)
        if members is None:
            members = {"json": json.dumps({**_said(record), **plain(record.extra)}).encode()}
        sound = record.sound
        if sound is not None and sound.is_whole:
            is_member = "members" in record.extra
            suffix = sound.url[len(key) + 1 :] if is_member else sound.url.rpartition(".")[2]
            members = {suffix: sound.read(), **members}
        for suffix, data in {**members, made.suffix: made.data()}.items():
            add_member(tar, f"{key}.{suffix}", data)

    (url,) = _urls(form, number)
    with storage.writing(url) as path, tarfile.open(path, "w") as tar:
        yield add


def _said(record: Record) -> dict[str, str]:
    return {"name": record.name, "speaker": record.speaker, "text": record.text}


def _urls(form: Form, number: int) -> list[str]:
    return [storage.join(form.sink, file) for file in data_files(form.to, form.content, number)]


def add_member(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    """Append a file to an archive, of no date and nobody."""
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))


@contextmanager
def write_lhotse(form: Form, number: int) -> Iterator[Add]:
    """Lhotse's Shar: cuts, and an archive of their codes: `CutSet.from_shar(in_dir=...)`."""
    lines: list[bytes] = []

    def add(record: Record, made: Made) -> None:
        columns = dict(made.columns)
        array = np.asarray(columns.pop(form.content), np.uint16)
        if form.layout.n_codebooks > 1:
            array = array.reshape(-1, form.layout.n_codebooks)
        extra = dict(record.extra)
        given = extra.pop("cut", None)
        cut = json.loads(given) if given else _cut(record, columns["duration"])
        own = {"vqcodec": plain(columns), "extra": plain(extra)}
        cut["custom"] = {**(cut.get("custom") or {}), **own}
        lines.append(json.dumps(cut).encode() + b"\n")
        buffer = io.BytesIO()
        np.save(buffer, array, allow_pickle=False)
        add_member(arrays, f"{record.name}.npy", buffer.getvalue())
        held = {"storage_type": "shar", "storage_path": "", "storage_key": ""}
        manifest = {
            "array": {**held, "shape": array.shape},
            "temporal_dim": 0,
            "frame_shift": form.layout.hop_length / form.layout.sample_rate,
            "start": cut["start"],
        }
        add_member(arrays, f"{record.name}.json", json.dumps(manifest).encode())

    url, arrays_url = _urls(form, number)
    with storage.writing(arrays_url) as path, tarfile.open(path, "w") as arrays:
        yield add
    storage.write(url, gzip.compress(b"".join(lines), mtime=0))


def _cut(record: Record, duration_s: float) -> dict[str, Any]:
    """A cut of the whole of a recording, which it can load from a disk that has it."""
    span = {"start": 0.0, "duration": duration_s, "channel": 0}
    said = {"id": record.name, "recording_id": record.name, **span}
    said |= {"text": record.text, "speaker": record.speaker}
    cut = {"id": record.name, **span, "supervisions": [said], "type": "MonoCut"}
    sound = record.sound
    if sound and sound.data is None and storage.is_local(sound.url):
        path = storage.absolute(sound.url)
        about = info(path)
        channels = list(range(about.channels))
        cut |= {
            "start": sound.start_s,
            "channel": sound.channel or 0,
            "recording": {
                "id": record.name,
                "sources": [{"type": "file", "channels": channels, "source": path}],
                "sampling_rate": about.sample_rate,
                "num_samples": about.n_samples,
                "duration": about.duration_s,
                "channel_ids": channels,
            },
        }
    return cut


@contextmanager
def write_folder(form: Form, number: int) -> Iterator[Add]:
    """A file for each recording."""

    def add(record: Record, made: Made) -> None:
        name = str(PurePosixPath("/", record.name)).removeprefix("/")
        storage.write(storage.join(form.sink, "data", f"{name}.{made.suffix}"), made.data())

    yield add


# A part is there once the block has succeeded, and otherwise is as it was.
SINKS: dict[SinkName, Callable[[Form, int], AbstractContextManager[Add]]] = {
    "parquet": write_parquet,
    "webdataset": write_webdataset,
    "lhotse": write_lhotse,
    "folder": write_folder,
}


def plain(value: Any) -> Any:
    """A value as JSON has it, bytes in base64."""
    if isinstance(value, Mapping):
        return {str(key): plain(own) for key, own in value.items()}
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, list | tuple):
        return [plain(own) for own in value]
    return value if isinstance(value, str | int | float | None) else str(value)
