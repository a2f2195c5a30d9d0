"""Send a growing file of a run, from a byte on, until the run is over and all of it is sent."""

from __future__ import annotations

import time
from pathlib import Path
from typing import BinaryIO

from remote.contract import document, frames
from remote.contract.layout import MachineHome, RunFolder
from remote.contract.run_status import FINAL, RunStatus
from remote.job import line

POLL_S = 0.1


def follow(home: MachineHome, run_id: str, stream: str, start: int, out: BinaryIO) -> None:
    """Write `stream` ("events" or "log") as frames (see contract.frames), ending with the run's state.

    A run whose supervisor died without a final status ends the stream too, as INTERRUPTED.
    BrokenPipeError when nobody reads any more.
    """
    folder = home.run(run_id)
    path = folder.events if stream == "events" else folder.log
    position, spoke = start, time.monotonic()
    while True:
        over = _over(home, folder, run_id)  # asked before the read: what was written until then is read below
        sent = _send(path, position, out)
        position += sent
        now = time.monotonic()
        if sent:
            spoke = now
            out.flush()
            continue
        if over:
            out.write(frames.end(over))
            out.flush()
            return
        if now - spoke > frames.ALIVE_S / 2:
            out.write(frames.ALIVE)
            out.flush()
            spoke = now
        time.sleep(POLL_S)


def read_status(folder: RunFolder) -> RunStatus | None:
    """None while there is none. ContractError when it is damaged."""
    try:
        text = folder.status.read_bytes()
    except FileNotFoundError:
        return None
    return document.decode(RunStatus, text, what=f"run status {folder.status}")


def _send(path: Path, position: int, out: BinaryIO) -> int:
    """The number of bytes sent: all that the file has beyond `position`, a bounded piece at a time."""
    sent = 0
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return 0
    with file:
        file.seek(position)
        while data := file.read(frames.FRAME_BYTES_MAX):
            out.write(frames.frame(data))
            sent += len(data)
    return sent


def _over(home: MachineHome, folder: RunFolder, run_id: str) -> str | None:
    """The state in which a run came to rest; None while it is supervised (the last status comes before that ends)."""
    if line.is_held(line.run_lock(home.locks, run_id)):
        return None
    status = read_status(folder)
    return status.state if status and status.state in FINAL else "INTERRUPTED"
