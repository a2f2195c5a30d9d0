"""A training has ended: does it begin again? It then goes on from what it has kept.

One that somebody killed does, as long as it comes further; one that was killed for memory would be killed again. One
whose disk was full does as soon as there is room: its last checkpoint is whole, and only what came later is lost.
"""

from __future__ import annotations

import dataclasses
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

from remote.job.outcome import INTERRUPTED_EXIT, NO_ROOM_EXIT, UNUSABLE_EXIT
from remote.job.pace import PAUSE_MAX_S
from remote.job.training_process import End, Limits

_KILLED_MAX = 2  # times that it begins again, after it was killed without having come any further
_OF_ITS_OWN = (0, UNUSABLE_EXIT, INTERRUPTED_EXIT)


class Again:
    """Of one attempt of a run.

    tell        is given a line for people
    status      is given what the run's status says while it waits for room, and "" when that is over
    check       called all the time while the run waits for room; what it raises ends the waiting
    free        bytes of the disk that the run writes to
    """

    def __init__(
        self,
        folder: Path,
        limits: Limits,
        *,
        tell: Callable[[str], None],
        status: Callable[[str], None],
        check: Callable[[], None],
        free: Callable[[], int] | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._limits = limits
        self._tell = tell
        self._status = status
        self._check = check
        self._free = free or (lambda: shutil.disk_usage(folder).free)
        self._clock = clock
        self._sleep = sleep
        self._epoch = 0  # the furthest that it came
        self._came_further()

    def after(self, end: End, *, epoch: int, left_s: float) -> End | None:
        """None: it begins again. Else how it ended, the time that is left of its max_hours being over counted in.

        epoch       how many are over
        """
        if epoch > self._epoch:
            self._epoch = epoch
            self._came_further()
        if end.why or end.out_of_memory or end.exit_code in _OF_ITS_OWN:
            return end
        if end.exit_code == -signal.SIGKILL:
            return None if self._is_worth_it() else end
        if end.exit_code == NO_ROOM_EXIT or not self._has_room():
            return self._wait_for_room(end, left_s)
        return end

    def _came_further(self) -> None:
        self._kills_left = _KILLED_MAX
        self._full_since: float | None = None
        self._pause_s = 1.0

    def _is_worth_it(self) -> bool:
        if not self._kills_left:
            return False
        self._kills_left -= 1
        self._tell("The training was killed; it goes on from what it has kept")
        return True

    def _wait_for_room(self, end: End, left_s: float) -> End | None:
        """At least a moment, a longer one each time: what the training lacked is more than we can see from here."""
        began = self._clock()
        self._full_since = began if self._full_since is None else self._full_since
        patience_ends, hours_end = self._full_since + self._limits.room_s, began + left_s
        again, self._pause_s = began + self._pause_s, min(2 * self._pause_s, PAUSE_MAX_S)
        waits = f"The disk of the machine is full ({self._free() / 1e6:.0f} MB free): the run waits for room"
        self._tell(waits)
        self._status(waits)
        while (now := self._clock()) < min(patience_ends, hours_end):
            self._check()
            if now >= again and self._has_room():
                self._tell(
                    f"There is room again after {now - began:.0f} s: the run goes on from what it has kept"
                )
                self._status("")
                return None
            self._sleep(self._limits.poll_s)
        return dataclasses.replace(end, why="overtime") if hours_end <= patience_ends else end

    def _has_room(self) -> bool:
        return self._free() >= self._limits.room_bytes
