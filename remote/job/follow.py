"""Send a growing file of a run, from a byte on, until the run is over and all of it is sent."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import BinaryIO

from remote.contract import document, frames
from remote.contract.layout import MachineHome, RunFolder
from remote.contract.run_status import FINAL, RunStatus
from remote.job import line

POLL_S = 0.1
LOOK_S = 0.5  # between two looks whether a quiet run is over


def follow(home: MachineHome, run_id: str, stream: str, start: int, out: BinaryIO) -> None:
    """Write `stream` ("events" or "log") as frames (see contract.frames), ending with the run's state.

    A run whose supervisor died without a final status ends the stream too, as INTERRUPTED.
    BrokenPipeError when nobody reads any more.
    """
    folder = home.run(run_id)
    with closing(Growing(folder.events if stream == "events" else folder.log, start)) as growing:
        state = _send_all(growing, out, lambda: _over(home, folder, run_id))
    out.write(frames.end(state))
    out.flush()


def _send_all(growing: Growing, out: BinaryIO, over: Callable[[], str | None]) -> str:
    """The state in which the run is over, when all of the file has been sent."""
    spoke, looked = time.monotonic(), -LOOK_S
    while True:
        state, now = None, time.monotonic()
        if now - looked >= LOOK_S:
            state, looked = over(), now  # asked before the read: what was written by then is read below
        if growing.send(out):
            spoke = now
            out.flush()
            looked = now if state is None else -LOOK_S  # who talks is not over
        elif state:
            return state
        elif now - spoke > frames.ALIVE_S / 2:
            out.write(frames.ALIVE)
            out.flush()
            spoke = now
        if state is None:
            time.sleep(POLL_S)


def read_status(folder: RunFolder) -> RunStatus | None:
    """None while there is none. ContractError when it is damaged."""
    try:
        text = folder.status.read_bytes()
    except FileNotFoundError:
        return None
    return document.decode(RunStatus, text, what=f"run status {folder.status}")


class Growing:
    """A file that only ever grows, read on from a byte; it may not be there yet.

    One that is shorter than that is of a run which was taken up from the store: what a reader knows beyond its end was
    lost with another machine, and comes anew.
    """

    def __init__(self, path: Path, position: int) -> None:
        self._path = path
        self._position = position
        self._descriptor: int | None = None

    def send(self, out: BinaryIO) -> bool:
        """All that is new, a bounded piece at a time; False when nothing is."""
        if self._descriptor is None:
            try:
                self._descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                return False
            self._position = min(self._position, os.fstat(self._descriptor).st_size)
        elif os.fstat(self._descriptor).st_nlink == 0:  # replaced: a run was taken up anew
            self.close()
            return self.send(out)
        before = self._position
        while data := os.pread(self._descriptor, frames.FRAME_BYTES_MAX, self._position):
            out.write(frames.frame(data))
            self._position += len(data)
        return self._position > before

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _over(home: MachineHome, folder: RunFolder, run_id: str) -> str | None:
    """The state in which a run came to rest; None while it is supervised (the last status comes before that ends)."""
    if line.is_held(line.run_lock(home.locks, run_id)):
        return None
    status = read_status(folder)
    return status.state if status and status.state in FINAL else "INTERRUPTED"
