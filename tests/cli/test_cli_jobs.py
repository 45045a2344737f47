"""Several files at a time, each in a process of its own."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from command_line import Run, contents
from vqcodec_cli.jobs import MOST_AHEAD, map_unordered

from vqcodec.errors import VqcodecError
from vqcodec.files import replacing
from vqcodec.inference import chunking


@pytest.mark.parametrize(
    ("command", "options"),
    [
        ("encode", []),
        ("encode", ["--refine"]),
        ("decode", ["--decoder", "fast"]),
        ("decode", ["--decoder", "wavenet", "--seed", "3"]),
        ("convert", ["--speaker", "anna"]),
        ("units", ["--dedup"]),
    ],
)
def test_files_at_a_time_change_no_byte(
    run: Run, recordings: Path, tiny_model: Path, tmp_path: Path, command: str, options: list[str]
) -> None:
    model = ["--model", tiny_model]
    source, n_files = recordings, 5
    if "--refine" in options:  # which is slow
        n_files = 2
        for name in ("c", "deep/d", "e"):
            (recordings / f"{name}.wav").unlink()
    if command == "decode":
        source = tmp_path / "codes"
        assert run("encode", recordings, source, *model, "--jobs", 1).status == 0
    found = []
    for jobs in (1, 3):
        target = tmp_path / f"out{jobs}"
        target.mkdir()
        to = ["-o"] if command in ("convert", "units") else []
        place = target / "units.txt" if command == "units" else target
        result = run(command, source, *to, place, *options, *model, "--jobs", jobs)
        assert result.status == 0
        assert result.stdout.startswith(f"{n_files} done, 0 already there, 0 failed\n")
        found.append(contents(target))
    assert found[0] == found[1]
    assert len(found[0]) == (1 if command == "units" else n_files)


def test_each_file_at_a_time_has_a_process_and_a_core() -> None:
    def work(item: int) -> tuple[int, int, int]:
        time.sleep(0.05)
        return item, os.getpid(), torch.get_num_threads()

    found = list(map_unordered(lambda: work, range(6), 2))
    assert sorted(place for place, _ in found) == [0, 1, 2, 3, 4, 5]
    made = [done.result for _, done in found]
    assert all(
        one is not None and one[0] == place for one, (place, _) in zip(made, found, strict=True)
    )
    processes = {one[1] for one in made if one}
    assert len(processes) == 2
    assert os.getpid() not in processes
    assert {one[2] for one in made if one} == {1}


def test_a_fault_is_of_its_item_alone_and_what_is_said_comes_with_it() -> None:
    def work(item: str) -> str:
        print(f"hear {item}", file=sys.stderr)
        if item == "bad":
            raise VqcodecError("bad: is bad")
        return item.upper()

    for n_jobs in (1, 2):
        items = ["a", "bad", "c"]
        found = {items[place]: done for place, done in map_unordered(lambda: work, items, n_jobs)}
        assert (found["a"].result, found["c"].result, found["bad"].result) == ("A", "C", None)
        assert (found["a"].error, found["bad"].error) == ("", "bad: is bad")
        assert "VqcodecError" in found["bad"].traceback
        if n_jobs > 1:
            assert found["c"].stderr == "hear c\n"


def test_a_killed_process_costs_the_file_that_it_had() -> None:
    def work(item: str) -> str:
        if item == "large":
            os.kill(os.getpid(), signal.SIGKILL)
        return item

    items = ["a", "large", "b", "c", "d"]
    found = {items[place]: done for place, done in map_unordered(lambda: work, items, 2)}
    assert {item for item, done in found.items() if done.result == item} == {"a", "b", "c", "d"}
    assert found["large"].error.startswith("large: the process that worked on it ended with status")
    assert "fewer --jobs" in found["large"].error


def test_a_killed_process_names_all_that_it_held() -> None:
    def ahead(items: list[str]) -> None:
        if "b" in items:
            os.kill(os.getpid(), signal.SIGKILL)

    items = ["a", "b", "c", "d", "e", "f", "g", "h"]
    found = [
        done.error for _, done in map_unordered(lambda: str.upper, items, 2, ahead) if done.error
    ]
    assert found[0].startswith("a: the process that worked on it, and had b read ahead, ended with")
    assert found[1].startswith("b: the process that worked on it ended with status -9; if memory")


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_a_process_hears_of_what_it_is_to_do_next(n_jobs: int) -> None:
    told: list[int] = []

    def ahead(items: list[int]) -> None:
        told[:] = items
        if 5 in items:
            raise VqcodecError("what is wrong with an item is told in its own turn")

    def work(item: int) -> list[int]:
        if item == 20 and n_jobs > 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return list(told)

    found = list(map_unordered(lambda: work, range(40), n_jobs, ahead))
    assert sorted(place for place, _ in found) == list(range(40))
    heard = [(place, done.result) for place, done in found if done.result is not None]
    assert len(heard) == 40 - (n_jobs > 1)
    assert all(place in together for place, together in heard)
    n_together = [len(together) for _, together in heard]
    assert max(n_together) > 2
    # A process alone has nobody to end at the same time as.
    assert min(n_together) == (1 if n_jobs > 1 else 40 % MOST_AHEAD)


def test_processes_end_with_whoever_asks_for_their_work(tmp_path: Path) -> None:
    """At once, and without what they have begun."""

    def work(item: int) -> None:
        with replacing(tmp_path / f"{item}.out"):
            (tmp_path / f"{os.getpid()}.pid").touch()
            time.sleep(600)

    results = map_unordered(lambda: work, [1, 2, 3], 2)

    def interrupt() -> None:
        while len(list(tmp_path.glob("*.pid"))) < 2:
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt).start()
    with pytest.raises(KeyboardInterrupt):
        list(results)
    assert [path.suffix for path in tmp_path.iterdir()] == [".pid", ".pid"]
    for path in tmp_path.iterdir():
        with pytest.raises(ProcessLookupError):
            os.kill(int(path.stem), 0)


def test_a_caller_with_one_thread_computes_in_its_own() -> None:
    pool = chunking.lone_threads(2)

    def call(_: int) -> bool:
        own = threading.get_ident()
        return all(
            ident == own
            for ident in chunking.map_in_order(
                lambda _: threading.get_ident(), range(3), chunking.thread_count()
            )
        )

    assert list(pool.map(call, range(4))) == [True] * 4
    pool.shutdown()
