"""What a run says of itself on its machine: status.json, supervisor.json and the state events."""

from __future__ import annotations

import dataclasses
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from remote.contract import document
from remote.contract.document import ContractError
from remote.contract.events import EventWriter
from remote.contract.full_disk import is_full
from remote.contract.layout import RunFolder
from remote.contract.run_spec import RunSpec
from remote.contract.run_status import FINAL, AttemptTimes, RunStatus, State
from remote.job.asked import Asked, read_asked
from remote.job.follow import read_status
from remote.job.outcome import Outcome, without_excuse
from remote.job.publish import now
from remote.job.streams import size_of


@dataclass(frozen=True)
class Supervisor:
    """What the next supervisor of this run needs to know of the last one."""

    pid: int
    attempt: int
    used_s: float = 0.0  # of the run's max_hours, all attempts together
    outcome: Outcome | None = (
        None  # how it ended for good: it is never trained again, only publishing is left
    )
    schema: int = 1


class Record:
    """The status of one run, and the only writer of it. The events file is shared with the training process.

    While the disk is full it keeps what it knows to itself, and only shows that it lives; the next change is written
    with it.
    """

    def __init__(self, folder: RunFolder, spec: RunSpec, supervisor: Supervisor, status: RunStatus) -> None:
        self.folder = folder
        self.spec = spec
        self.supervisor = supervisor
        self.status = status
        self.events = EventWriter(folder.events)

    def state(self, state: State, message: str = "") -> None:
        """The run is in another state from now on: status and event."""
        self.say(state, message)
        self.save(state=state, message=message)

    def say(self, state: State, message: str) -> None:
        """The event alone."""
        self.events.emit("state", state=state, message=message)

    def save(self, **changes: Any) -> None:
        """The status alone, replaced whole."""
        self.status = dataclasses.replace(self.status, **changes, updated=now())
        _write(self.folder.status, self.status)

    def close(self, state: State, **changes: Any) -> None:
        """The status alone; the attempt has ended with it."""
        times = dataclasses.replace(self.status.attempts[-1], ended=now(), how=state)
        self.save(state=state, attempts=[*self.status.attempts[:-1], times], **changes)

    def used(self, used_s: float) -> None:
        """How much of the run's max_hours this attempt has used; whoever goes on after a kill knows it."""
        times = self.status.attempts[-1]
        spent = self.supervisor.used_s + used_s - times.used_s
        self.remember(dataclasses.replace(self.supervisor, used_s=spent))
        times = dataclasses.replace(times, used_s=round(used_s, 3))
        self.save(attempts=[*self.status.attempts[:-1], times])

    def remember(self, supervisor: Supervisor) -> None:
        self.supervisor = supervisor
        _write(self.folder.supervisor, supervisor)


def _write(path: Path, what: RunStatus | Supervisor) -> None:
    try:
        document.write(path, what)
    except OSError as error:
        if not is_full(error):
            raise
        with suppress(FileNotFoundError):
            os.utime(path)


def begin(folder: RunFolder, spec: RunSpec) -> Record:
    """The record of a run that starts, or goes on after an earlier attempt, on this machine or another."""
    asked, earlier, before = read_asked(folder), read_supervisor(folder), read_status(folder)
    attempts = [_over(times, before.updated) for times in before.attempts] if before else []
    last = max(earlier.attempt if earlier else 0, before.attempt if before and attempts else 0)
    number = max(asked.attempt or 1, last + 1)
    supervisor = Supervisor(os.getpid(), number, used_s=sum(times.used_s for times in attempts))
    if earlier:
        used_s = max(earlier.used_s, supervisor.used_s)
        supervisor = dataclasses.replace(earlier, pid=os.getpid(), attempt=number, used_s=used_s)
    supervisor = dataclasses.replace(supervisor, outcome=supervisor.outcome or _ended(before))
    status = RunStatus(
        spec.run_id,
        "QUEUED",
        updated=now(),
        started=before.started if before else None,
        attempt=number,
        attempts=[*attempts, _times(number, asked, spec, folder)],
    )
    record = Record(folder, spec, supervisor, status)
    record.remember(supervisor)
    record.state("QUEUED")
    return record


def _ended(before: RunStatus | None) -> Outcome | None:
    """As the status tells it, where the supervisor's record does not. A result is where it was made, or nowhere."""
    if before is None or before.state not in FINAL or before.state == "SUCCEEDED":
        return None
    return Outcome(before.state, without_excuse(before.message), before.exit_code, before.log_tail)


def read_supervisor(folder: RunFolder) -> Supervisor | None:
    try:
        text = folder.supervisor.read_bytes()
    except FileNotFoundError:
        return None
    return document.decode(Supervisor, text, what=f"record of the supervisor {folder.supervisor}")


def read_spec(path: Path) -> RunSpec:
    """ContractError when it can't be read or is not one."""
    try:
        text = path.read_bytes()
    except OSError as error:
        raise ContractError(f"run spec {path}: {error.strerror}") from None
    return document.decode(RunSpec, text, what=f"run spec {path}")


def is_over(status: RunStatus | None) -> bool:
    """Nothing is left to do for this run, not even publishing."""
    return status is not None and status.state in FINAL and status.published


def _times(number: int, asked: Asked, spec: RunSpec, folder: RunFolder) -> AttemptTimes:
    return AttemptTimes(
        number,
        asked.machine or spec.machine,
        began=now(),
        events_from=size_of(folder.events),
        log_from=size_of(folder.log),
    )


def _over(times: AttemptTimes, seen: str) -> AttemptTimes:
    """An attempt that nobody ended was alive when its status was last written."""
    return times if times.ended else dataclasses.replace(times, ended=seen, how="KILLED")
