"""The waiting line of a machine: one run per accelerator, or one at all where there is none.

Everything is a file lock (flock) below `MachineHome.locks`, so a crash frees its place and nothing has to be swept:

    run-<run id>        held by the supervisor of a run, and by its training: the run is active
    waiting-<number>    held by a run that waits; the lowest number that is held is the next
    accelerator-<n>     held while a run uses that accelerator
    line                held for the moment in which the line is looked at or changed
    packs               the same, for what is in the folder of packs
    fetch-<file>        held while that file is fetched
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from remote.contract.document import ContractError
from remote.contract.layout import checked_run_id


class AlreadyActive(Exception):
    """Another process supervises this run."""


@dataclass(frozen=True)
class Places:
    """Accelerators that a run holds, until `release` or the end of the process and of those that inherited them."""

    numbers: list[int]
    descriptors: list[int]

    def release(self) -> None:
        for descriptor in self.descriptors:
            with suppress(OSError):
                os.close(descriptor)
        self.descriptors.clear()


@dataclass
class Ticket:
    """A place in the line; it can be left twice."""

    locks: Path
    path: Path
    descriptor: int
    run_id: str
    torn: bool = False

    def try_take(self, count: int, of: int) -> Places | None:
        """`count` accelerators of the `of` that the machine has, once this ticket is the first in line."""
        with holding(self.locks / "line"):
            if self._ahead():
                return None
            places = _take(self.locks, count, of, self.run_id)
            if places:
                self._tear()
            return places

    def ahead(self, of: int) -> tuple[int, str]:
        """How many runs wait before this one; and for which it waits: the one before it, or who uses an accelerator."""
        with holding(self.locks / "line"):
            before = self._ahead()
            used = [self.locks / f"accelerator-{number}" for number in range(of)]
            names = [_run_of(path) for path in before or used if is_held(path)]
            return len(before), names[-1 if before else 0] if names else ""

    def leave(self) -> None:
        with holding(self.locks / "line"):
            self._tear()

    def handed_over(self) -> str:
        """How the process that inherits the descriptor is told of the ticket."""
        return f"{self.descriptor}:{self.path.name}"

    def _ahead(self) -> list[Path]:
        return [path for path in waiting(self.locks) if path.name < self.path.name and is_held(path)]

    def _tear(self) -> None:
        if self.torn:
            return  # another may have its number now, and its descriptor
        self.torn = True
        self.path.unlink(missing_ok=True)
        with suppress(OSError):
            os.close(self.descriptor)


def join(locks: Path, run_id: str) -> Ticket:
    """Take the last place in the line. Tickets of runs that died are swept on the way."""
    with holding(locks / "line"):
        tickets = waiting(locks)
        number = 1 + max((int(path.name.rpartition("-")[2]) for path in tickets), default=0)
        for path in tickets:
            if not is_held(path):
                path.unlink(missing_ok=True)
        path = locks / f"waiting-{number:08d}"
        descriptor = try_hold(path)
        assert descriptor is not None, "a new ticket can't be held by another"
        _note(descriptor, run_id)
        return Ticket(locks, path, descriptor, run_id)


def taken_over(locks: Path, handed_over: str, run_id: str) -> Ticket:
    """The ticket of the process that started this one."""
    descriptor, _, name = handed_over.partition(":")
    return Ticket(locks, locks / Path(name).name, int(descriptor), run_id)


def waiting(locks: Path) -> list[Path]:
    return sorted(path for path in locks.glob("waiting-*") if path.name.rpartition("-")[2].isdigit())


def accelerators() -> int:
    """How many accelerators of NVIDIA this machine shows; 0 where the processor trains (or Apple's GPU, which is one place)."""
    return sum(1 for path in Path("/dev").glob("nvidia[0-9]*") if path.name[6:].isdigit())


def run_lock(locks: Path, run_id: str) -> Path:
    return locks / f"run-{run_id}"


def hold_run(locks: Path, run_id: str, *, patience_s: float = 1.0) -> int:
    """The descriptor that makes this process the supervisor of a run. AlreadyActive when there is one.

    Somebody who asks `is_held` holds the lock for a moment, hence the patience.
    """
    deadline = time.monotonic() + patience_s
    while True:
        descriptor = try_hold(run_lock(locks, run_id))
        if descriptor is not None:
            return descriptor
        if time.monotonic() > deadline:
            raise AlreadyActive(run_id)
        time.sleep(0.02)


def try_hold(path: Path) -> int | None:
    """The descriptor of an exclusive lock, None when another has it. Closing it, or dying, frees the lock."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


@contextmanager
def holding(path: Path) -> Iterator[None]:
    """An exclusive lock for a moment; whoever has it is waited for."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def is_held(path: Path) -> bool:
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    else:
        return False
    finally:
        os.close(descriptor)


def _take(locks: Path, count: int, of: int, run_id: str) -> Places | None:
    places = Places([], [])
    for number in range(of):
        descriptor = try_hold(locks / f"accelerator-{number}")
        if descriptor is not None:
            _note(descriptor, run_id)
            places.numbers.append(number)
            places.descriptors.append(descriptor)
        if len(places.numbers) == count:
            return places
    places.release()
    return None


def _note(descriptor: int, run_id: str) -> None:
    """Whose lock it is, for people who wait."""
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, run_id.encode(), 0)


def _run_of(path: Path) -> str:
    """A run id, or nothing: a lock of an older tlvm says nothing."""
    with suppress(OSError, ContractError):
        return checked_run_id(path.read_text().strip())
    return ""
