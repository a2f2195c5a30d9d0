"""Start a run so that it needs nobody, and end one: what the laptop asks for over SSH."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence

from remote.contract.document import ContractError
from remote.contract.layout import MachineHome
from remote.contract.run_status import FINAL, State
from remote.contract.start_request import StartRequest, read_start
from remote.job import line
from remote.job.asked import keep_request
from remote.job.follow import read_status
from remote.job.record import is_over, read_spec
from remote.job.supervisor import cancel_mark, prepare, supervise

SUPERVISE = (sys.executable, "-m", "remote")


class AlreadyOver(Exception):
    """The run has ended and its result is published: nothing is left to do."""


def accept(text: bytes, home: MachineHome) -> StartRequest:
    """What a laptop asks for. ContractError when it is none, or when another run has this name on this machine."""
    request = read_start(text)
    path = home.run(request.spec.run_id).spec
    if path.exists() and read_spec(path) != request.spec:
        raise ContractError(f"{request.spec.run_id} has another run spec on this machine")
    return request


def start(request: StartRequest, home: MachineHome, *, command: Sequence[str] = SUPERVISE) -> int:
    """Supervise a run in a session of its own, which needs neither us nor any connection; its process id.

    The lock of the run is taken here and handed over, so that it is active when this returns.
    AlreadyActive, AlreadyOver, ContractError
    """
    spec = request.spec
    lock = line.hold_run(home.locks, spec.run_id)
    try:
        folder = prepare(home, spec)
        if is_over(read_status(folder)):
            raise AlreadyOver(spec.run_id)
        keep_request(folder, request)
        ticket = line.join(home.locks, spec.run_id)  # here, so that runs wait in the order of their starts
        try:
            with (folder.root / "supervisor.log").open("ab") as log:
                process = subprocess.Popen(
                    [*command, str(folder.spec), "--lock", str(lock), "--ticket", ticket.handed_over()],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    pass_fds=[lock, ticket.descriptor],
                    start_new_session=True,
                )
        finally:
            os.close(ticket.descriptor)
    finally:
        os.close(lock)
    return process.pid


def cancel(home: MachineHome, run_id: str, *, patience_s: float = 60) -> State | None:
    """Ask a run to end and wait until it has; its state then, None when it did not end in time.

    A run that nobody supervises is ended here. FileNotFoundError when there is no such run.
    """
    folder = home.run(run_id)
    status = read_status(folder)
    if status and status.state in FINAL:
        return status.state
    cancel_mark(folder).touch()
    deadline = time.monotonic() + patience_s
    while line.is_held(line.run_lock(home.locks, run_id)):
        if time.monotonic() > deadline:
            return None
        time.sleep(0.1)
    status = read_status(folder)
    if status is None or status.state not in FINAL:
        supervise(folder.spec, home)
        status = read_status(folder)
    return status.state if status else None
