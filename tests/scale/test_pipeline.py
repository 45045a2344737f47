"""Whoever makes a data set, and however often it is stopped, it is the same and complete."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
from command_line import Run, is_one_line, process
from scale_data import CLIPS, audio_folder, codec_of, digest_of, job_of, make, rows_of

from vqcodec.errors import DataError, VqcodecError
from vqcodec.inference.engines.batched import windows
from vqcodec.scale import pipeline, storage
from vqcodec.scale.listing import Part, list_source
from vqcodec.scale.pipeline import Cluster, _started
from vqcodec.scale.work import MOST_ON_CPU, Worker

OURS = "VQCODEC_TESTS", str(os.getpid())
"""In the environment of workers that these tests start, and not another run beside them."""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(audio_folder(tmp_path_factory.mktemp("source")))


@pytest.fixture(scope="module")
def unbroken(source: str, packaged: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    sink = tmp_path_factory.mktemp("unbroken") / "out"
    listing = list_source(source, 2)
    make(job_of(packaged, sink, listing), listing)
    return sink


def test_codes_are_those_of_the_recordings_by_themselves(
    unbroken: Path, source: str, packaged: Path
) -> None:
    codec, rows = codec_of(packaged), rows_of(unbroken)
    assert [row["name"] for row in rows] == list(CLIPS)
    for row in rows:
        codes = codec.encode(f"{source}/{row['name']}.flac")
        np.testing.assert_array_equal(row["codes"], codes.codes[0])
        assert row["voice"] == codes.speaker.tobytes()
        assert (row["speaker"], row["duration"]) == (row["name"].split("/")[0], codes.duration_s)


def test_recordings_side_by_side_give_the_same(
    unbroken: Path, source: str, packaged: Path, tmp_path: Path
) -> None:
    """As a GPU gets them: in batches of windows, here on a CPU."""
    listing = list_source(source, 9)
    make(job_of(packaged, tmp_path / "out", listing, at_a_time=4), listing)
    rows, own = rows_of(tmp_path / "out"), rows_of(unbroken)
    for row, other in zip(rows, own, strict=True):
        assert row["codes"] == other["codes"]
        assert row["name"] == other["name"]


def test_a_cpu_is_not_given_what_only_a_gpu_holds(source: str, packaged: Path) -> None:
    listing = list_source(source, 9)
    job = job_of(packaged, Path("out"), listing, at_a_time=64)
    assert job.side_by_side == MOST_ON_CPU < 64
    assert replace(job, device="cuda").side_by_side == 64
    assert replace(job, at_a_time=2).side_by_side == 2


@pytest.mark.parametrize("n_codes", [64, 65, 100, 128, 131, 500, 613])
def test_windows_tell_every_code_once_with_all_it_sees(n_codes: int) -> None:
    before, after, length = 20, 15, 64
    told = []
    for start, first, end in windows(n_codes, length, (before, after)):
        assert 0 <= start <= first - before * (start > 0)
        assert end + after * (start + length < n_codes) <= start + length <= n_codes
        told += range(first, end)
    assert told == list(range(n_codes))


def test_what_cannot_be_read_is_told_and_counted(unbroken: Path, source: str) -> None:
    (line,) = (unbroken / "vqcodec" / "errors.jsonl").read_text().splitlines()
    assert json.loads(line)["name"] == "bea/broken"
    assert "is not audio" in json.loads(line)["reason"]
    complete = json.loads((unbroken / "vqcodec" / "complete.json").read_text())
    assert (complete["recordings"], complete["errors"]) == (len(CLIPS), 1)


def test_a_run_that_ended_anywhere_is_continued(
    unbroken: Path,
    source: str,
    packaged: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Neither a part that is done nor one that is begun is lost, or done twice."""
    listing, sink, done = list_source(source, 2), tmp_path / "out", list[int]()
    n_calls, write_json = 0, storage.write_json

    def ending(url: str, value: object) -> None:  # in turn before and after a part is finished
        nonlocal n_calls
        n_calls += 1
        if "/parts/" not in url:
            return write_json(url, value)
        if n_calls % 2:
            raise KeyboardInterrupt
        write_json(url, value)
        raise KeyboardInterrupt

    do = Worker.do
    monkeypatch.setattr(Worker, "do", lambda self, n, part: (done.append(n), do(self, n, part))[1])
    monkeypatch.setattr("vqcodec.scale.storage.write_json", ending)
    for _ in range(30):
        with suppress(KeyboardInterrupt):
            make(job_of(packaged, sink, listing), listing)
            break
        with pytest.raises(DataError, match=r"(lacks \d of 5 parts, .*|is not finished); run"):
            list_source(str(sink))
    assert digest_of(sink) == digest_of(unbroken)
    assert 5 < len(done) <= 10  # each once, or once more where it had not been told to be done
    assert make(job_of(packaged, sink, listing), listing).n_made == 0


def test_what_is_complete_or_a_single_part_needs_no_cluster(
    unbroken: Path,
    source: str,
    packaged: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr("vqcodec.scale.pipeline._started")
    sink, parts, whole = tmp_path / "out", list_source(source, 2), list_source(source)
    shutil.copytree(unbroken, sink)
    for cluster in (Cluster(), Cluster("ray://nowhere:1"), Cluster(jobs=2)):
        assert make(job_of(packaged, sink, parts), parts, cluster).n_made == 0
    assert make(job_of(packaged, tmp_path / "new", whole), whole, Cluster(jobs=2)).n_made == 1


def test_a_part_that_went_missing_is_made_again(
    unbroken: Path, source: str, packaged: Path, tmp_path: Path
) -> None:
    sink, listing = tmp_path / "out", list_source(source, 2)
    shutil.copytree(unbroken, sink)
    (sink / "data" / "000002.parquet").unlink()
    with pytest.raises(DataError, match=r"lacks 1 of 5 parts, the first 000002; run the command"):
        list_source(str(sink))
    assert make(job_of(packaged, sink, listing), listing).n_made == 1
    assert digest_of(sink) == digest_of(unbroken)


def test_another_data_set_is_not_written_over(
    unbroken: Path, source: str, packaged: Path, tmp_path: Path
) -> None:
    sink, listing = tmp_path / "out", list_source(source, 2)
    shutil.copytree(unbroken, sink)
    for job, other, what in (
        (job_of(packaged, sink, listing, "lhotse"), listing, "kind"),
        (job_of(packaged, sink, listing), list_source(source, 3), "source, or --part-size"),
    ):
        with pytest.raises(VqcodecError, match=f"of another {what}; name another folder"):
            make(job, other)
    begun, codes = tmp_path / "begun", list_source(str(unbroken))
    job = job_of(packaged, begun, codes, "folder", "sound", speaker="nobody")
    with pytest.raises(VqcodecError, match="nobody: neither a voice"):
        make(job, codes)
    assert make(job_of(packaged, begun, listing), listing).n == len(CLIPS)
    with pytest.raises(VqcodecError, match="holds something else; name a new folder"):
        make(job_of(packaged, source, listing), listing)


@pytest.mark.parametrize(
    ("machines", "device", "jobs", "asked"),
    [
        ([{"CPU": 64.0}, {"CPU": 8.0, "GPU": 2.0}], "cuda", None, (2, 4, 1)),
        ([{"CPU": 2.0, "GPU": 4.0}], "cuda", None, (4, 0, 1)),
        ([{"CPU": 64.0}, {"CPU": 8.0, "GPU": 2.0}], "cpu", None, (72, 1, 0)),
        ([{}], "cpu", 3, (3, 1, 0)),
    ],
)
def test_a_worker_asks_for_what_a_machine_has(
    machines: list[dict[str, float]], device: str, jobs: int | None, asked: tuple[int, int, int]
) -> None:
    """It would be waited for without end, otherwise."""
    ray = Mock()
    ray.nodes.return_value = [{"Alive": True, "Resources": one} for one in machines]
    workers = pipeline._workers(ray, Mock(device=device), Cluster("auto", jobs), 1000)
    options = ray.remote.call_args.kwargs
    assert (len(workers), options["num_cpus"], options["num_gpus"]) == asked


def test_a_cluster_without_cores_is_told() -> None:
    ray = Mock()
    ray.nodes.return_value = [{"Alive": True, "Resources": {}}]
    with pytest.raises(VqcodecError, match="auto: has no cores yet; say how many with --jobs"):
        pipeline._workers(ray, Mock(device="cpu"), Cluster("auto"), 10)


def test_a_cluster_without_vqcodec_is_told() -> None:
    ray = Mock()
    ray.nodes.return_value = [{"Alive": True, "Resources": {"CPU": 2.0}}]
    ray.remote.return_value.return_value.remote.side_effect = ImportError("No module 'vqcodec'")
    with pytest.raises(VqcodecError, match=r"cannot start \(No module 'vqcodec'\); install this"):
        pipeline._workers(ray, Mock(device="cpu"), Cluster("ray://a:1"), 10)


@pytest.fixture(scope="module")
def two_workers() -> Iterator[None]:
    """A cluster of this machine, which the tests share, for it takes seconds to start."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(*OURS)
        with _started(Cluster(jobs=2)):
            yield


def test_a_quiet_run_on_two_workers_says_nothing(
    source: str, packaged: Path, tmp_path: Path
) -> None:
    for name in ("anna/a.0", "bea/1"):
        (tmp_path / "in" / name).parent.mkdir(parents=True)
        shutil.copy(f"{source}/{name}.flac", tmp_path / "in" / f"{name}.flac")
    options = ["--model", packaged, "--part-size", "1", "--jobs", "2", "--quiet"]
    done = process("encode-dataset", tmp_path / "in", "-o", tmp_path / "out", *options)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert len(rows_of(tmp_path / "out")) == 2


@pytest.mark.usefixtures("two_workers")
def test_two_workers_of_which_one_is_killed_make_the_same(
    unbroken: Path, source: str, packaged: Path, tmp_path: Path
) -> None:
    sink, listing, killed = tmp_path / "out", list_source(source, 2), list[int]()

    def kill_one(share: float) -> None:
        workers = [
            int(path.parent.name)
            for path in Path("/proc").glob("[0-9]*/cmdline")
            if path.read_bytes().startswith(b"ray::_Worker")
            and "=".join(OURS).encode() in path.with_name("environ").read_bytes()
        ]
        if workers and not killed:
            os.kill(workers[0], signal.SIGKILL)
            killed.append(workers[0])

    make(job_of(packaged, sink, listing), listing, Cluster(jobs=2), kill_one)
    assert killed
    assert digest_of(sink) == digest_of(unbroken)


@pytest.mark.usefixtures("two_workers")
def test_a_part_that_kills_its_workers_is_told_and_the_others_are_made(
    unbroken: Path,
    source: str,
    packaged: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without end it would be tried: a recording may want more memory than there is."""
    deadly = {1}

    class Dying(pipeline._Worker):  # a local one, which workers get by its text
        def attempt(self, number: int, part: Part) -> str:
            if number in deadly:
                os.kill(os.getpid(), signal.SIGKILL)
            return super().attempt(number, part)

    monkeypatch.setattr(pipeline, "_Worker", Dying)
    sink, listing = tmp_path / "out", list_source(source, 2)
    with pytest.raises(VqcodecError, match=r"anna/a.2.flac: at the part .* died 3 times"):
        make(job_of(packaged, sink, listing), listing, Cluster(jobs=2))
    with pytest.raises(DataError, match="lacks 1 of 5 parts, the first 000001"):
        list_source(str(sink))
    deadly.clear()
    assert make(job_of(packaged, sink, listing), listing, Cluster(jobs=2)).n_made == 1
    assert digest_of(sink) == digest_of(unbroken)


def test_what_ails_every_part_ends_the_run(
    source: str, packaged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that is full is not tried part by part."""
    tried = list[int]()

    def full(self: Worker, number: int, part: Part) -> None:
        tried.append(number)
        if number:
            raise OSError("No space left on device")

    monkeypatch.setattr(Worker, "do", full)
    listing = list_source(source, 1)
    assert len(listing.parts) == 9
    with pytest.raises(VqcodecError, match=r"No space left on device \(and 4 parts more\); mend"):
        make(job_of(packaged, tmp_path / "out", listing), listing)
    assert tried == [0, 1, 2, 3, 4, 5]


@pytest.mark.usefixtures("two_workers")
def test_a_client_has_the_cluster_work_through_the_parts(
    unbroken: Path, source: str, packaged: Path, tmp_path: Path
) -> None:
    from ray.util.client.server.server import serve

    sink, address = tmp_path / "out", "ray://127.0.0.1:20123"
    options = ["--model", packaged, "--part-size", "2", "--quiet", "--ray", address]
    server = serve("127.0.0.1", 20123)
    try:
        done = process("encode-dataset", source, "-o", sink, *options)
    finally:
        server.stop(0)
    assert (done.returncode, done.stderr) == (0, b"")
    assert digest_of(sink) == digest_of(unbroken)


def test_a_cluster_that_cannot_be_joined_is_told(
    run: Run, source: str, packaged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    options = ["-o", tmp_path / "out", "--model", packaged, "--part-size", "2"]
    for address, fault in (
        ("ray://a:1", ConnectionError("ray client connection timeout")),
        ("auto", ray.exceptions.AuthenticationError("no authentication token was found")),
        ("nonsense", ValueError("Invalid address format: nonsense")),
    ):
        refused = Mock(side_effect=fault)
        monkeypatch.setattr(ray, "init", refused)
        result = run("encode-dataset", source, *options, "--ray", address)
        assert refused.call_args.kwargs["address"] == address
        assert (result.status, is_one_line(result)) == (1, True)
        assert f"{address}: no Ray cluster could be joined there ({fault.args[0]})" in result.stderr
        assert "check the address, and that RAY_AUTH_MODE and RAY_AUTH_TOKEN" in result.stderr


def test_a_cluster_that_is_not_there_is_not_waited_for(
    run: Run, source: str, packaged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", Mock(side_effect=AssertionError("nobody answers there")))
    with socket.socket() as nobody:  # it is bound and does not listen
        nobody.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{nobody.getsockname()[1]}"
        options = ["--model", packaged, "--part-size", "2", "--ray", address]
        result = run("encode-dataset", source, "-o", tmp_path / "out", *options)
    assert (result.status, is_one_line(result)) == (1, True)
    assert f"{address}: no Ray cluster could be joined there" in result.stderr
    assert "refused" in result.stderr


@pytest.mark.usefixtures("two_workers")
def test_what_ends_a_worker_is_told_in_one_line(
    run: Run, source: str, packaged: Path, tmp_path: Path
) -> None:
    blocked = tmp_path / "out"
    (blocked / "data").mkdir(parents=True)
    (blocked / "data" / "000000.parquet").mkdir()
    options = ["--model", packaged, "--part-size", "2"]
    result = run("encode-dataset", source, "-o", blocked, *options)
    assert result.status == 1
    assert is_one_line(result), result.stderr
    assert "run it again, it continues" in result.stderr
