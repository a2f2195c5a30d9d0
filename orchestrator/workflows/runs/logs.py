"""`tlvm logs RUN`: what a run has said, from its machine while there is one, else from the store."""

from __future__ import annotations

import re
import time
from collections.abc import Generator, Iterator
from datetime import UTC, datetime

from orchestrator.errors import (
    AuthError,
    CloudError,
    ConfigError,
    ConnectionLost,
    TransientError,
)
from orchestrator.providers.base import Machine, MachineState
from orchestrator.workflows.runs.attach import where
from orchestrator.workflows.runs.documents import StoredRun, required_run
from orchestrator.workflows.runs.following import Position, Stream
from orchestrator.workflows.runs.following import follow as follow_stream
from orchestrator.workflows.runs.overview import find
from orchestrator.workflows.runs.stored_streams import follow_stored, stored_bytes
from orchestrator.workflows.workspace import Workspace
from remote.contract import events, layout
from remote.contract.run_status import FINAL

LINE_CHARACTERS_MAX = 10_000
FILES = {"log": "log.txt", "events": "events.jsonl"}  # on a machine
_AGO = re.compile(r"(\d+(?:\.\d+)?)\s*([smhd])")
_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def logs(workspace: Workspace, run: str, *, follow: bool = False, since: str | None = None) -> Iterator[str]:
    """The lines of a run's log, without their ends; text from a machine, so hostile.

    follow          go on until the run ends
    since           only what was said after that: "10m" ago, or a time; to a few seconds, by the machine's clock
    NotFoundError   no such run
    ConnectionLost  the machine could not be followed to the end
    """
    asked = _Since.of(since) if since else None
    run_id = find(workspace, run)
    stored = required_run(workspace.store, run_id)
    return _lines(_bytes(where(workspace, stored), stored, follow, asked))


def without_result(workspace: Workspace, run: str) -> str:
    """How a run ended that came to none, and why, which its log need not tell; "" of any other. Hostile text, too."""
    status = required_run(workspace.store, find(workspace, run)).status
    if status is None or status.state not in FINAL or status.state == "SUCCEEDED":
        return ""
    state = status.state.lower()
    return f"{state}: {status.message}" if status.message not in ("", state) else state


class _Since:
    """A time that was asked for: so many seconds ago, or a moment."""

    def __init__(self, ago_s: float | None, moment_s: float) -> None:
        self._ago_s, self._moment_s = ago_s, moment_s

    @staticmethod
    def of(text: str) -> _Since:
        if found := _AGO.fullmatch(text.strip()):
            return _Since(float(found[1]) * _SECONDS[found[2]], 0.0)
        try:
            moment = datetime.fromisoformat(text.strip())
        except ValueError:
            raise ConfigError(
                f"--since {text[:40]!r} is no time", next="For example: 10m, 2h, 1d, or 2026-11-22T14:30"
            ) from None
        return _Since(None, moment.timestamp())  # one without a zone is of this computer

    def at(self, fast_s: float) -> float:
        """As the machine would write it, whose clock is so many seconds ahead of ours."""
        return (self._moment_s if self._ago_s is None else time.time() - self._ago_s) + fast_s


def _bytes(workspace: Workspace, stored: StoredRun, follow: bool, since: _Since | None) -> Iterator[bytes]:
    run_id, at = stored.spec.run_id, Position()
    machine, seen = _machine(workspace, stored) if stored.active else (None, True)
    reached = machine if machine and machine.state is MachineState.RUNNING else None
    if since is not None:
        at.bytes = _position(workspace, stored, reached, since)
    if follow and not seen:
        yield from follow_stored(workspace, run_id, "log", at=at)
        return
    if follow and stored.active and machine is None:
        workspace.progress.warn(f"{stored.machine} is gone: this is what reached the store")
    elif follow and stored.active:
        if reached and not workspace.records.key_file(reached.provider, reached.name).exists():
            workspace.progress.say(
                "logs",
                f"through the store, some seconds late: this computer has no key for {stored.machine} "
                "(tlvm authorize lets it in)",
            )
            yield from follow_stored(workspace, run_id, "log", at=at)
        else:
            yield from follow_stream(workspace, stored.spec, "log", at=at)
        return
    yield from stored_bytes(workspace.store, run_id, "log", at)
    if reached:
        yield _newer(workspace, stored, reached, "log", at.bytes)


def _machine(workspace: Workspace, stored: StoredRun) -> tuple[Machine | None, bool]:
    """The one that it is on, and whether that is known: an outage, or a key to the store alone, proves nothing gone."""
    try:
        return workspace.provider.get(stored.machine), True
    except (AuthError, CloudError) as error:
        workspace.progress.warn(
            f"{error.what}: this is what {stored.machine} sends to the store, some seconds late"
        )
        return None, False


def _newer(workspace: Workspace, stored: StoredRun, machine: Machine, stream: Stream, position: int) -> bytes:
    """What the machine has beyond that byte, where it can be asked."""
    run_id = layout.checked_run_id(stored.spec.run_id)
    try:
        with workspace.connect(machine) as connection:
            return connection.run(f"tail -c +{position + 1} ~/.tlvm/runs/{run_id}/{FILES[stream]}").stdout
    except (AuthError, ConnectionLost, TransientError) as error:
        workspace.progress.warn(
            f"{machine.name} can't be asked, this is what reached the store: {error.what}"
        )
        return b""


def _position(workspace: Workspace, stored: StoredRun, machine: Machine | None, since: _Since) -> int:
    """Where in the log that time is: the events say now and then how long it was."""
    at = Position()
    said = b"".join(stored_bytes(workspace.store, stored.spec.run_id, "events", at))
    fast_s = 0.0
    if machine is not None:
        said += _newer(workspace, stored, machine, "events", at.bytes)
        fast_s = _ahead_s(workspace, machine)
    wanted, position, told = since.at(fast_s), 0, False
    for line in said.splitlines():
        event = events.parse(line) or {}
        length, t = event.get("bytes"), event.get("t")
        if event.get("type") == events.LOGGED and isinstance(length, int) and isinstance(t, int | float):
            told = True
            if t > wanted:
                break
            position = max(0, length)
    if said and not told:
        workspace.progress.warn("This run did not say when its lines came: all of them are shown")
    return position


def _ahead_s(workspace: Workspace, machine: Machine) -> float:
    """By how much the machine's clock is ahead of this computer's; 0 when it can't be asked."""
    try:
        with workspace.connect(machine) as connection:
            return float(connection.check("date +%s")) - datetime.now(UTC).timestamp()
    except (AuthError, CloudError, ConnectionLost, ValueError):
        return 0.0


def _lines(pieces: Iterator[bytes]) -> Generator[str, None, None]:
    rest = b""
    for piece in pieces:
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            yield _text(line)
        if len(rest) > LINE_CHARACTERS_MAX:
            yield _text(rest)
            rest = b""
    if rest:
        yield _text(rest)


def _text(line: bytes) -> str:
    """A bar that redraws itself with carriage returns counts as its last state."""
    shown = line.rstrip(b"\r").rpartition(b"\r")[2]
    return shown.decode("utf-8", "replace")[:LINE_CHARACTERS_MAX]
