"""`tlvm runs`: every run that the store knows, and which one is meant by the end of an id."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from orchestrator.config import nearest
from orchestrator.errors import ConfigError, NotFoundError
from orchestrator.providers.base import Machine
from orchestrator.workflows.run_documents import StoredRun, run_ids, stored_runs
from orchestrator.workflows.status import no_machine, runs_of
from orchestrator.workflows.workspace import Workspace
from remote.contract import layout
from remote.contract.document import ContractError
from remote.contract.run_status import LOST


@dataclass(frozen=True)
class RunRow:
    run_id: str
    state: str  # LOST when its machine is gone without a final status
    message: str
    scenario: str
    dataset: str
    dataset_version: str
    model: str
    weights: str  # for people: "ImageNet V1"
    machine: str
    owner: str
    project: str
    created: str  # ISO 8601, UTC
    started: str | None
    finished: str | None
    published: bool  # its result is in the store
    pulled_to: str | None  # where it lies on this computer


@dataclass(frozen=True)
class RunsResult:
    store: str
    runs: list[RunRow]  # newest first
    problems: list[str]  # documents in the store that can't be read


def runs(workspace: Workspace, *, machine: str | None = None) -> RunsResult:
    """The store is asked, and the provider where a run has no final status.

    machine         only the runs of machines of this name
    NotFoundError   there is neither a run nor a machine of that name
    """
    found, problems = stored_runs(workspace.store)
    found.reverse()
    if machine is not None:
        known = {run.spec.machine for run in found}
        found = [run for run in found if run.spec.machine == machine]
        if not found and workspace.provider.get(machine) is None:
            raise no_machine(machine, workspace.settings.provider, known)
    machines = workspace.provider.machines() if any(run.active for run in found) else []
    rows = [_row(workspace, run, machines) for run in found]
    return RunsResult(workspace.store.url, rows, problems)


def find(workspace: Workspace, run: str) -> str:
    """The id of the run that is meant: the whole id, or an end of it that no other run has.

    NotFoundError   with the nearest id
    ConfigError     several end so; the list
    """
    try:
        run_id = layout.checked_run_id(run)
    except ContractError:
        pass
    else:
        if workspace.store.get(layout.run_key(run_id, "spec.json")):
            return run_id
    known = run_ids(workspace.store)
    meant = [run_id for run_id in known if run and run_id.endswith(run)]
    if len(meant) > 1:
        raise ConfigError(
            f"Several runs end with {run[:80]!r}", detail="\n".join(meant), next="Give more of the id."
        )
    if not meant:
        hint = nearest(run, known[-5:]) if known else "tlvm run SCENARIO starts one."
        raise NotFoundError(f"There is no run {run[:80]!r} in {workspace.store.url}", next=hint)
    return meant[0]


def short(run_id: str, known: Iterable[str] = ()) -> str:
    """What a command line calls a run: its last four letters, or all of its id where another one that is known ends so."""
    end = run_id[-4:]
    return run_id if any(other.endswith(end) for other in known if other != run_id) else end


def called(workspace: Workspace, run_id: str) -> str:
    """The same against the runs that this computer started: nothing is asked for it."""
    return short(run_id, (record.run_id for record in workspace.records.runs()))


def lost(workspace: Workspace, run: StoredRun, machines: list[Machine]) -> bool:
    """The machine is gone although the run has no final status. Only this computer's record tells its provider."""
    if not run.active:
        return False
    record = workspace.records.run(run.spec.run_id)
    if record and record.provider != workspace.settings.provider:
        return False
    return not any(runs_of(machine, [run]) for machine in machines)


def _row(workspace: Workspace, run: StoredRun, machines: list[Machine]) -> RunRow:
    spec, status = run.spec, run.status
    record = workspace.records.run(spec.run_id)
    return RunRow(
        run_id=spec.run_id,
        state=LOST if lost(workspace, run, machines) else run.state,
        message=status.message if status else "",
        scenario=spec.scenario,
        dataset=spec.dataset.name,
        dataset_version=spec.dataset.version,
        model=spec.model,
        weights=spec.weights.source,
        machine=spec.machine,
        owner=spec.owner,
        project=spec.project,
        created=spec.created,
        started=status.started if status else None,
        finished=status.finished if status else None,
        published=status.published if status else False,
        pulled_to=record.pulled_to if record else None,
    )
