"""A prepared corpus: one file of mono 16-bit audio to be mapped into memory, and its index.

A prepared folder holds ``audio.i16`` (little-endian int16, the clips one after another),
``clips.jsonl`` (a line for each clip), ``failed.jsonl`` (a line for each recording that could not
be read) and ``dataset.json``. The last is written last: without it the folder is the
remains of an interrupted preparation, which the next one continues.
"""

from __future__ import annotations

import hashlib
import json
import logging
import multiprocessing
import os
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

import numpy as np
from pydantic import Field, TypeAdapter, ValidationError

from vqcodec import audio
from vqcodec.audio.recording import AudioSource
from vqcodec.audio.writing import to_int16
from vqcodec.data.clips import AudioClips, Clip
from vqcodec.data.corpora import Utterance
from vqcodec.errors import AudioError, DataError
from vqcodec.files import claim, write_atomically

_FORMAT = "vqcodec-prepared"
_VERSION = 1
_BLOCK_LENGTH = 1 << 20  # samples

_logger = logging.getLogger(__name__)
_Line = TypeVar("_Line", "Clip", "Failure")


@dataclass(frozen=True)
class Failure:
    """A recording that was left out, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class _Dataset:
    """What ``dataset.json`` must say."""

    format: str
    version: int
    sample_rate: Annotated[int, Field(gt=0)]
    n_samples: int
    n_clips: int
    corpus: str
    utterances: str = ""


class PreparedData(AudioClips):
    """A prepared folder, opened for reading, and the `failures` that were left out of it.

    Raises DataError if it is missing, incomplete, damaged or from a newer vqcodec.
    """

    def __init__(self, root: str | Path) -> None:
        root = Path(root)
        dataset = _read_dataset(root)
        clips: list[Clip] = _read_lines(root / "clips.jsonl", Clip)
        self.failures: list[Failure] = _read_lines(root / "failed.jsonl", Failure)
        end = 0
        for clip in clips:
            if clip.start != end:
                raise _damaged(root / "clips.jsonl", f"{clip.name} does not start at {end}")
            end += clip.n_samples
        if (len(clips), end) != (dataset.n_clips, dataset.n_samples):
            raise _damaged(
                root / "clips.jsonl",
                f"{len(clips)} clips of {end} samples, "
                f"where dataset.json says {dataset.n_clips} of {dataset.n_samples}",
            )
        path = root / "audio.i16"
        size = path.stat().st_size if path.is_file() else 0
        if size != 2 * end:
            raise _damaged(path, f"{size} bytes, where dataset.json says {2 * end}")
        audio = np.memmap(path, dtype="<i2", mode="r")
        super().__init__(root, dataset.sample_rate, dataset.corpus, clips, audio)


def prepare(
    utterances: Sequence[Utterance],
    output: str | Path,
    *,
    sample_rate: int = 16000,
    jobs: int = 1,
    corpus: str,
    on_progress: Callable[[int, int], None] | None = None,
) -> PreparedData:
    """Convert a corpus to a prepared folder; the bytes do not depend on the number of jobs.

    An interrupted preparation goes on where it stopped, and a complete one returns at once.
    Samples beyond full scale saturate. Recordings that cannot be read are left out, logged, and
    listed in `PreparedData.failures`.

    Args:
        utterances: What to prepare, as a function of `vqcodec.data.corpora` lists it.
        output: The folder to write.
        sample_rate: Of the prepared audio, in Hz.
        jobs: Number of processes that read recordings; with more than one, the calling script
            needs the usual ``if __name__ == "__main__"``.
        corpus: What to call the corpus.
        on_progress: Called after each utterance with the number done and the number of all.

    Raises:
        DataError: No recording can be read, the folder holds other data or is damaged, or it
            cannot be written.
        VqcodecError: Another process is preparing the folder.
    """
    output = Path(output)
    request = {
        "format": _FORMAT,
        "version": _VERSION,
        "sample_rate": sample_rate,
        "corpus": corpus,
        "utterances": _digest(utterances),
    }
    try:
        if not _is_complete(output, request):
            with claim(output, "preparing a corpus"):
                n_done = _resume(output, utterances, request)
                _convert(utterances, output, sample_rate, jobs, n_done, on_progress)
                _finish(output, request)
    except OSError as error:
        reason = error.strerror or error
        raise DataError(
            f"{output}: cannot be written ({reason}); mend that and run it again, it continues"
        ) from error
    except BrokenProcessPool as error:
        raise DataError(
            f"{output}: a process died while reading recordings, likely for lack of memory; "
            "run it again with fewer jobs, it continues"
        ) from error
    return PreparedData(output)


def _digest(utterances: Sequence[Utterance]) -> str:
    # Paths are left out, so that a corpus may be moved.
    fields = [(u.name, u.speaker, u.split, u.text) for u in utterances]
    return hashlib.sha256(json.dumps(fields).encode()).hexdigest()


def _is_complete(output: Path, request: dict[str, Any]) -> bool:
    if not (output / "dataset.json").is_file():
        return False
    found = asdict(_read_dataset(output))
    if {key: found[key] for key in request} != request:
        raise _other_data(output)
    return True


def _resume(output: Path, utterances: Sequence[Utterance], request: dict[str, Any]) -> int:
    """Cut an interrupted preparation after its last whole clip; returns how many are done."""
    request_path = output / "dataset.json.part"
    clips_path = output / "clips.jsonl"
    if not request_path.is_file():
        for path in (clips_path, output / "failed.jsonl"):
            path.unlink(missing_ok=True)
        (output / "audio.i16").write_bytes(b"")
        write_atomically(request_path, json.dumps(request).encode())
        return 0
    if request_path.read_text(encoding="utf-8") != json.dumps(request):
        raise _other_data(output)
    clips = _read_lines(clips_path, Clip, interrupted=True)
    failures = _read_lines(output / "failed.jsonl", Failure, interrupted=True)
    n_stored = (output / "audio.i16").stat().st_size // 2
    while clips and clips[-1].start + clips[-1].n_samples > n_stored:
        clips.pop()
    # Failures after the last whole clip are found again.
    names = [utterance.name for utterance in utterances]
    n_done = names.index(clips[-1].name) + 1 if clips else 0
    done = set(names[:n_done])
    write_atomically(clips_path, "".join(map(_line, clips)).encode())
    write_atomically(
        output / "failed.jsonl", "".join(_line(f) for f in failures if f.name in done).encode()
    )
    os.truncate(output / "audio.i16", 2 * (clips[-1].start + clips[-1].n_samples) if clips else 0)
    return n_done


def _convert(
    utterances: Sequence[Utterance],
    output: Path,
    sample_rate: int,
    jobs: int,
    n_done: int,
    on_progress: Callable[[int, int], None] | None,
) -> None:
    """Append all utterances from the given one on; a clip's line follows its audio."""
    with (
        (output / "audio.i16").open("ab") as samples_file,
        (output / "clips.jsonl").open("a", encoding="utf-8") as clips_file,
        (output / "failed.jsonl").open("a", encoding="utf-8") as failures_file,
        closing(
            _read_all([u.sound or u.path for u in utterances[n_done:]], sample_rate, jobs)
        ) as results,
    ):
        start = samples_file.tell() // 2
        for index, result in enumerate(results, n_done):
            if isinstance(result, AudioError):
                failures_file.write(_line(Failure(utterances[index].name, str(result))))
                failures_file.flush()
            else:
                samples, gain = result
                u = utterances[index]
                clip = Clip(u.name, u.speaker, u.split, start, len(samples), gain, u.text)
                samples_file.write(samples.tobytes())
                samples_file.flush()
                clips_file.write(_line(clip))
                clips_file.flush()
                start += clip.n_samples
            if on_progress is not None:
                on_progress(index + 1, len(utterances))


def _finish(output: Path, request: dict[str, Any]) -> None:
    clips = _read_lines(output / "clips.jsonl", Clip)
    failures = _read_lines(output / "failed.jsonl", Failure)
    if not clips:
        first = failures[0].reason if failures else "the corpus is empty"
        raise DataError(f"{output}: no recording could be read; the first: {first}")
    for failure in failures:
        _logger.warning("left out %s", failure.reason)
    if failures:
        n_utterances = len(clips) + len(failures)
        _logger.warning("%d of %d recordings were left out", len(failures), n_utterances)
    n_samples = clips[-1].start + clips[-1].n_samples
    dataset = {**request, "n_samples": n_samples, "n_clips": len(clips)}
    write_atomically(output / "dataset.json", (json.dumps(dataset, indent=2) + "\n").encode())
    (output / "dataset.json.part").unlink()


def _read_all(
    sources: Sequence[Path | Callable[[], AudioSource]], sample_rate: int, jobs: int
) -> Generator[tuple[np.ndarray, float] | AudioError, None, None]:
    """Read recordings, in order, in this process or in several."""
    if jobs == 1:
        yield from (read_recording(source, sample_rate) for source in sources)
        return
    # A fork of a process with threads, which torch may have started, can hang.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context) as executor:
        pending: deque[Future[tuple[np.ndarray, float] | AudioError]] = deque()
        for source in sources:
            pending.append(executor.submit(read_recording, source, sample_rate))
            # Results that wait for an earlier, longer recording must not fill the memory.
            if len(pending) == 4 * jobs:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


def read_recording(
    source: AudioSource | Callable[[], AudioSource], sample_rate: int
) -> tuple[np.ndarray, float] | AudioError:
    """Read a recording as int16 with its gain; an error is returned, to be reported in order."""
    try:
        recording = audio.open_recording(source() if callable(source) else source)
        gain = recording.gain()
        blocks = recording.speech(sample_rate, _BLOCK_LENGTH, gain)
        return np.concatenate([to_int16(block) for block in blocks]), gain
    except AudioError as error:
        return error


def _read_dataset(root: Path) -> _Dataset:
    path = root / "dataset.json"
    if not path.is_file():
        fault = "not a prepared folder" if root.is_dir() else "no such folder"
        if (root / "dataset.json.part").is_file():
            fault = "its preparation is not finished"
        raise DataError(f"{root}: {fault}; run vqcodec prepare")
    try:
        dataset = TypeAdapter(_Dataset).validate_json(path.read_bytes())
    except ValidationError as error:
        raise _damaged(path, _first_fault(error)) from error
    if dataset.format != _FORMAT:
        raise _damaged(path, f"its format is {dataset.format!r}, not {_FORMAT!r}")
    if dataset.version > _VERSION:
        raise DataError(
            f"{path}: version {dataset.version}, newer than {_VERSION}; "
            "update vqcodec or run vqcodec prepare into another folder"
        )
    return dataset


def _read_lines(path: Path, kind: type[_Line], *, interrupted: bool = False) -> list[_Line]:
    """Read a file of JSON lines; a missing one is empty, an interrupted one ends in half a line."""
    adapter = TypeAdapter(kind)
    lines = path.read_bytes().split(b"\n") if path.is_file() else [b""]
    last = lines.pop()
    if last and not interrupted:
        raise _damaged(path, "its last line is incomplete")
    values = []
    for number, line in enumerate(lines, 1):
        try:
            values.append(adapter.validate_json(line))
        except ValidationError as error:
            raise _damaged(path, f"line {number}: {_first_fault(error)}") from error
    return values


def _first_fault(error: ValidationError) -> str:
    fault = error.errors()[0]
    return " ".join([*map(str, fault["loc"]), fault["msg"].partition("\n")[0]])


def _other_data(output: Path) -> DataError:
    return DataError(
        f"{output}: holds data prepared from another corpus or at another sample rate; "
        "choose another folder or delete this one"
    )


def _damaged(path: Path, fault: str) -> DataError:
    return DataError(
        f"{path}: damaged ({fault}); delete the folder {path.parent} and run vqcodec prepare"
    )


def _line(record: Clip | Failure) -> str:
    return json.dumps(asdict(record), ensure_ascii=False) + "\n"
