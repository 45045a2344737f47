"""Several files at a time, each on a core of its own.

Threads would share the interpreter's lock, which the entropy coder holds. Processes are forked when
the model has been loaded, and share its memory.
"""

from __future__ import annotations

import gc
import io
import os
import signal
import sys
import traceback
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, NamedTuple, NoReturn, TypeVar

from vqcodec_cli.display import message

if TYPE_CHECKING:
    from multiprocessing.connection import Connection
    from multiprocessing.context import ForkProcess

Item = TypeVar("Item")
Result = TypeVar("Result")
PATIENCE_S = 2.0
"""For a process that is told to end: it may be removing what it has not finished."""
INTERRUPTED = 130
MOST_AHEAD = 32


class Outcome(NamedTuple, Generic[Result]):
    """What became of an item: a result, or one line about its failure and the traceback.

    `stderr` is what the work wrote there, unless it stands there already.
    """

    result: Result | None
    error: str = ""
    traceback: str = ""
    stderr: str = ""


def map_unordered(
    start: Callable[[], Callable[[Item], Result]],
    items: Sequence[Item],
    n_jobs: int,
    ahead: Callable[[Sequence[Item]], None] | None = None,
) -> Generator[tuple[int, Outcome[Result]]]:
    """Work on items, several at a time where processes can be forked.

    Args:
        start: what to do first if there are items, such as loading the model; returns the work on
            one, whose process has one core, or all of them if it is the only one.
        items: what can be pickled, as must be what the work returns.
        n_jobs: items at a time; 1 on a GPU, whose process cannot be forked.
        ahead: is told of up to `MOST_AHEAD` items that the same process will work on next, for what
            takes less time side by side. What is wrong with one of them, the work on it tells.

    Yields:
        Places in `items`, as they are done, and what became of them.
    """
    if not items:
        return
    work, n_jobs = start(), min(n_jobs, len(items))
    # Elsewhere system libraries do not survive a fork.
    if n_jobs > 1 and sys.platform == "linux":
        yield from _shared(work, items, n_jobs, ahead)
        return
    places = deque(range(len(items)))
    while some := _share(places, 1, ahead):
        _tell(ahead, items, some)
        for place in some:
            yield place, _attempt(work, items[place])


def _share(places: deque[int], n_jobs: int, ahead: object) -> deque[int]:
    """Take the places of what one process is to do next; of several, fewer towards the end."""
    most = len(places) if n_jobs == 1 else max(len(places) // (2 * n_jobs), 1)
    n_taken = min(most, len(places), MOST_AHEAD if ahead else 1)
    return deque(places.popleft() for _ in range(n_taken))


def _tell(
    ahead: Callable[[Sequence[Item]], None] | None, items: Sequence[Item], places: Iterable[int]
) -> None:
    if ahead:
        _attempt(ahead, [items[place] for place in places])


def _attempt(work: Callable[[Item], Result], item: Item) -> Outcome[Result]:
    try:
        return Outcome(work(item))
    except Exception as error:
        return Outcome(None, message(error), traceback.format_exc())


@dataclass
class _Worker:
    """A process, the pipe to it, and the places of the items that it has."""

    process: ForkProcess
    pipe: Connection
    places: deque[int]


def _shared(
    work: Callable[[Item], Result],
    items: Sequence[Item],
    n_jobs: int,
    ahead: Callable[[Sequence[Item]], None] | None,
) -> Iterator[tuple[int, Outcome[Result]]]:
    from multiprocessing import get_context
    from multiprocessing.connection import wait

    gc.freeze()  # what the processes are to share, a collection in one would copy
    before = signal.signal(signal.SIGTERM, _terminated)
    left = deque(range(len(items)))
    workers: list[_Worker] = []

    def start() -> None:
        pipe, end = get_context("fork").Pipe()
        inherited = [pipe, *(worker.pipe for worker in workers)]
        process = get_context("fork").Process(
            target=_serve, args=(work, items, ahead, end, inherited), daemon=True
        )
        process.start()
        end.close()
        worker = _Worker(process, pipe, deque())
        workers.append(worker)
        occupy(worker)

    def occupy(worker: _Worker) -> None:
        worker.places = _share(left, n_jobs, ahead)
        worker.pipe.send(tuple(worker.places))

    try:
        for _ in range(n_jobs):
            start()
        while workers:
            # A wait without an end may miss an interrupt that came as it began.
            ready = wait([worker.pipe for worker in workers], timeout=0.2)
            for worker in [worker for worker in workers if worker.pipe in ready]:
                try:
                    done, is_alive = worker.pipe.recv(), True
                except (EOFError, OSError):
                    held = [items[place] for place in worker.places]
                    done, is_alive = _killed(worker.process, held), False
                yield worker.places.popleft(), done
                if is_alive and worker.places:
                    continue
                if is_alive and left:
                    occupy(worker)
                    continue
                left.extendleft(reversed(worker.places))
                worker.pipe.close()
                worker.process.join()
                workers.remove(worker)
                if left:
                    start()
    finally:
        _end(workers)
        signal.signal(signal.SIGTERM, before)
        gc.unfreeze()


def _terminated(*_: object) -> NoReturn:
    """End as by default, but the workers first."""
    sys.exit(128 + signal.SIGTERM)


def _killed(process: ForkProcess, held: Sequence[object]) -> Outcome[Result]:
    """What became of the first of the items that an ended process held, any of which may be why."""
    process.join()
    name, *others = (str(item[0] if isinstance(item, tuple) else item) for item in held)
    ahead = f", and had {', '.join(others)} read ahead," if others else ""
    return Outcome(
        None,
        f"{name}: the process that worked on it{ahead} ended with status {process.exitcode}; if "
        "memory ran out, give fewer --jobs",
    )


def _end(workers: list[_Worker]) -> None:
    """End processes at once, but let them remove what they have not finished."""
    for worker in workers:
        worker.process.terminate()
    for worker in workers:
        worker.process.join(PATIENCE_S)
        worker.process.kill()
        worker.process.join()


def _serve(
    work: Callable[[Item], Result],
    items: Sequence[Item],
    ahead: Callable[[Sequence[Item]], None] | None,
    pipe: Connection,
    inherited: list[Connection],
) -> None:
    """Do the items that are asked for until nobody asks any more."""
    is_at_work = False

    def end(*_: object) -> None:
        if is_at_work:
            raise KeyboardInterrupt
        os._exit(INTERRUPTED)

    # A terminal interrupts all processes; who started this one hears of it and ends it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, end)
    for other in inherited:
        other.close()  # or it would not be known that nobody is there to ask
    from vqcodec.inference.chunking import compute_alone

    compute_alone()
    stderr = io.StringIO()
    try:
        while True:
            places = pipe.recv()
            is_at_work = True
            _tell(ahead, items, places)
            for place in places:
                is_at_work = True
                with redirect_stderr(stderr):
                    done = _attempt(work, items[place])
                is_at_work = False
                pipe.send(done._replace(stderr=stderr.getvalue()))
                stderr.seek(0)
                stderr.truncate()
    except (EOFError, BrokenPipeError, KeyboardInterrupt):
        os._exit(INTERRUPTED)
