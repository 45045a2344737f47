"""Many parts at a time, by Ray: on the cores of this machine, or on a cluster.

What is to be made is written down first, and of each part what became of it when all of it is
there. So a run that ended, however it did, is continued by the next.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from typing import Any

from vqcodec.errors import VqcodecError
from vqcodec.extras import library, require
from vqcodec.files import claim
from vqcodec.inference.chunking import available_cores
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
from vqcodec.scale.work import Job, Report, Worker

_logger = logging.getLogger(__name__)

CONNECT_SECONDS = 10.0
ATTEMPTS = 3
"""At a part whose worker dies: memory may have been short, or a machine have gone."""
FAULTS_IN_A_ROW = 5
"""Parts, after which the fault is taken for that of all."""


@dataclass(frozen=True)
class Cluster:
    """Where to work.

    Attributes:
        address: of a Ray cluster: `ray://HOST:10001`, `auto`, or None for one of this machine's
            cores that ends with the run.
        jobs: parts at a time; None for one on every core, or GPU. A single one without an address,
            and a single part, is done by this process, without Ray.
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
    """Make what is missing of a data set; progress is told as the share done, in [0, 1].

    A part that cannot be made does not keep the others from it.

    Raises:
        VqcodecError: the sink holds another data set, another process is at work there, or parts
            could not be made: the first of them, with the reason.
        OSError: the sink cannot be written.
    """
    require("scale")
    sink = job.form.sink
    is_local = storage.is_local(sink)
    with claim(storage.opened(sink)[1], "making a data set") if is_local else nullcontext():
        with storage.reaching(sink):
            plan = _begin(job, listing)
            missing, n_parts = missing_parts(plan, storage.files_at(sink)), len(listing.parts)
        todo = [(number, listing.parts[number]) for number in missing]
        n_done, in_a_row, faults = n_parts - len(todo), 0, list[str]()
        for fault in _work(job, todo, cluster):
            if fault:
                faults.append(fault)
                in_a_row += 1
                if in_a_row == FAULTS_IN_A_ROW:
                    break
            else:
                n_done, in_a_row = n_done + 1, 0
                on_progress(n_done / n_parts)
        if faults:
            others = f" (and {len(faults) - 1} parts more)" if len(faults) > 1 else ""
            raise VqcodecError(f"{faults[0]}{others}; mend that and run it again, it continues")
        with storage.reaching(sink):
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
    found = storage.files_at(form.sink)
    if found.keys() <= {PLAN}:  # a run that failed before it made anything binds nobody
        storage.write_json(url, plan)
    elif PLAN not in found:
        raise VqcodecError(f"{form.sink}: holds something else; name a new folder")
    elif (held := json.loads(storage.read(url))) != plan:
        other = next(key for key in plan if held.get(key) != plan[key])
        named = {"to": "kind", "layout": "model", "collapse": "--dedup"}
        what = {**named, "source": "source, or --part-size"}.get(other, other)
        raise VqcodecError(f"{form.sink}: holds a data set of another {what}; name another folder")
    return plan


def _work(job: Job, todo: list[tuple[int, Part]], cluster: Cluster) -> Iterator[str]:
    """Work on parts; of one that is done "" comes, of any other what went wrong."""
    if not todo or (cluster.address is None and 1 in (cluster.jobs, len(todo))):
        alone = _Worker(job)
        for one in todo:
            yield alone.attempt(*one)
        return
    with _started(cluster) as ray:
        workers = _workers(ray, job, cluster, len(todo))
        # None has a part before it runs: others may have taken its place in the cluster.
        busy: dict[Any, tuple[Any, Part | None]] = {
            worker.__ray_ready__.remote(): (worker, None) for worker in workers
        }
        parts, n_left = iter(todo), len(todo)
        while n_left:
            (done,), _ = ray.wait(list(busy))
            worker, part = busy.pop(done)
            try:
                result = ray.get(done)
            except ray.exceptions.RayError as error:
                if part is None:
                    raise _unable(cluster, error) from None
                result = (
                    f"{part.items[0]['url']}: at the part that begins with it a worker died "
                    f"{ATTEMPTS} times, perhaps for want of memory"
                )
            if following := next(parts, None):
                busy[worker.attempt.remote(*following)] = worker, following[1]
            if part is not None:
                n_left -= 1
                yield result


def _workers(ray: Any, job: Job, cluster: Cluster, most: int) -> list[Any]:
    """Actors, at most so many; Ray starts one anew that dies."""
    machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    with_gpus = [one for one in machines if job.device == "cuda" and one.get("GPU")]
    n_gpus = int(sum(one["GPU"] for one in with_gpus))
    n_cpus = int(sum(one.get("CPU", 0) for one in machines))
    n_workers = min(cluster.jobs or n_gpus or n_cpus, most)
    if not n_workers:  # of a cluster that grows when it is asked to
        raise VqcodecError(f"{cluster.address}: has no cores yet; say how many with --jobs")
    # A GPU is fed by as many cores as there are for it on its own machine.
    shares = [int(one.get("CPU", 0) // one["GPU"]) for one in with_gpus]
    make_worker = ray.remote(
        num_cpus=min(shares, default=1),
        num_gpus=1 if n_gpus else 0,
        max_restarts=-1,
        max_task_retries=ATTEMPTS - 1,
    )(_Worker)
    try:
        return [make_worker.remote(job) for _ in range(n_workers)]
    except ImportError as error:  # a server for clients unpickles the job itself
        raise _unable(cluster, error) from None


def _unable(cluster: Cluster, error: Exception) -> VqcodecError:
    fault = str(error).strip().splitlines()[-1]
    return VqcodecError(
        f"{cluster.address or 'Ray'}: its workers cannot start ({fault}); install this version of "
        "vqcodec on every machine, for the Python that runs Ray"
    )


class _Worker:
    """A `Worker` that begins with its first part."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.worker: Worker | None = None

    def attempt(self, number: int, part: Part) -> str:
        """Make a part; returns what went wrong, or ""."""
        try:
            self.worker = self.worker or Worker(self.job)
            self.worker.do(number, part)
        except VqcodecError as error:
            return str(error)
        except Exception as error:  # of whatever a storage or a library raises
            _logger.debug("part %d", number, exc_info=True)
            return f"{part.items[0]['url']}: {type(error).__name__}: {error}"
        return ""


@contextmanager
def _started(cluster: Cluster) -> Iterator[Any]:
    """Ray, connected to a cluster or with one of its own on the loopback.

    It tells nobody that it is used, and writes only what ends it.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL}
    if cluster.address is None:
        # So it is called; what it does is to keep to 127.0.0.1.
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
        options |= {"num_cpus": cluster.jobs or available_cores(), "include_dashboard": False}
    ray = library("ray")
    is_own = not ray.is_initialized()
    if is_own:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # what they say, the error does, too
                host, _, port = (cluster.address or "").rpartition(":")
                if host and "://" not in host:  # where nobody answers, Ray asks without end
                    socket.create_connection((host.strip("[]"), int(port)), CONNECT_SECONDS).close()
                ray.init(address=cluster.address or "local", **options)
        except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
            if cluster.address is None:
                raise
            fault = " ".join(str(getattr(error, "message", error)).split()).rstrip(".")
            raise VqcodecError(
                f"{cluster.address}: no Ray cluster could be joined there ({fault}); check the "
                "address, and that RAY_AUTH_MODE and RAY_AUTH_TOKEN are the cluster's"
            ) from None
    try:
        yield ray
    finally:
        if is_own:
            ray.shutdown()


def _finish(form: Form, n_parts: int, n_made: int) -> Summary:
    """Put together what became of the parts; the data set is complete with that."""
    system, root = storage.opened(form.sink)
    urls = [storage.join(form.sink, report_file(number)) for number in range(n_parts)]
    reports = [Report(**json.loads(data)) for data in storage.read_all(urls)]
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
    if form.to == "folder":
        system.invalidate_cache()
        n_lost = summary.n - len(system.find(storage.join(root, "data")))
        if n_lost > 0:
            raise VqcodecError(
                f"{form.sink}: {n_lost} recordings have the names of others, and files are called "
                "by these; make a table or shards of them, with --to, in another folder"
            )
    about = {"recordings": summary.n, "seconds": summary.seconds, "errors": summary.n_errors}
    storage.write_json(storage.join(form.sink, COMPLETE), about)
    return summary
