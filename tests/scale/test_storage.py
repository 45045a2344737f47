"""A bucket on this machine serves as a disk does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from scale_data import CLIPS, audio_folder, digest_of, job_of, make

from vqcodec.errors import DataError
from vqcodec.scale import storage
from vqcodec.scale.listing import list_source


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """An S3 server on the loopback, with a bucket."""
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "test")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        boto3.client("s3").create_bucket(Bucket="speech")
        yield "s3://speech"
    server.stop()


def test_from_a_bucket_to_a_bucket(bucket: str, packaged: Path, tmp_path: Path) -> None:
    folder = audio_folder(tmp_path / "in")
    for path in folder.rglob("*.*"):
        storage.write(f"{bucket}/in/{path.relative_to(folder)}", path.read_bytes())
    listing = list_source(f"{bucket}/in", 3)
    job = job_of(packaged, f"{bucket}/out", listing)
    assert make(job, listing).n == len(CLIPS)
    system, _ = storage.opened(bucket)
    system.rm("speech/out/data/000001.parquet")
    with pytest.raises(DataError, match="lacks 1 of 3 parts"):
        list_source(f"{bucket}/out")
    assert make(job, listing).n_made == 1
    system.get("speech/out", str(tmp_path / "copy"), recursive=True)

    here = list_source(str(folder), 3)
    make(job_of(packaged, tmp_path / "out", here), here)
    copy, own = digest_of(tmp_path / "copy"), digest_of(tmp_path / "out")
    data = {name for name in own if name.startswith("data/")}
    assert {name: copy[name] for name in data} == {name: own[name] for name in data}
    # And sound again, out of the bucket.
    codes = list_source(f"{bucket}/out")
    sound = job_of(packaged, tmp_path / "sound", codes, "folder", "sound")
    assert make(sound, codes).n == len(CLIPS)


def test_a_file_is_whole_or_as_it_was(bucket: str, tmp_path: Path) -> None:
    for url in (f"{bucket}/whole", str(tmp_path / "whole")):
        storage.write(url, b"before")
        with pytest.raises(FileNotFoundError), storage.writing(url) as path:
            path.write_bytes(Path("half", "that is not there").read_bytes())
        assert storage.read(url) == b"before"


def test_what_a_storage_raises_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(url: str) -> bool:
        raise RuntimeError("no credentials")

    monkeypatch.setattr(storage, "is_file", refuse)
    with pytest.raises(DataError, match=r"s3://a/b: cannot be reached \(RuntimeError: no cred"):
        list_source("s3://a/b")
    with pytest.raises(RuntimeError):
        list_source("here")


def test_a_bucket_that_is_not_there_is_named(bucket: str, packaged: Path, tmp_path: Path) -> None:
    listing = list_source(str(audio_folder(tmp_path / "in")))
    told = r"s3://nobody/out: cannot be reached \(FileNotFoundError: .* bucket does not exist\)"
    with pytest.raises(DataError, match=told):
        make(job_of(packaged, "s3://nobody/out", listing), listing)
    with pytest.raises(DataError, match=r"s3://nobody/in: .* bucket does not exist"):
        list_source("s3://nobody/in")


def test_what_a_bucket_raises_at_the_end_is_one_line(
    bucket: str, packaged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(url: str, value: Any) -> None:
        if url.endswith("complete.json"):
            raise RuntimeError("no credentials")
        write_json(url, value)

    write_json, listing = storage.write_json, list_source(str(audio_folder(tmp_path / "in")))
    monkeypatch.setattr(storage, "write_json", refuse)
    with pytest.raises(DataError, match=r"s3://speech/end: cannot be reached \(RuntimeError: no c"):
        make(job_of(packaged, f"{bucket}/end", listing), listing)
