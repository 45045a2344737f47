"""Sources of recordings, as others write them, and what is read of a data set that was made."""

from __future__ import annotations

import hashlib
import io
import tarfile
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import soundfile
from recordings import RATE, spoken, write

from vqcodec.codec import Codec, load
from vqcodec.scale.code_columns import Layout
from vqcodec.scale.dataset_files import Content, SinkName
from vqcodec.scale.listing import Listing
from vqcodec.scale.pipeline import Cluster, Summary, run
from vqcodec.scale.sinks import Form
from vqcodec.scale.work import Job

CLIPS = {f"anna/a.{number}": spoken("slt", 0.2 * number, 0.2 * number + 0.6) for number in range(4)}
CLIPS |= {f"bea/{number}": spoken("rms", 0.2 * number, 0.2 * number + 0.5) for number in range(4)}


def audio_folder(root: Path) -> Path:
    """The clips by speaker, and one file that is none."""
    for name, samples in CLIPS.items():
        write(root / f"{name}.flac", samples)
    (root / "bea" / "broken.wav").write_bytes(b"no audio")
    return root


def sound_bytes(samples: Any) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, RATE, format="FLAC")
    return buffer.getvalue()


def tar_of(path: Path, members: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


def members_of(folder: Path) -> dict[str, bytes]:
    """What the archives of a data set hold."""
    found = {}
    for path in sorted(folder.glob("data/*.tar")):
        with tarfile.open(path) as tar:
            for member in tar:
                stream = tar.extractfile(member)
                assert stream is not None
                found[member.name] = stream.read()
    return found


def job_of(
    model: Path,
    sink: str | Path,
    listing: Listing,
    to: SinkName = "parquet",
    content: Content = "codes",
    **options: Any,
) -> Job:
    codec = codec_of(model)
    layout = listing.layout or Layout.of_model(codec.name, codec.fingerprint, codec.config)
    form = Form(str(sink), to, content, layout, listing.extra)
    return Job(form, str(model), **options)


def codec_of(model: Path) -> Codec:
    return load(model, voices=False)


def make(
    job: Job, listing: Listing, cluster: Cluster | None = None, progress: Any = None
) -> Summary:
    return run(job, listing, cluster or Cluster(jobs=1), progress or (lambda share: None))


def rows_of(folder: Path) -> list[dict[str, Any]]:
    return [
        row
        for path in sorted(folder.glob("data/*.parquet"))
        for row in pq.read_table(path).to_pylist()
    ]


def digest_of(folder: Path) -> dict[str, str]:
    """All files of a data set, but for locks."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name[0] != "."
    }
