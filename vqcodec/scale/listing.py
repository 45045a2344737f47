"""What a source holds, cut into parts that one process each works through.

The parts follow from the source alone: how many processes share them changes nothing.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any, Literal

from vqcodec.errors import DataError
from vqcodec.extras import library
from vqcodec.files import AUDIO_SUFFIXES
from vqcodec.scale import storage
from vqcodec.scale.code_columns import METADATA, Layout
from vqcodec.scale.dataset_files import PLAN, Content, data_files, read_plan
from vqcodec.scale.manifests import MANIFEST_READERS, Item, json_lines, stem_of

Kind = Literal["files", "parquet", "arrow", "tar", "shar"]

PART_SIZE = 200
"""Recordings of a part, where they are files; a row group and a tar archive are parts of theirs."""
_MANIFESTS = ("metadata.csv", "manifest.csv", "metadata.jsonl", "manifest.jsonl")
_SHAR = re.compile(r"cuts\.\d+\.jsonl(\.gz)?")
SPLIT_ALIASES = {
    "train": "train",
    "validation": "valid",
    "valid": "valid",
    "dev": "valid",
    "test": "test",
}
_SPLIT = re.compile(rf"(?:^|/)({'|'.join(SPLIT_ALIASES)})(?=[-_./0-9])")
_CONTAINERS: dict[str, Kind] = {".parquet": "parquet", ".arrow": "arrow", ".tar": "tar"}


@dataclass(frozen=True)
class Part:
    """What one process reads at a time; all of it can be written as JSON.

    Attributes:
        kind: of the source.
        items: files and what is said of them, or where in what container to look.
    """

    kind: Kind
    items: list[Item]


@dataclass(frozen=True)
class Listing:
    """What a source holds.

    Attributes:
        parts: in their order.
        extra: name -> Arrow type of what is told of recordings beside name, speaker and text.
        layout: of codes, where the source is a data set of them.
        content: of a data set that was made here.
    """

    parts: list[Part]
    extra: Mapping[str, Any]
    layout: Layout | None = None
    content: Content | None = None

    @property
    def digest(self) -> str:
        """Tells this source from others, wherever it lies."""
        items = [
            [
                {key: item[key] for key in item if key not in ("url", "folder")}
                for item in part.items
            ]
            for part in self.parts
        ]
        return hashlib.sha256(json.dumps(items).encode()).hexdigest()


def list_source(source: str, part_size: int = PART_SIZE) -> Listing:
    """Say what a source holds, in parts of `part_size` recordings.

    Args:
        source: path or URL of a folder, of recordings at any depth, of Parquet or Arrow files with
            their bytes or of WebDataset shards; of one of these files, or all that a * stands for;
            or of a manifest: .csv, .jsonl, fairseq's .tsv, Lhotse's cuts.
        part_size: recordings of a part.

    Raises:
        DataError: there is nothing there that is known, or a manifest has a fault.
    """
    try:
        with storage.reaching(source):
            return _listed(storage.absolute(source), part_size)
    except (OSError, EOFError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(
            f"{source}: cannot be read ({error}); check it and its permissions"
        ) from None


def _listed(source: str, part_size: int) -> Listing:
    name = PurePosixPath(source).name.lower().removesuffix(".gz")
    suffix = PurePosixPath(name).suffix
    is_pattern = storage.is_pattern(source)
    if not is_pattern and storage.is_file(source):
        if suffix in _CONTAINERS:
            return _containers({PurePosixPath(source).name: source}, _CONTAINERS[suffix], source)
        if suffix in MANIFEST_READERS:
            return _files(MANIFEST_READERS[suffix](source), source, part_size)
        if suffix in AUDIO_SUFFIXES:
            return _files([{"url": source}], source, part_size)
        raise DataError(
            f"{source}: is no source of recordings; name a folder or a .csv, .jsonl, .tsv, "
            ".parquet, .arrow or .tar file"
        )
    found = _matching(source) if is_pattern else storage.files_at(source)
    if PLAN in found:
        return _dataset(source, found, part_size)
    for manifest in _MANIFESTS:
        if manifest in found:
            return _listed(found[manifest], part_size)
    by_suffix = Counter(PurePosixPath(path).suffix.lower() for path in found)
    kinds = [ending for ending in _CONTAINERS if by_suffix[ending]]
    has_sounds = any(by_suffix[ending] for ending in AUDIO_SUFFIXES)
    if len(kinds) + has_sounds > 1:
        raise DataError(
            f"{source}: holds both {' and '.join([*kinds, *(['sound files'] * has_sounds)])}; name "
            f"one kind, as in {source}/*{kinds[0]}"
        )
    shar = [path for path in found if _SHAR.fullmatch(PurePosixPath(path).name)]
    if kinds == [".tar"] and shar:
        raise DataError(
            f"{source}: is Lhotse's Shar, whose archives do not tell who speaks; name the "
            f"cuts.jsonl.gz that it was made of, or, to go without, {source}/recording.*.tar"
        )
    if kinds:
        chosen = {path: url for path, url in found.items() if path.lower().endswith(kinds[0])}
        return _containers(chosen, _CONTAINERS[kinds[0]], source)
    if cuts := [url for path, url in found.items() if ".jsonl" in PurePosixPath(path).suffixes]:
        return _files([item for url in cuts for item in json_lines(url)], source, part_size)
    sounds = {
        path: url
        for path, url in found.items()
        if PurePosixPath(path).suffix.lower() in AUDIO_SUFFIXES
    }
    if not sounds:
        raise DataError(
            f"{source}: is not there, or holds no recordings; see encode-dataset --help"
        )
    return _files(_sound_items(sounds), source, part_size)


def _dataset(source: str, found: Mapping[str, str], part_size: int) -> Listing:
    """Of a data set that was made here."""
    plan = read_plan(source, found)
    content: Content = plan["content"]
    layout = Layout.of_json(plan["layout"]) if content == "codes" else None
    if plan["to"] != "lhotse":
        listing = _listed(storage.join(source, "data"), part_size)
        return replace(listing, content=content, layout=layout)
    parts = []
    for number in range(plan["n_parts"]):
        cuts, codes = (found[file] for file in data_files("lhotse", content, number))
        items = [{"url": cuts, "codes": codes, "layout": plan["layout"]}]
        parts.append(Part("shar", items))
    extra = {"extra": library("pyarrow").string()}
    return Listing(parts, extra, layout, content)


def _matching(pattern: str) -> dict[str, str]:
    """What a pattern stands for: its path below the last folder that has no * in it -> URL."""
    system, path = storage.opened(pattern)
    root = path[: path.rfind("/", 0, path.index("*")) + 1]
    # Only * is one for all; to fsspec ? and [ are, too.
    found = sorted(system.glob(re.sub(r"[?[]", r"[\g<0>]", path)))
    return {
        one[len(root) :]: one if storage.is_local(pattern) else system.unstrip_protocol(one)
        for one in found
    }


def _sound_items(sounds: Mapping[str, str]) -> Iterator[Item]:
    """Of a folder: names without suffixes where they differ, and the outer folder as speaker."""
    bare = Counter(str(PurePosixPath(path).with_suffix("")) for path in sounds)
    for path, url in sounds.items():
        short = str(PurePosixPath(path).with_suffix(""))
        outer, _, rest = path.partition("/")
        yield {
            "name": short if bare[short] == 1 else path,
            "url": url,
            "speaker": outer if rest else "",
        }


def _files(items: Iterable[Item], source: str, part_size: int) -> Listing:
    found = [{"name": stem_of(item["url"]), "speaker": "", "text": "", **item} for item in items]
    if not found:
        raise DataError(f"{source}: lists no recording")
    names = Counter(item["name"] for item in found)
    name, n_called = names.most_common(1)[0]
    if n_called > 1:
        raise DataError(f"{source}: {n_called} recordings are called {name}; give them names")
    rows = [item.get("extra", {}) for item in found]
    keys = dict.fromkeys(key for row in rows for key in row)
    types = {key: _type([row.get(key) for row in rows]) for key in keys}
    for item, row in zip(found, rows, strict=True):
        item["extra"] = {
            _kept(key): row.get(key) if kind else json.dumps(row.get(key))
            for key, kind in types.items()
        }
    starts = range(0, len(found), part_size)
    parts = [Part("files", found[start : start + part_size]) for start in starts]
    text = library("pyarrow").string()
    return Listing(parts, {_kept(key): kind or text for key, kind in types.items()})


def _type(values: list[Any]) -> Any:
    """The Arrow type that holds all values of a manifest's column; None where only JSON does."""
    pa = library("pyarrow")
    try:
        kind = pa.array(values).type
    except (pa.ArrowException, OverflowError):
        return None
    if pa.types.is_null(kind):
        return pa.string()
    return None if pa.types.is_nested(kind) else kind


RESERVED = (
    *("name", "speaker", "text", "duration", "codes", "units", "durations", "audio"),
    *("n_samples", "sample_rate", "gain", "voice", "pitch", "pitch_hz"),
)


def split_in(name: str) -> str | None:
    """The split, `train`, `valid` or `test`, that a file is named for; None if for none."""
    match = _SPLIT.search(name)
    return SPLIT_ALIASES[match[1]] if match else None


def _kept(column: str) -> str:
    """What a column of a source is called beside ours."""
    return f"source_{column}" if column in RESERVED else column


def _containers(urls: Mapping[str, str], kind: Kind, source: str) -> Listing:
    """Of files that hold several recordings each."""
    if kind == "tar":
        pa = library("pyarrow")
        parts = [Part("tar", [{"name": name, "url": url}]) for name, url in urls.items()]
        extra = {"members": pa.map_(pa.string(), pa.binary())}
        return Listing(parts, extra, _layout_in(parts))
    describe = _parquet_parts if kind == "parquet" else _arrow_parts
    with ThreadPoolExecutor(storage.READERS_AT_A_TIME) as pool:
        found = list(pool.map(lambda one: describe(*one), urls.items()))
    schemas = [schema for _, schema in found]
    if odd := [url for url, one in zip(urls, schemas, strict=True) if not one.equals(schemas[0])]:
        raise DataError(f"{source}: {odd[0]} has other columns than {next(iter(urls))}; part them")
    column = audio_column(schemas[0])
    extra = {
        _kept(one.name): one.type
        for one in schemas[0]
        if one.name not in (column, "name", "speaker", "text")
    }
    if any(map(split_in, urls)):
        extra.setdefault("split", library("pyarrow").string())
    layout = Layout.of_schema(schemas[0])
    if METADATA in (schemas[0].metadata or {}):
        extra = {one.name: one.type for one in schemas[0] if one.name not in RESERVED}
    elif column is None:
        raise DataError(
            f"{source}: has no column with the bytes of recordings; that of data sets of Hugging "
            "Face is called audio and holds bytes and path"
        )
    return Listing([part for parts, _ in found for part in parts], extra, layout)


def _layout_in(parts: list[Part]) -> Layout | None:
    """Of the codes of the first recording, if it has any."""
    from vqcodec.scale.part_reading import read_part

    for part in parts:
        with suppress(DataError):  # whoever works through the part tells of it
            for record in read_part(part):
                return None if record.codes is None else Layout.of_codes(record.codes())
    return None


def _parquet_parts(name: str, url: str) -> tuple[list[Part], Any]:
    pq = library("pyarrow.parquet")
    with storage.reading(url) as file:
        try:
            opened = pq.ParquetFile(file)
        except library("pyarrow").ArrowInvalid as error:
            raise DataError(f"{url}: is no Parquet file ({error}); remove it") from None
        items = [{**_table(name, url), "group": group} for group in range(opened.num_row_groups)]
        return [Part("parquet", [item]) for item in items], opened.schema_arrow


def _arrow_parts(name: str, url: str) -> tuple[list[Part], Any]:
    """Of the files that `datasets` saves to a disk."""
    pa = library("pyarrow")
    with storage.reading(url) as file:
        try:
            return [Part("arrow", [_table(name, url)])], pa.ipc.open_stream(file).schema
        except pa.ArrowInvalid as error:
            raise DataError(f"{url}: is no Arrow file ({error}); remove it") from None


def _table(name: str, url: str) -> Item:
    # Paths in its rows are relative to the working folder, as `datasets` has it: to that of whoever
    # lists them, since workers have folders of their own.
    return {"name": name, "url": url, "folder": os.getcwd()}


def audio_column(schema: Any) -> str | None:
    """The column that holds sound files: a struct with bytes, or `audio` if that is binary."""
    types = library("pyarrow").types
    for one in schema:
        if types.is_struct(one.type) and one.type.get_field_index("bytes") >= 0:
            return str(one.name)
    is_bytes = [
        one.name
        for one in schema
        if one.name == "audio" and (types.is_binary(one.type) or types.is_large_binary(one.type))
    ]
    return is_bytes[0] if is_bytes else None
