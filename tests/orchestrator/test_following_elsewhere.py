"""Machines that a test plays: a run moves from one to another while it is followed, or does not move any more."""

from __future__ import annotations

import dataclasses
import io
import json
import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

import pytest

from orchestrator.errors import ConnectionLost
from orchestrator.progress import Silent
from orchestrator.providers.base import Machine, MachineState
from orchestrator.render import machines as render_machines
from orchestrator.render.console import Screen
from orchestrator.ssh import Connection, Output
from orchestrator.workflows.clock import Clock
from orchestrator.workflows.machines.status import status
from orchestrator.workflows.runs.documents import required_run
from orchestrator.workflows.runs.following import Position, follow, follow_events
from orchestrator.workflows.runs.overview import runs
from orchestrator.workflows.runs.stored_streams import follow_stored
from orchestrator.workflows.runs.unfinished import FROZEN
from orchestrator.workflows.runs.watch import LOOK_S
from orchestrator.workflows.workspace import Workspace
from remote.contract import document, frames
from remote.contract.run_attempt import Attempt
from remote.contract.run_status import PUBLISHES_SILENTLY, PUBLISHING, AttemptTimes, RunStatus
from tests.orchestrator.scripted_provider import FakeTime, Scripted, machine_of, scripted
from tests.orchestrator.stored_runs import RUN, put, put_run

CREATED = "2026-08-07T14:25:30+00:00"


def line(number: int, machine: str) -> bytes:
    return json.dumps({"t": 1.0, "type": "log", "text": f"{number} on {machine}"}).encode() + b"\n"


@dataclass
class Played:
    """A machine with the run; it is a Connection to itself."""

    machine: Machine
    events: bytes
    status: RunStatus | None = None
    silent_asks: int = 0  # so often it does not know of the run yet
    pieces: Callable[[bytes], Iterator[bytes]] = lambda data: iter([frames.frame(data), frames.end("FAILED")])
    quiet_s: float | None = 0.0
    asked: int = 0

    def run(self, command: str, *, input: bytes | None = None, timeout_s: float = 60) -> Output:
        self.asked += 1
        rows = []
        if self.status and self.asked > self.silent_asks:
            rows = [{"active": True, "status": dataclasses.asdict(self.status), "quiet_s": self.quiet_s}]
        return Output(0, json.dumps({"schema": 1, "runs": rows}).encode(), b"")

    def check(self, command: str) -> bytes:
        return RUN.encode()

    def stream(
        self, command: str, *, idle_timeout_s: float = 0, speaks_within_s: float = 0
    ) -> Iterator[bytes]:
        words = shlex.split(command)
        start = int(words[words.index("--from") + 1])
        yield from self.pieces(self.events[min(start, len(self.events)) :])

    def __enter__(self) -> Played:
        return self

    def __exit__(self, *of_error: object) -> None:
        pass


@dataclass
class Lab:
    workspace: Workspace
    provider: Scripted
    folder: Path
    time: FakeTime = field(default_factory=FakeTime)
    told: list[str] = field(default_factory=list)

    def machine(self, id: str) -> Machine:
        return machine_of(self.workspace.settings.machine_name, id=id, state=MachineState.RUNNING)

    def attempt(self, number: int, machine: Machine) -> None:
        now = datetime.now(UTC).isoformat()
        asked = Attempt(number, machine.name, "local", "here", 0, now, machine_id=machine.id)
        put(self.workspace, self.folder, f"attempts/{number}.json", document.encode(asked))

    def is_on(self, played: Played) -> None:
        self.provider.there[played.machine.name] = played.machine
        vars(self.workspace)["connect"] = lambda machine, **more: played

    def texts(self, at: Position, first: Played | None = None) -> list[str]:
        spec = required_run(self.workspace.store, RUN).spec
        opened = cast("Connection | None", first)
        pieces = follow(
            self.workspace, spec, "events", connection=opened, machine=first.machine if first else None, at=at,
            clock=self.time.clock,
        )  # fmt: skip
        return [event["text"] for event in follow_events(pieces, at)]


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    provider = Scripted([])
    found = Lab(scripted(tmp_path, provider), provider, tmp_path)
    machine = found.machine("first")
    put_run(found.workspace, tmp_path, machine, state="RUNNING", publish=False)
    found.attempt(1, machine)

    class Telling(Silent):
        def warn(self, text: str) -> None:
            found.told.append(text)

    found.workspace.progress = Telling()
    return found


def moved(lab: Lab, *, silent_asks: int = 0) -> tuple[Played, Played]:
    """The first machine sent 0, 1, 2 and half of 3, of which the store has 0 and 1; the second one went on from there."""
    first, second = lab.machine("first"), lab.machine("second")
    kept = line(0, "first") + line(1, "first")
    old = Played(first, kept + line(2, "first") + line(3, "first"))
    went_on = kept + b"".join(line(number, "second") for number in (2, 3, 4, 5, 6))
    times = [
        AttemptTimes(1, first.name, CREATED),
        AttemptTimes(2, second.name, CREATED, events_from=len(kept)),
        AttemptTimes(3, second.name, CREATED, events_from=len(kept) + 70),  # it has restarted since
    ]
    new = Played(second, went_on, RunStatus(RUN, "RUNNING", CREATED, attempts=times), silent_asks)

    def cut(data: bytes) -> Iterator[bytes]:
        lab.is_on(new)
        lab.attempt(2, second)
        yield frames.frame(data[: len(kept) + len(line(2, "first")) + 20])
        raise ConnectionLost("cut")

    old.pieces = cut
    return old, new


ALL = ["0 on first", "1 on first", "2 on first", *(f"{number} on second" for number in (2, 3, 4, 5, 6))]


@pytest.mark.parametrize("silent_asks", [0, 30])
def test_who_follows_while_another_brings_the_run_back_elsewhere_misses_no_line(
    lab: Lab, silent_asks: int
) -> None:
    """Also where the other machine takes long to take it up: it does not know the run until it has."""
    old, new = moved(lab, silent_asks=silent_asks)
    at = Position()
    assert lab.texts(at, first=old) == ALL
    assert at.bytes == len(new.events) and new.asked == silent_asks + 1


def test_on_the_same_machine_it_goes_on_at_the_very_byte(lab: Lab) -> None:
    old, _ = moved(lab)
    whole = old.events

    def cut(data: bytes) -> Iterator[bytes]:
        lab.is_on(dataclasses.replace(old, events=whole, pieces=Played.pieces))
        yield frames.frame(data[:70])
        raise ConnectionLost("cut")

    old.pieces = cut
    assert lab.texts(Position(), first=old) == [f"{number} on first" for number in range(4)]


def test_a_machine_that_never_says_where_it_goes_on_is_followed_all_the_same(lab: Lab) -> None:
    old, new = moved(lab, silent_asks=1000)
    assert lab.texts(Position(), first=old)[:3] == ALL[:3]
    assert 60 < new.asked < 200


def test_a_line_that_came_in_part_is_read_again_by_whoever_goes_on(lab: Lab) -> None:
    """The run comes to rest in the middle of a line, and is brought back."""
    old, _ = moved(lab)
    lab.is_on(old)
    old.pieces = lambda data: iter([frames.frame(data[:70]), frames.end("INTERRUPTED")])
    at = Position()
    first = lab.texts(at, first=old)
    old.pieces = Played.pieces
    assert [*first, *lab.texts(at)] == [f"{number} on first" for number in range(4)]


# Nothing moves


def alive(lab: Lab, minutes: int, each_minute: Callable[[int], None]) -> Callable[[bytes], Iterator[bytes]]:
    def pieces(data: bytes) -> Iterator[bytes]:
        for minute in range(minutes):
            lab.time.seconds += 60
            each_minute(minute)
            yield frames.ALIVE
        yield frames.end("FAILED")

    return pieces


@pytest.mark.parametrize(
    ("message", "ticks", "tells", "said"),
    [
        ("", False, True, True),
        ("", True, True, False),  # a long epoch
        (PUBLISHING, False, True, True),
        (PUBLISHING, True, True, False),  # a long upload
        (PUBLISHES_SILENTLY, False, True, False),  # the bundle of an older tlvm
        ("", False, False, False),  # the bundle of an older tlvm, which writes its status rarely
    ],
)
def test_a_frozen_supervisor_is_said_and_what_to_do(
    lab: Lab, message: str, ticks: bool, tells: bool, said: bool
) -> None:
    """Its machine answers, and its clock may say anything."""
    status = RunStatus(RUN, "RUNNING", CREATED, message=message)
    played = Played(lab.machine("first"), b"", status, quiet_s=0.0 if tells else None)

    def each_minute(minute: int) -> None:
        if ticks:
            played.status = dataclasses.replace(status, updated=f"2026-08-07T14:{minute:02d}:00+00:00")

    played.pieces = alive(lab, 10, each_minute)
    assert lab.texts(Position(), first=played) == []
    assert bool(lab.told) == said
    if said:
        assert f"the supervisor of {RUN} on {played.machine.name} has said nothing for 2 min" in lab.told[0]
        assert f"tlvm cancel {RUN[-4:]}" in lab.told[0] and "tlvm down --force" in lab.told[0]
        assert f"tlvm attach --recover {RUN[-4:]}" in lab.told[0]
        assert "for 8 min" in lab.told[-1]


@pytest.mark.parametrize(
    ("quiet_s", "message", "doubt"),
    [
        (200.0, "", FROZEN),
        (20.0, "", ""),
        (200.0, PUBLISHING, FROZEN),
        (20.0, PUBLISHING, ""),
        (200.0, PUBLISHES_SILENTLY, ""),
        (None, "", ""),
        (float("nan"), "", ""),
    ],
)
def test_status_and_runs_tell_it_by_the_clock_of_the_machine(
    lab: Lab, quiet_s: float | None, message: str, doubt: str
) -> None:
    said = RunStatus(RUN, "RUNNING", CREATED, message=message)
    put(lab.workspace, lab.folder, "status.json", document.encode(said))
    lab.is_on(Played(lab.machine("first"), b"", said, quiet_s=quiet_s))
    (row,) = runs(lab.workspace).runs
    assert (row.state, row.doubt) == ("RUNNING", doubt)
    out = io.StringIO()
    render_machines.overview(Screen(out, io.StringIO()), status(lab.workspace))
    next = out.getvalue().splitlines()[-1]
    assert next.startswith(f"next: tlvm {'cancel' if doubt else 'attach'} {RUN[-4:]}")
    assert (FROZEN in out.getvalue(), "tlvm down --force" in next) == (bool(doubt), bool(doubt))


@pytest.mark.parametrize(("message", "said"), [("", True), (PUBLISHING, True), (PUBLISHES_SILENTLY, False)])
def test_through_the_store_it_is_said_too(lab: Lab, message: str, said: bool) -> None:
    polls = 0

    def sleep(seconds: float) -> None:
        nonlocal polls
        polls += 1
        lab.time.seconds += seconds
        if polls == 74:
            put(lab.workspace, lab.folder, "status.json", document.encode(RunStatus(RUN, "FAILED", "now")))

    works = RunStatus(RUN, "RUNNING", CREATED, message=message)
    put(lab.workspace, lab.folder, "status.json", document.encode(works))
    lab.is_on(Played(lab.machine("first"), b""))
    clock = Clock(now=lambda: lab.time.seconds, sleep=sleep)
    assert list(follow_stored(lab.workspace, RUN, "events", clock=clock)) == []
    assert len(lab.told) == (74 * 5 // LOOK_S - 1 if said else 0)
    assert all("seems frozen" in text for text in lab.told)
