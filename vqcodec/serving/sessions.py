"""What the studio keeps of its visitors while they are there: files, and whether to stop."""

from __future__ import annotations

import shutil
import threading
from collections import defaultdict
from pathlib import Path


class CancelledError(Exception):
    """A visitor does not want what is being worked on any more."""


class Sessions:
    """Files and stop signs, by the names that the web server gives to its visitors' sessions.

    Each session has a folder of its own in `folder`.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: dict[str, set[Path]] = defaultdict(set)
        self._stops: dict[str, threading.Event] = defaultdict(threading.Event)
        self._ended: set[str] = set()
        self._lock = threading.Lock()

    def folder(self, session: str) -> Path:
        """That of a session, which is made."""
        folder = self._folder / session
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def keep(self, session: str, file: str) -> None:
        """Keep an uploaded file until the last session that has uploaded the same ends.

        Raises CancelledError if this one has ended while it waited for its turn.
        """
        with self._lock:
            self._files[session].add(Path(file))
        if session in self._ended:
            self.end(session)
            raise CancelledError

    def begin(self, session: str) -> threading.Event:
        """The sign that stops some work of a session; it stands at go."""
        stop = self._stops[session]
        stop.clear()
        return stop

    def cancel(self, session: str) -> None:
        """Stop what is being worked on for a session."""
        self._stops[session].set()

    def end(self, session: str) -> None:
        """Stop the work of a session, and remove all of its files."""
        self.cancel(session)
        self._ended.add(session)
        with self._lock:
            files = self._files.pop(session, set())
            others = set().union(*self._files.values())
            for file in files - others:
                file.unlink(missing_ok=True)
            shutil.rmtree(self._folder / session, ignore_errors=True)
            self._stops.pop(session, None)
