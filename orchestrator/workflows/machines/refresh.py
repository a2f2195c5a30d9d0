"""`tlvm status --refresh`: what this computer remembers, made again from what the provider and the store say.

`.tlvm/` may be deleted at any time: machines carry owner and project as labels, runs have their specs and attempts in
the store. What only this computer knew is made anew: its keys (the provider lets it in again), and where results lie.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from orchestrator.errors import TlvmError
from orchestrator.providers.base import Machine, MachineState
from orchestrator.workflows.machines.allowance import begun
from orchestrator.workflows.machines.readiness import let_in
from orchestrator.workflows.results.pulled_files import local_files
from orchestrator.workflows.runs.attempts import as_record, know_lives
from orchestrator.workflows.runs.documents import StoredRun, result_manifest, stored_runs
from orchestrator.workflows.runs.remembered import RememberedRuns
from orchestrator.workflows.workspace import Workspace
from remote.contract.document import ContractError


@dataclass(frozen=True)
class Refreshed:
    """What was not known here any more, and is again."""

    machines: list[str] = field(default_factory=list)  # that let this computer in again
    runs: int = 0
    pulled: int = 0  # of them, whose results lie here


def refresh(workspace: Workspace) -> Refreshed:
    """Machines and runs of this owner and project. Twice is once; what is known stays as it is."""
    remembered = RememberedRuns(workspace.records.cache, workspace.store.url)
    remembered.forget()
    machines = workspace.machines()
    runs = [run for run in stored_runs(workspace.store, remembered)[0] if _is_mine(workspace, run)]
    let = [
        machine.name for machine in machines if _is_new(workspace, machine) and _let_in(workspace, machine)
    ]
    there = {machine.name: machine for machine in machines}
    found = [run for run in runs if workspace.records.run(run.spec.run_id) is None]
    pulled = sum(_remember(workspace, run, there.get(run.machine)) for run in found)
    for run in sorted(runs, key=lambda run: run.asked, reverse=True):
        know_lives(workspace, run)
    for machine in machines:
        begun(workspace, machine)
    return Refreshed(let, len(found), pulled)


def _is_mine(workspace: Workspace, run: StoredRun) -> bool:
    settings = workspace.settings
    return (run.spec.owner, run.spec.project) == (settings.owner_label, settings.project)


def _is_new(workspace: Workspace, machine: Machine) -> bool:
    known = workspace.records.machine(machine.provider, machine.name)
    has_key = workspace.records.key_file(machine.provider, machine.name).exists()
    return machine.state is MachineState.RUNNING and not (known and known.id == machine.id and has_key)


def _let_in(workspace: Workspace, machine: Machine) -> bool:
    """Its host keys are pinned at the first contact, which is now."""
    try:
        let_in(workspace, machine)
        workspace.connect(machine).close()
    except TlvmError as error:
        workspace.progress.warn(f"{machine.name} can't be entered yet: {error.what}")
        return False
    return True


def _remember(workspace: Workspace, run: StoredRun, machine: Machine | None) -> bool:
    """True when its result lies here."""
    folder = workspace.project_folder / "runs" / run.spec.run_id
    pulled = _lies_in(workspace, run.spec.run_id, folder)
    record = as_record(workspace, run, machine)
    workspace.records.save_run(replace(record, pulled_to=str(folder) if pulled else None))
    return pulled


def _lies_in(workspace: Workspace, run_id: str, folder: Path) -> bool:
    """Every file is there with its size; `pull` verifies hashes."""
    if not folder.is_dir():
        return False
    try:
        manifest = result_manifest(workspace.store, run_id)
        files = local_files(manifest, run_id) if manifest else []
    except ContractError:
        return False
    paths = [(folder / file.path, file.size) for file in files]
    return bool(paths) and all(path.is_file() and path.stat().st_size == size for path, size in paths)
