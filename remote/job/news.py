"""What a training says while it works, read by its supervisor from the events and the log as they grow."""

from __future__ import annotations

import sys
import time
from contextlib import suppress
from pathlib import Path

from remote.contract import events
from remote.contract.layout import RunFolder
from remote.job.passes import Pass, moved

MARK_S = 5.0


class News:
    """What the training says in its events: the step it is at, the epochs that are over, its present pass, the last error."""

    def __init__(self, folder: RunFolder, echo: bool) -> None:
        self.step = 0
        self.epoch = 0
        self.passing: Pass | None = None  # over its images; None: it has told of none yet
        self.error = ""
        self._events, self._events_read = folder.events, _size(folder.events)
        self._log, self._log_read = folder.log, _size(folder.log)
        self._rest = b""
        self._echo = echo

    def read(self) -> None:
        fresh, self._events_read = _from(self._events, self._events_read)
        *lines, self._rest = (self._rest + fresh).split(b"\n")
        for text in lines:
            event = events.parse(text) or {}
            if event.get("type") == "step" and isinstance(event.get("number"), int):
                self.step = event["number"]
            if event.get("type") == "epoch" and isinstance(event.get("epoch"), int):
                self.epoch = event["epoch"]
            self.passing = moved(self.passing, event)
            if event.get("type") == "log" and event.get("level") == "error":
                self.error = str(event.get("text"))[:2000]
        if self._echo:
            fresh, self._log_read = _from(self._log, self._log_read)
            sys.stdout.buffer.write(fresh)
            sys.stdout.buffer.flush()


class LogMarks:
    """Events that say now and then how long the log is, so that it can be read from a time on."""

    def __init__(self, folder: RunFolder, writer: events.EventWriter, *, interval_s: float = MARK_S) -> None:
        self._log = folder.log
        self._writer = writer
        self._interval_s = interval_s
        self._marked = _size(folder.log)
        self._marked_at = 0.0

    def mark(self) -> None:
        """Only when it has grown."""
        now, length = time.monotonic(), _size(self._log)
        if length != self._marked and now - self._marked_at >= self._interval_s:
            self._marked, self._marked_at = length, now
            self._writer.emit(events.LOGGED, bytes=length)


def _size(path: Path) -> int:
    with suppress(FileNotFoundError):
        return path.stat().st_size
    return 0


def _from(path: Path, position: int) -> tuple[bytes, int]:
    try:
        with path.open("rb") as file:
            file.seek(position)
            data = file.read()
    except FileNotFoundError:
        return b"", position
    return data, position + len(data)
