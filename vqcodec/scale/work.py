"""A part of a source becomes a part of a sink."""

from __future__ import annotations

import io
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import soundfile

import vqcodec
from vqcodec.audio.writing import to_int16
from vqcodec.codec import Codec
from vqcodec.errors import DataError, RecordingWarning, VqcodecError
from vqcodec.format.codes import Codes
from vqcodec.inference.chunking import compute_alone, lone_threads, map_ahead
from vqcodec.inference.units import NOBODY, Units, npy_bytes
from vqcodec.scale import storage
from vqcodec.scale.code_columns import columns_of
from vqcodec.scale.dataset_files import report_file
from vqcodec.scale.listing import Part
from vqcodec.scale.part_reading import read_part
from vqcodec.scale.records import Record
from vqcodec.scale.sinks import SINKS, Form, Made
from vqcodec.weights import model_file
from vqcodec.weights.voices import VoicesFile, default_path

MOST_ON_CPU = 8


@dataclass(frozen=True)
class Job:
    """What is made of every recording.

    Attributes:
        form: of the data set.
        model: name or path of the model; None where codes become units.
        device: `cpu` or `cuda`.
        at_a_time: recordings that one worker encodes side by side, to fill a GPU.
        collapse: of units, as `Units.of` has it.
        speaker: whose voice codes are decoded in, by name or path; None for their own.
    """

    form: Form
    model: str | None
    device: str = "cpu"
    at_a_time: int = 1
    collapse: bool = False
    speaker: str | None = None

    @property
    def side_by_side(self) -> int:
        """`at_a_time`, or what of it a CPU does within a gigabyte."""
        return self.at_a_time if self.device == "cuda" else min(self.at_a_time, MOST_ON_CPU)


@dataclass
class Report:
    """What became of a part; it is written when all of the part is.

    Attributes:
        n: recordings that something was made of.
        seconds: of these.
        errors, warnings: name and reason of recordings that were left out, or that are odd.
    """

    n: int = 0
    seconds: float = 0.0
    errors: list[dict[str, str]] = field(default_factory=list)
    warnings: list[dict[str, str]] = field(default_factory=list)


class Worker:
    """Works on parts, one after another, on one core or GPU.

    Raises VqcodecError if the model or the voice cannot be loaded.
    """

    def __init__(self, job: Job) -> None:
        compute_alone()
        self.job = job
        self._threads = lone_threads(job.side_by_side) if job.at_a_time > 1 else None
        self._codec = _loaded(job)
        self._voice = self._codec.speaker(job.speaker) if self._codec and job.speaker else None

    def do(self, number: int, part: Part) -> Report:
        """Make a part, whose number gives its files their names.

        Raises OSError if a container cannot be read, or the part not written.
        """
        compute_alone()  # perhaps another thread
        report, form, records = Report(), self.job.form, read_part(part)
        attempts = (
            map(self._attempt, records)
            if self._threads is None
            else map_ahead(self._threads, self._attempt, records, 2 * self.job.side_by_side)
        )
        with _warnings_by_thread(), SINKS[form.to](form, number) as add:
            try:
                for record, made, told in attempts:
                    try:
                        if isinstance(made, VqcodecError):
                            raise made
                        add(record, made)
                    except VqcodecError as error:
                        report.errors.append({"name": record.name, "reason": str(error)})
                        continue
                    report.n += 1
                    report.seconds += made.columns["duration"]
                    report.warnings += [{"name": record.name, "reason": line} for line in told]
            except DataError as error:  # what holds the recordings is damaged from here on
                report.errors.append({"name": part.items[0]["url"], "reason": str(error)})
        storage.write_json(storage.join(form.sink, report_file(number)), vars(report))
        return report

    def _attempt(self, record: Record) -> tuple[Record, Made | VqcodecError, list[str]]:
        _told.lines = []
        try:
            return record, self._made(record), _told.lines
        except VqcodecError as error:
            return record, error, _told.lines

    def _made(self, record: Record) -> Made:
        if {"..", "/"} & {*PurePosixPath(record.name).parts} or not record.name:
            raise DataError(
                f"{record.name!r} cannot name a recording; give it a path below a folder"
            )
        match self.job.form.content:
            case "codes":
                return self._codes(record)
            case "units":
                return self._units(record)
            case _:
                return self._sound(record)

    def _codes(self, record: Record) -> Made:
        if record.codes is not None:
            raise DataError(f"{record.name}: has codes already; take it out, or decode-dataset it")
        speaker = None if self.codec.hears_speakers else record.speaker
        codes = self.codec.encode(_sound_of(record), speaker=speaker)
        return Made(columns_of(codes), "codes", codes.to_bytes)

    def _units(self, record: Record) -> Made:
        if record.codes is not None:
            codes = record.codes()
        else:
            codes = self.codec.encode(_sound_of(record), speaker=NOBODY)
        if codes.fingerprint.hex() != self.job.form.layout.fingerprint:
            raise DataError(
                f"{record.name}: its codes are of model {codes.fingerprint.hex()}, not of "
                f"{self.job.form.layout.model}; make a data set of their own of them"
            )
        units = Units.of(codes, collapse=self.job.collapse)
        durations = units.durations if self.job.collapse else None
        columns = {"duration": units.duration_s, "units": units.units, "durations": durations}
        return Made(columns, "units.npy", lambda: npy_bytes(units))

    def _sound(self, record: Record) -> Made:
        if record.codes is None:
            raise DataError(f"{record.name}: has no codes to decode; encode-dataset makes them")
        codes = record.codes()
        samples = self.codec.decode(codes, speaker=self._voice)
        data = _flac(samples, codes)
        audio = {"bytes": data, "path": f"{record.name}.flac"}
        return Made({"duration": codes.duration_s, "audio": audio}, "flac", lambda: data)

    @property
    def codec(self) -> Codec:
        """The model, of a job that has one."""
        assert self._codec is not None
        return self._codec


def _loaded(job: Job) -> Codec | None:
    if job.model is None:
        return None
    codec = vqcodec.load(job.model, device=job.device)
    if job.at_a_time == 1:
        return codec
    from vqcodec.inference.engines.batched import BatchedEngine

    file = model_file.read(job.model)
    return Codec(file, BatchedEngine(codec.model, job.device), VoicesFile(default_path()))


_told = threading.local()


@contextmanager
def _warnings_by_thread() -> Iterator[None]:
    """Let `_told.lines` of each thread have what it is warned of in recordings."""

    def tell(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
        if issubclass(category, RecordingWarning):
            _told.lines.append(str(message))

    with warnings.catch_warnings():
        warnings.simplefilter("always", RecordingWarning)
        warnings.showwarning = tell
        yield


def _sound_of(record: Record) -> Any:
    if record.sound is None:
        held = ", ".join(record.extra.get("members", ())) or "nothing"
        raise DataError(f"{record.name}: holds {held}, where one sound file is wanted")
    return record.sound.source()


def _flac(samples: np.ndarray, codes: Codes) -> bytes:
    loud = float((np.abs(samples) > 1).mean())
    if loud:
        warnings.warn(
            f"{loud:.1%} of its samples are too loud and were clipped", RecordingWarning, 2
        )
    buffer = io.BytesIO()
    rate = codes.original_sample_rate
    soundfile.write(buffer, to_int16(samples), rate, "PCM_16", format="FLAC")
    return buffer.getvalue()
