"""What happens in a run, one JSON object a line: `events.jsonl` on the machine, segments of it in the bucket.

Each event has `t` (seconds since the epoch) and `type`:

    state      state, message                             the run's state changed
    step       number (1 to 8), name, text                one of the eight steps has something to say
    network    stages: [{name, shape, parameters, frozen}]  the network, stage by stage, before training
    progress   step, done, total, unit, epoch?            feeds a bar; at most a few a second
    epoch      epoch, of, train_loss, held_out_loss, held_out_accuracy, seconds
    checkpoint number, bytes, seconds                     one was written: a run that is killed goes on from it
    metrics    the whole of metrics.json, at the end
    log        level, text                                for people
    published  files, bytes                               the result is in the store
    logged     bytes                                      how long log.txt is, now and then: tells when a line came

A reader skips types and fields that it does not know; text in events is data, never markup.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .full_disk import is_full

STEPS = ("select", "load", "freeze", "head", "preprocess", "extract", "train", "evaluate")
LINE_BYTES_MAX = 1024 * 1024
LOGGED = "logged"


class EventWriter:
    """Appends events to a file; every line goes out in one write, so that two processes may share the file.

    What a full disk does not take is missing; as soon as it takes something again, that is said.
    """

    def __init__(self, path: Path) -> None:
        self.descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        self._progressed = 0.0
        self._missing = 0  # events
        self._torn = False  # the last one is there in part

    def emit(self, type: str, **fields: Any) -> None:
        line = _line(type, fields)
        if self._missing:
            text = f"The disk of the machine was full: events are missing here ({self._missing})"
            line = _line("log", {"level": "warning", "text": text}) + line
        self._append(b"\n" + line if self._torn else line)

    def _append(self, lines: bytes) -> None:
        try:
            written = os.write(self.descriptor, lines)
        except OSError as error:
            if not is_full(error):
                raise
            written = 0
            os.utime(self.descriptor)  # a sign of life all the same
        self._torn = 0 < written < len(lines) or (self._torn and not written)
        self._missing = 0 if written == len(lines) else self._missing + 1

    def step(self, name: str, text: str, **fields: Any) -> None:
        """One of STEPS, by its name, and a line for people about it."""
        self.emit("step", number=STEPS.index(name) + 1, name=name, text=text, **fields)

    def progress(self, step: str, done: int, total: int, unit: str, **more: int) -> None:
        """At most four a second, and always the last one."""
        now = time.monotonic()
        if done < total and now - self._progressed < 0.25:
            return
        self._progressed = now
        self.emit("progress", step=step, done=done, total=total, unit=unit, **more)

    def log(self, text: str, *, level: str = "info") -> None:
        self.emit("log", level=level, text=text)

    def close(self) -> None:
        os.close(self.descriptor)


def _line(type: str, fields: Mapping[str, Any]) -> bytes:
    return (
        json.dumps({"t": round(time.time(), 3), "type": type, **fields}, ensure_ascii=True).encode() + b"\n"
    )


def parse(line: bytes) -> dict[str, Any] | None:
    """The event of a line; None for anything that is not one."""
    try:
        event = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return event if isinstance(event, dict) and isinstance(event.get("type"), str) else None
