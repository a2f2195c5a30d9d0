"""`tlvm status`: what exists, how long it lives, and what runs on it. The provider and the store are asked."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import UTC, datetime

from orchestrator.config import nearest
from orchestrator.errors import NotFoundError
from orchestrator.providers.base import Machine
from orchestrator.workflows.heard import Heard, heard
from orchestrator.workflows.on_machine import runs_of
from orchestrator.workflows.run_documents import StoredRun, stored_runs
from orchestrator.workflows.workspace import Workspace


@dataclass(frozen=True)
class RunLine:
    run_id: str
    scenario: str
    dataset: str
    model: str
    state: (
        str  # LOST when its machine is gone without a final one, INTERRUPTED when nothing of it runs any more
    )
    step: int
    message: str
    updated: str  # ISO 8601: the last word of the run itself
    published: bool  # its result is in the store
    doubt: str = ""  # what speaks against the store's last word: "its machine is gone"


@dataclass(frozen=True)
class MachineLine:
    machine: Machine
    mine: bool
    cost: float  # dollars until now, an estimate
    runs: list[RunLine] = field(default_factory=list)


@dataclass(frozen=True)
class StatusResult:
    provider: str
    store: str
    now: datetime
    machines: list[MachineLine]
    other_runs: list[RunLine]  # active ones, and those that lost their machine
    elsewhere: list[str]  # "docker: tlvm-ana-trees": machines that this computer asked other providers for
    problems: list[str]  # documents in the store that can't be read


def status(workspace: Workspace, *, machine: str | None = None, now: datetime | None = None) -> StatusResult:
    """Every machine with our label, others' too, and the runs of each, newest first.

    machine         only the one of this name, and its runs
    NotFoundError   there is none of that name
    """
    now = now or datetime.now(UTC)
    settings = workspace.settings
    machines = workspace.provider.machines()
    runs, problems = stored_runs(workspace.store)
    runs.reverse()
    there = {found.name for found in machines}
    if machine is not None:
        machines = [found for found in machines if found.name == machine]
        if not machines:
            raise no_machine(machine, settings.provider, there)
        runs = [run for run in runs if run.spec.machine == machine]
    known = heard(workspace, runs, machines)
    shown = {run.spec.run_id: _run(run, known[run.spec.run_id]) for run in runs}
    lines = [
        _machine(found, settings.owner_label, [shown[run.spec.run_id] for run in runs_of(found, runs)], now)
        for found in sorted(machines, key=lambda found: (found.owner != settings.owner_label, found.name))
    ]
    placed = {run.run_id for line in lines for run in line.runs}
    others = [
        shown[run.spec.run_id]
        for run in runs
        if run.spec.run_id not in placed and run.active and _ours(run, workspace)
    ]
    _forget_what_ended(workspace, there)
    elsewhere = [
        f"{record.provider}: {record.name}"
        for record in workspace.records.machines()
        if record.provider != settings.provider
    ]
    return StatusResult(settings.provider, workspace.store.url, now, lines, others, elsewhere, problems)


def no_machine(name: str, provider: str, known: Collection[str]) -> NotFoundError:
    return NotFoundError(
        f"There is no machine {name[:80]} on the provider {provider}",
        next=nearest(name, sorted(known)) if known else "tlvm up makes one.",
    )


def _forget_what_ended(workspace: Workspace, there: set[str]) -> None:
    """A machine that reached its end by itself leaves a record and a key here; the provider says that it is gone."""
    provider = workspace.settings.provider
    for record in workspace.records.machines():
        ended = record.provider == provider and record.outcome == "accepted" and record.name not in there
        if ended and workspace.provider.get(record.name) is None:
            workspace.records.forget_machine(provider, record.name)


def _ours(run: StoredRun, workspace: Workspace) -> bool:
    mine = (workspace.settings.owner_label, workspace.settings.project)
    return (run.spec.owner, run.spec.project) == mine


def _machine(machine: Machine, owner: str, runs: list[RunLine], now: datetime) -> MachineLine:
    hours = max(0.0, (min(now, machine.ends) - machine.created).total_seconds() / 3600)
    return MachineLine(machine, machine.owner == owner, hours * machine.price_per_hour, runs)


def _run(run: StoredRun, known: Heard) -> RunLine:
    status = run.status
    return RunLine(
        run_id=run.spec.run_id,
        scenario=run.spec.scenario,
        dataset=run.spec.dataset.name,
        model=run.spec.model,
        state=known.state,
        step=status.step if status else 0,
        message=known.message,
        updated=known.updated,
        doubt=known.doubt,
        published=status.published if status else False,
    )
