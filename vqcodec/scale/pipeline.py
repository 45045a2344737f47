"""Many parts at a time, by Ray Data: on the cores of this machine, or on a cluster.

What is to be made is written down first, and of each part what became of it when all of it is
there. So a run that ended, however it did, is continued by the next.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from typing import Any

from vqcodec.errors import VqcodecError
from vqcodec.extras import library, require
from vqcodec.files import claim
from vqcodec.scale import storage
from vqcodec.scale.dataset_files import (
    COMPLETE,
    FORMAT,
    PLAN,
    RECORDS,
    VERSION,
    missing_parts,
    report_file,
)
from vqcodec.scale.listing import Listing, Part
from vqcodec.scale.sinks import Form
from vqcodec.scale.work import Job, Report, Worker, part_of


@dataclass(frozen=True)
class Cluster:
    """Where to work.

    Attributes:
        address: of a Ray cluster: `ray://HOST:10001`, `auto`, or None for one of this machine's
            cores that ends with the run.
        jobs: parts at a time; None for one on every core, or GPU.
    """

    address: str | None = None
    jobs: int | None = None


@dataclass(frozen=True)
class Summary:
    """A data set that is complete.

    Attributes:
        n_made: parts that this run made; the others were there.
        n, seconds: of recordings in it.
        n_errors, n_warnings: recordings that were left out, and that are odd.
    """

    n_made: int
    n: int
    seconds: float
    n_errors: int
    n_warnings: int


def run(
    job: Job, listing: Listing, cluster: Cluster, on_progress: Callable[[float], None]
) -> Summary:
    """Make what is missing of a data set.

    Args:
        job: what to make of each recording.
        listing: of the source.
        cluster: where.
        on_progress: called with the share done, in [0, 1].

    Raises:
        VqcodecError: the sink holds another data set, or another process is at work there.
        OSError: the source cannot be read, or the sink not be written.
    """
    require("scale")
    sink = job.form.sink
    is_local = storage.is_local(sink)
    with claim(storage.opened(sink)[1], "making a data set") if is_local else nullcontext():
        plan = _begin(job, listing)
        missing, n_parts = missing_parts(plan, storage.files_at(sink)), len(listing.parts)
        todo = [(number, listing.parts[number]) for number in missing]
        for n_done, _ in enumerate(_reports(job, todo, cluster), n_parts - len(todo) + 1):
            on_progress(n_done / n_parts)
        return _finish(job.form, n_parts, len(todo))


def _begin(job: Job, listing: Listing) -> dict[str, Any]:
    """Write down what is to be made, or see that it is what was to be made."""
    form, url = job.form, storage.join(job.form.sink, PLAN)
    plan: dict[str, Any] = {
        "format": FORMAT,
        "version": VERSION,
        "content": form.content,
        "to": form.to,
        "layout": asdict(form.layout),
        "collapse": job.collapse,
        "speaker": job.speaker,
        "source": listing.digest,
        "n_parts": len(listing.parts),
    }
    plan = json.loads(json.dumps(plan))
    if not storage.is_file(url):
        if storage.files_at(form.sink):
            raise VqcodecError(f"{form.sink}: holds something else; name a new folder")
        storage.write_json(url, plan)
    elif (held := json.loads(storage.read(url))) != plan:
        other = next(key for key in plan if held.get(key) != plan[key])
        raise VqcodecError(f"{form.sink}: holds a data set of another {other}; name another folder")
    return plan


def _reports(job: Job, todo: list[tuple[int, Part]], cluster: Cluster) -> Iterator[None]:
    """Work on parts by Ray; one comes whenever one is done."""
    if not todo:
        return
    with _started(cluster) as ray:
        resources = ray.cluster_resources()
        n_gpus = int(resources.get("GPU", 0)) if job.device == "cuda" else 0
        n_actors = min(cluster.jobs or n_gpus or int(resources["CPU"]), len(todo))
        rows = [{"number": number, "part": json.dumps(asdict(part))} for number, part in todo]
        parts = ray.data.from_items(rows, override_num_blocks=len(rows))
        made = parts.map(
            _Actor,
            fn_constructor_args=(job,),
            compute=ray.data.ActorPoolStrategy(size=n_actors, max_tasks_in_flight_per_actor=1),
            num_cpus=1,
            num_gpus=1 if n_gpus else None,
        )
        for _ in made.iter_rows():
            yield


class _Actor:
    """A `Worker` as Ray Data calls it."""

    def __init__(self, job: Job) -> None:
        self.worker = Worker(job)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        report = self.worker.do(int(row["number"]), part_of(json.loads(row["part"])))
        return {"n": report.n}


@contextmanager
def _started(cluster: Cluster) -> Iterator[Any]:
    """Ray, connected to a cluster or with one of its own; it tells nobody that it is used."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    ray = library("ray")
    library("ray.data")
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if cluster.address is None:
        from vqcodec.inference.chunking import available_cores

        own = {"num_cpus": cluster.jobs or available_cores(), "include_dashboard": False}
        options |= {**own, "_node_ip_address": "127.0.0.1"}
    was_there = ray.is_initialized()
    if not was_there:
        ray.init(address=cluster.address or "local", **options)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    try:
        yield ray
    finally:
        if not was_there:
            ray.shutdown()


def _finish(form: Form, n_parts: int, n_made: int) -> Summary:
    """Put together what became of the parts; the data set is complete with that."""
    system, root = storage.opened(form.sink)
    paths = [storage.join(root, report_file(number)) for number in range(n_parts)]
    found = system.cat(paths)
    reports = [Report(**json.loads(found[path])) for path in paths]
    for name in ("errors", "warnings"):
        rows = [row for report in reports for row in getattr(report, name)]
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        if rows:
            storage.write(storage.join(form.sink, RECORDS, f"{name}.jsonl"), lines.encode())
    summary = Summary(
        n_made,
        sum(report.n for report in reports),
        sum(report.seconds for report in reports),
        sum(len(report.errors) for report in reports),
        sum(len(report.warnings) for report in reports),
    )
    about = {"recordings": summary.n, "seconds": summary.seconds, "errors": summary.n_errors}
    storage.write_json(storage.join(form.sink, COMPLETE), about)
    return summary
