"""A disk that is full costs lines and time, never the run. /dev/full takes nothing; a small tmpfs is full for a while."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from remote.contract import layout
from remote.contract.events import EventWriter, parse
from remote.contract.full_disk import ForgivingLog, is_from_full_disk
from remote.contract.layout import RunFolder
from remote.job.again import Again
from remote.job.outcome import Stopped, judged
from remote.job.reserve import RESERVE_BYTES, reserved
from remote.job.training_process import End, Limits
from tests.remote.machine import TestMachine, events_of, eventually
from tests.small_disk import small_disk

FULL = Path("/dev/full")
pytestmark = pytest.mark.needs("/dev/full")


def test_events_that_find_no_room_are_counted_and_said(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.symlink_to(FULL)
    writer = EventWriter(path)
    for epoch in range(3):
        writer.emit("epoch", epoch=epoch)
    path.unlink()
    room = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.dup2(room, writer.descriptor)
    os.close(room)
    writer.emit("epoch", epoch=3)
    writer.emit("epoch", epoch=4)
    writer.close()
    told, *others = [parse(line) or {} for line in path.read_bytes().splitlines()]
    assert told["text"] == "The disk of the machine was full: events are missing here (3)"
    assert [event["epoch"] for event in others] == [3, 4]


def test_a_line_of_the_log_that_finds_no_room_is_left_out() -> None:
    with FULL.open("w", buffering=1) as log:
        print("epoch 1", file=ForgivingLog(log), flush=True)
        with pytest.raises(OSError, match="No space left"):
            print("epoch 1", file=log, flush=True)
        os.dup2(os.open(os.devnull, os.O_WRONLY), log.fileno())  # what is buffered goes at the close


def test_another_trouble_is_still_one(tmp_path: Path) -> None:
    writer = EventWriter(tmp_path / "events.jsonl")
    writer.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        writer.emit("epoch", epoch=1)


def wrapped(error: BaseException, outer: BaseException) -> BaseException:
    try:
        raise outer from error
    except type(outer) as raised:
        return raised


@pytest.mark.parametrize(
    ("error", "full"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), True),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), True),
        (RuntimeError("I/O error: No space left on device (os error 28)"), True),  # as safetensors says it
        (wrapped(OSError(errno.ENOSPC, "No space left"), RuntimeError("it can't be written")), True),
        (OSError(errno.EIO, "Input/output error"), False),
        (RuntimeError("I/O error: Input/output error (os error 5)"), False),
        (RuntimeError("no space left in the tensor"), False),
    ],
)
def test_a_full_disk_is_known_however_it_is_wrapped(error: BaseException, full: bool) -> None:
    assert is_from_full_disk(error) is full


NO_ROOM, CRASH, KILLED = (End(code, "", False, 100.0) for code in (13, 1, -9))


@dataclass
class Disk:
    """Of a machine whose time and free space are the test's."""

    free: int = 0
    now: float = 0.0
    told: list[str] = field(default_factory=list)
    statuses: list[str] = field(default_factory=list)
    happens: Callable[[float], None] = lambda now: None

    def again(self) -> Again:
        return Again(
            Path("/"),
            Limits(room_s=600, room_bytes=64, poll_s=1),
            tell=self.told.append,
            status=self.statuses.append,
            check=lambda: self.happens(self.now),
            free=lambda: self.free,
            clock=lambda: self.now,
            sleep=self.sleep,
        )

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def gets_room_at(self, when: float) -> None:
        def happens(now: float) -> None:
            self.free = 100 if now >= when else 0

        self.happens = happens


@pytest.mark.parametrize("end", [NO_ROOM, CRASH])
def test_a_training_whose_disk_was_full_begins_again_once_there_is_room(end: End) -> None:
    """It says so itself, or crashed where hardly any is left: memory that is mapped to a full disk says nothing."""
    disk = Disk()
    disk.gets_room_at(300)
    assert disk.again().after(end, epoch=1, left_s=9999) is None
    assert disk.now == 300
    assert disk.told == [
        "The disk of the machine is full (0 MB free): the run waits for room",
        "There is room again after 300 s: the run goes on from what it has kept",
    ]
    assert disk.statuses == [disk.told[0], ""]


def test_one_that_says_so_begins_again_although_there_is_room_by_now() -> None:
    """Each time a longer moment later, and no longer than its patience."""
    disk, again = Disk(free=100), None
    again, times = disk.again(), []
    while (ended := again.after(NO_ROOM, epoch=1, left_s=9999)) is None:
        times.append(disk.now)
    assert times[:4] == [1, 3, 7, 15] and times[-1] > 540 and disk.now == 600
    assert ended == NO_ROOM
    again.after(NO_ROOM, epoch=2, left_s=9999)  # it came further: its patience begins anew
    assert disk.now == 601


def test_patience_and_hours_and_whoever_wants_its_end_end_the_waiting() -> None:
    disk = Disk()
    assert disk.again().after(NO_ROOM, epoch=0, left_s=9999) == NO_ROOM
    assert disk.now == 600
    disk.now = 0.0
    ended = disk.again().after(NO_ROOM, epoch=0, left_s=90)
    assert ended is not None and (ended.why, disk.now) == ("overtime", 90)

    def cancelled(now: float) -> None:
        if now >= 100:
            raise Stopped("cancelled", "cancelled")

    disk.happens = cancelled
    with pytest.raises(Stopped):
        disk.again().after(NO_ROOM, epoch=0, left_s=9999)
    assert disk.now == 100


@pytest.mark.parametrize(
    "end",
    [
        End(0, "", False, 100.0),
        End(3, "", False, 100.0),
        End(12, "", False, 100.0),
        End(-15, "cancelled", False, 100.0),
        End(-9, "", True, 100.0),
    ],
)
def test_what_ended_for_another_reason_waits_for_no_room(end: End) -> None:
    disk = Disk()
    assert disk.again().after(end, epoch=1, left_s=9999) is end
    assert disk.told == []


def test_a_crash_with_room_is_a_crash_and_a_kill_begins_again_as_long_as_it_comes_further() -> None:
    disk = Disk(free=100)
    again = disk.again()
    assert again.after(CRASH, epoch=1, left_s=9999) is CRASH
    assert [again.after(KILLED, epoch=1, left_s=9999) for _ in range(3)] == [None, None, KILLED]
    assert again.after(KILLED, epoch=2, left_s=9999) is None


def test_who_found_no_room_in_time_says_what_to_do(tmp_path: Path) -> None:
    machine = TestMachine(tmp_path)
    outcome = judged(NO_ROOM, machine.spec("no room"), RunFolder(tmp_path), Limits(room_s=600), error="")
    assert outcome.state == "FAILED"
    assert "full, and no room came within 10 minutes" in outcome.message and "disk_gb" in outcome.message


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[TestMachine]:
    machine = TestMachine(tmp_path, room_bytes=300_000)
    yield machine
    machine.end()


@pytest.mark.needs("mount namespaces")
def test_a_run_whose_disk_is_full_waits_and_ends_well(machine: TestMachine) -> None:
    """A disk of 2 MB with a large file on it, which somebody removes."""
    spec = machine.spec("no room")
    home = machine.home.root.parent
    fill = f'head -c 1850000 /dev/zero >"{home}/fill"'
    supervisor = machine.begin(spec, within=small_disk(home, "2m", then=fill))
    seen = Path(f"/proc/{supervisor.pid}/root")
    folder = RunFolder(seen / machine.run_folder(spec).root.relative_to("/"))
    eventually(lambda: folder.status.exists() and "waits for room" in folder.status.read_text())
    (seen / home.relative_to("/") / "fill").unlink()
    assert supervisor.wait(60) == 0
    assert machine.stored_status(spec).state == "SUCCEEDED" and machine.stored_status(spec).message == ""
    said = [event.get("text", "") for event in events_of(machine.stored_stream(spec, "events"))]
    assert any("The disk of the machine is full" in text for text in said)
    assert any("There is room again" in text for text in said)
    assert machine.stored_stream(spec, "log").decode().count("training begins") == 2


@pytest.mark.needs("mount namespaces")
def test_a_run_whose_disk_has_not_one_byte_left_says_so_in_the_store(machine: TestMachine) -> None:
    """The store is elsewhere: what is written on the disk of the machine on its way there needs room, too."""
    machine.room_bytes, machine.tell_s = 6_000_000, 0.1
    spec = machine.spec("no byte left")
    home = machine.home.root.parent
    supervisor = machine.begin(spec, within=small_disk(home, "16m"))
    seen = Path(f"/proc/{supervisor.pid}/root") / home.relative_to("/")
    status = machine.store / layout.run_key(spec.run_id, "status.json")
    eventually(lambda: status.exists() and "waits for room" in machine.stored_status(spec).message)
    eventually(lambda: b"The disk of the machine is full" in machine.stored_stream(spec, "events"))
    (seen / "fill").unlink()
    assert supervisor.wait(60) == 0
    assert machine.stored_status(spec).state == "SUCCEEDED" and machine.stored_status(spec).message == ""
    assert machine.stored_stream(spec, "log").decode().count("training begins") == 2


def test_what_is_kept_back_is_free_afterwards_and_leaves_what_others_need(tmp_path: Path) -> None:
    for there_is_room, beyond_bytes in ((True, 0), (False, 2**62)):
        with reserved(tmp_path, beyond_bytes=beyond_bytes):
            assert [path.stat().st_size for path in tmp_path.iterdir()] == [RESERVE_BYTES] * there_is_room
        assert list(tmp_path.iterdir()) == []


def test_a_run_that_waits_for_room_can_be_cancelled_and_is_taken_away(machine: TestMachine) -> None:
    machine.room_bytes = 2**62  # no disk has as much
    spec = machine.spec("crash")
    supervisor = machine.begin(spec)
    eventually(
        lambda: machine.run_folder(spec).status.exists() and "waits for room" in machine.status(spec).message
    )
    supervisor.send_signal(signal.SIGTERM)
    assert supervisor.wait(30) == 12
    assert machine.stored_status(spec).state == "INTERRUPTED"
    again = machine.begin(spec)
    eventually(lambda: "waits for room" in machine.status(spec).message)
    (machine.run_folder(spec).root / "cancel").touch()
    assert again.wait(30) == 130
    status = machine.stored_status(spec)
    assert status.state == "CANCELLED" and status.attempts[0].used_s > 0
