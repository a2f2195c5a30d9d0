"""`tlvm cancel RUN`: end a run, waiting or at work, from any computer; and say how it ended."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from orchestrator import bundle
from orchestrator.errors import CloudError, ConflictError, ConnectionLost
from orchestrator.providers.base import Machine, MachineState
from orchestrator.stores.documents import write_document
from orchestrator.workflows.machines.readiness import let_in
from orchestrator.workflows.runs.attach import where
from orchestrator.workflows.runs.documents import StoredRun, required_run
from orchestrator.workflows.runs.overview import called, find
from orchestrator.workflows.workspace import Workspace
from remote.contract import document, layout
from remote.contract.run_status import FINAL, RunStatus

_ENDS_WITHIN_S = 120.0  # the machine itself waits for a minute
_NO_SUCH_RUN = 4
_NOT_IN_TIME = ConnectionLost.exit_code
BY_US = "cancelled while its machine was not there"


@dataclass(frozen=True)
class CancelResult:
    run_id: str
    state: str  # CANCELLED; another one that it had come to before
    was: str  # the last that was heard of it before: "QUEUED", "RUNNING", "SUCCEEDED"
    was_over: bool  # it had ended already, and nothing was done
    machine: str
    asked_machine: bool  # False: there was none, and the store was told


def cancel(workspace: Workspace, run: str) -> CancelResult:
    """End a run and return when it has ended. Twice is success, and so is a run that is over.

    run             an id, or the end of one
    NotFoundError   no such run
    ConflictError   its machine is stopped, or it is somebody else's
    ConnectionLost  its machine can't be reached, or the run did not end within a minute
    """
    run_id = find(workspace, run)
    stored = required_run(workspace.store, run_id)
    if not stored.active:
        return CancelResult(run_id, stored.state, stored.state, True, stored.machine, False)
    if stored.spec.owner != workspace.settings.owner_label:
        raise ConflictError(
            f"The run {run_id} belongs to {stored.spec.owner}",
            next=f"Only {stored.spec.owner} ends it; you are {workspace.settings.owner_label}.",
        )
    place = where(workspace, stored)
    machine = place.provider.get(stored.machine)
    state = _ask(place, stored, machine) if machine is not None else None
    if state is None:
        return _in_the_store(place, stored)
    return CancelResult(run_id, state, stored.state, False, stored.machine, True)


def _ask(place: Workspace, stored: StoredRun, machine: Machine) -> str | None:
    """The state in which it ended; None when that machine does not know the run."""
    run_id = stored.spec.run_id
    if machine.state is not MachineState.RUNNING:
        raise ConflictError(
            f"The machine {machine.name} is {machine.state.value}: the run {run_id} waits there",
            next="tlvm start, then tlvm cancel again; or tlvm down --force ends the machine and all it has.",
        )
    if not place.records.key_file(machine.provider, machine.name).exists():
        let_in(place, machine)
    with place.connect(machine) as connection:
        output = connection.run(
            bundle.command(stored.spec.bundle, "cancel", run_id), timeout_s=_ENDS_WITHIN_S
        )
    if output.exit_code == _NO_SUCH_RUN:
        return None
    if output.exit_code == _NOT_IN_TIME:
        raise ConnectionLost(
            f"The run {run_id} has been told to end, and has not ended within a minute",
            next=f"tlvm cancel {called(place, run_id)} waits again; tlvm status shows it.",
        )
    if output.exit_code:
        why = output.stderr[-2000:].decode(errors="replace").strip()
        raise CloudError(f"The run {run_id} can't be cancelled on {machine.name}", detail=why)
    return _state(output.stdout)


def _state(said: bytes) -> str:
    try:
        state = json.loads(said)["state"]
    except (ValueError, KeyError, TypeError, RecursionError):
        state = None
    if state not in FINAL:
        raise CloudError("The machine does not say how the run ended", next="tlvm status shows it.")
    return str(state)


def _in_the_store(place: Workspace, stored: StoredRun) -> CancelResult:
    """Nobody else will say any more how it ended: from now on nobody brings it back either."""
    run_id = stored.spec.run_id
    key = layout.run_key(run_id, "status.json")
    known = place.store.get(key)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    before = stored.status or RunStatus(run_id, "QUEUED", now)
    status = replace(before, state="CANCELLED", updated=now, finished=now, message=BY_US)
    generation = known.generation if known else 0
    write_document(place.store, key, document.encode(status), if_generation=generation)
    return CancelResult(run_id, "CANCELLED", stored.state, False, stored.machine, False)
