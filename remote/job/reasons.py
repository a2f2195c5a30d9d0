"""Why a run has to end before it is done: looked at all the time, wherever it is."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Protocol

from remote.contract.layout import RunFolder
from remote.job.asked import read_asked
from remote.job.outcome import TAKEN_AWAY, Stopped
from remote.job.training_process import Limits, Why

_ALLOWANCE = 2  # times what the last checkpoint took to the store: the next may be slower


class Speaks(Protocol):
    """What is asked of the publisher."""

    superseded: str

    def checkpoint_s(self) -> float: ...


class Reasons:
    """`publisher` is set as soon as there is one."""

    def __init__(self, folder: RunFolder, asked_to_end: threading.Event, limits: Limits) -> None:
        self.publisher: Speaks | None = None
        self.text = ""  # of the last `why`, for people
        self._cancel_mark = cancel_mark(folder)
        self._asked_to_end = asked_to_end
        self._asked = read_asked(folder)
        self._limits = limits

    def check(self) -> None:
        """Stopped when there is one."""
        if why := self.why():
            raise Stopped(why, self.text)

    def why(self) -> Why:
        if self._cancel_mark.exists():
            self.text = "cancelled"
            return "cancelled"
        if self.publisher and self.publisher.superseded:
            self.text = self.publisher.superseded
            return "superseded"
        left_s = self._asked.seconds_left()
        if left_s is not None and left_s <= self._needed_s():
            self.text = f"the time of the machine is over in {max(0.0, left_s):.0f} s"
            return "interrupted"
        if self._asked_to_end.is_set():
            self.text = TAKEN_AWAY
            return "interrupted"
        return ""

    def patience_s(self) -> float:
        """How long what is said last may take: until the hard end, or the moment that a machine gets when it is taken away.

        Who asks for the end shortly before the hard one means that: the guard does, 240 s before.
        """
        left_s = self._asked.seconds_left()
        taken_away = self._asked_to_end.is_set() and (left_s is None or left_s > self._limits.warned_s)
        if left_s is None or taken_away:
            return self._limits.grace_s
        return max(self._limits.grace_s, left_s - self._limits.margin_s / 2)

    def _needed_s(self) -> float:
        """To stop, to write a checkpoint and to send it: measured on the last one."""
        sent_s = self.publisher.checkpoint_s() if self.publisher else 0.0
        return (
            self._limits.grace_s + _ALLOWANCE * (sent_s or self._limits.unmeasured_s) + self._limits.margin_s
        )


def cancel_mark(folder: RunFolder) -> Path:
    return folder.root / "cancel"
