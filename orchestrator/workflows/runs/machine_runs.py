"""Which runs a machine itself knows, over SSH: a run that was announced in the store may never have started there."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from orchestrator.errors import AuthError, ConnectionLost, TlvmError, TransientError
from orchestrator.providers.base import Machine, MachineState
from orchestrator.workflows.runs.documents import StoredRun
from orchestrator.workflows.workspace import Workspace
from remote.contract import layout
from remote.contract.document import ContractError

if TYPE_CHECKING:
    from orchestrator.ssh import Connection

STARTS_WITHIN = timedelta(seconds=60)  # from its last word; another terminal may be about to start it


def runs_on(workspace: Workspace, machine: Machine) -> set[str] | None:
    """The runs that the machine has, whatever its clock and the store say; None when it can't be asked."""
    if machine.state is not MachineState.RUNNING:
        return None
    try:
        with workspace.connect(machine) as connection:
            return names_of_runs(connection)
    except (AuthError, ConnectionLost, TransientError) as error:
        workspace.progress.warn(f"{machine.name} can't be asked for its runs, the store is: {error.what}")
        return None


def names_of_runs(connection: Connection) -> set[str]:
    names = connection.check("ls ~/.tlvm/runs 2>/dev/null || true").decode(errors="replace").split()
    return {name for name in names if _is_run_id(name)}


def runs_of(machine: Machine, runs: Sequence[StoredRun]) -> list[StoredRun]:
    """The runs of this very machine, not of an earlier one of its name, nor of one that another provider has."""
    return [
        run
        for run in runs
        if run.machine == machine.name
        and run.provider in ("", machine.provider)
        and time_of(run.asked) >= machine.created.replace(microsecond=0)
    ]


def never_started(runs: Sequence[StoredRun], known: set[str] | None) -> set[str]:
    """The announced ones of which nobody has heard since: not the machine, which answers, nor the store."""
    if known is None:
        return set()
    return {run.spec.run_id for run in runs if run.status is None and is_silent(run)} - known


def is_silent(run: StoredRun) -> bool:
    """The store has not heard of it for a while, and the machine may know more. A long epoch is no reason to worry."""
    return _age(run.status.updated if run.status else run.asked) > STARTS_WITHIN


def take_back(workspace: Workspace, run_id: str) -> None:
    """End the announcement of a run that never started."""
    try:
        workspace.store.delete(layout.run_key(run_id, "spec.json"))
        for blob in list(workspace.store.blobs(layout.attempts_prefix(run_id))):
            workspace.store.delete(blob.key)
    except TlvmError as error:
        workspace.progress.warn(f"The run {run_id} never started, but is still announced: {error.what}")
        return
    workspace.records.forget_run(run_id)


def _is_run_id(name: str) -> bool:
    try:
        layout.checked_run_id(name)
    except ContractError:
        return False
    return True


def time_of(text: str) -> datetime:
    """When a run was made; a time that can't be read counts as the newest, so that its result is looked for."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return datetime.max.replace(tzinfo=UTC)
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _age(created: str) -> timedelta:
    """Nothing for a time that can't be read, or lies ahead."""
    return max(timedelta(0), datetime.now(UTC) - time_of(created))
