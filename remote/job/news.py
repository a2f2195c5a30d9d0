"""What a training says while it works, read by its supervisor from the events and the log as they grow."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path

from remote.contract import events
from remote.contract.layout import RunFolder


class News:
    """What the training says in its events: the step it is at, the epochs that are over, and the last error."""

    def __init__(self, folder: RunFolder, echo: bool) -> None:
        self.step = 0
        self.epoch = 0
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
            if event.get("type") == "log" and event.get("level") == "error":
                self.error = str(event.get("text"))[:2000]
        if self._echo:
            fresh, self._log_read = _from(self._log, self._log_read)
            sys.stdout.buffer.write(fresh)
            sys.stdout.buffer.flush()


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
