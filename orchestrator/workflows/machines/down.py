"""`tlvm down`: the machine is deleted, after every result is proven to be in the store, and that is confirmed."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from orchestrator.errors import ConflictError, Interruption, TlvmError
from orchestrator.providers.base import Machine
from orchestrator.workflows.machines.allowance import spent
from orchestrator.workflows.machines.left_over import LeftOver, left_over, things_of
from orchestrator.workflows.machines.placement import came_late
from orchestrator.workflows.machines.seen import nearest_first
from orchestrator.workflows.machines.up import Clock, wait_until_gone
from orchestrator.workflows.runs.documents import StoredRun, read_runs, result_problem
from orchestrator.workflows.runs.ended import note_ended
from orchestrator.workflows.runs.index import run_index
from orchestrator.workflows.runs.machine_runs import never_started, runs_of, runs_on, take_back
from orchestrator.workflows.runs.notes import was_removed
from orchestrator.workflows.runs.overview import short
from orchestrator.workflows.runs.unfinished import heard
from orchestrator.workflows.workspace import Workspace


class AtWork(ConflictError):
    """A run on the machine goes on, or waits."""


@dataclass(frozen=True)
class DownResult:
    machine: str
    was_there: bool
    deleted: bool  # False: there was nothing to delete, or the user said no
    runs: list[str] = field(default_factory=list)  # verified in the store
    abandoned: dict[str, str] = field(default_factory=dict)  # with force: run -> what is not in the store
    not_pulled: dict[str, str] = field(default_factory=dict)  # run -> why it is not on this computer
    hours: float = 0
    cost: float = 0  # dollars, an estimate
    seconds: float = 0
    never_started: list[str] = field(default_factory=list)  # announced, but the machine does not know them
    # Of this owner, where there is none of that name; the nearest first.
    others: list[str] = field(default_factory=list)
    left_over: LeftOver | None = None  # what still costs; None where nothing is rented

    @property
    def exit_code(self) -> int:
        return 3 if self.not_pulled else 0


def down(
    workspace: Workspace,
    *,
    force: bool = False,
    confirm: Callable[[str], bool] | None = None,
    also: Collection[str] = (),
    clock: Clock | None = None,
) -> DownResult:
    """Delete the machine; twice is success.

    force           also while runs are active, when a result is not whole in the store, or when that can't be asked
    confirm         asked once, before anything is deleted
    also            runs whose results must be in the store, whatever the machine says of them
    AtWork          a run is active or waiting
    ConflictError   one has not ended and nothing of it runs, a result is missing (says which), or the machine is somebody else's
    """
    clock = clock or Clock()
    began = clock.now()
    name = workspace.settings.machine_name
    machine = _machine(workspace) or came_late(workspace, name, clock)
    if machine is None:
        if workspace.provider.get(name) is None:
            workspace.records.forget_machine(workspace.settings.provider, name)
            workspace.records.forget_lives(workspace.settings.provider, name)
        mine = workspace.settings.owner_label
        others = [other.name for other in workspace.provider.machines() if other.owner == mine]
        return DownResult(name, was_there=False, deleted=False, others=nearest_first(name, others))
    runs = runs_of(machine, _stored(workspace, machine, force=force))
    known = runs_on(workspace, machine)
    ghosts = never_started(runs, known)
    runs = [run for run in runs if run.spec.run_id not in ghosts]
    if not force:
        _refuse_active(workspace, machine, runs)
    stored = {run.spec.run_id for run in runs}
    beside = ((known or set()) | set(also)) - stored
    run_ids = sorted(stored | {run_id for run_id in beside if not _removed(workspace, run_id, force=force)})
    if run_ids:
        workspace.progress.say("verify", f"runs of {machine.name}, file by file: {len(run_ids)}")
    missing = {run_id: why for run_id in run_ids if (why := _problem(workspace, run_id, force=force))}
    if missing and not force:
        raise ConflictError(
            f"The machine {machine.name} is kept: a result is not in the store",
            detail="\n".join(f"{run_id}: {why}" for run_id, why in missing.items()),
            next="tlvm logs RUN shows why; tlvm down --force deletes the machine, and what is only there is lost.",
        )
    whole = [run_id for run_id in run_ids if run_id not in missing]
    if confirm and not confirm(f"Delete the machine {machine.name}?"):
        return DownResult(machine.name, was_there=True, deleted=False, runs=whole)
    with (
        _told(machine),
        ThreadPoolExecutor(2) as pool,
    ):  # beside the deletion, which never waits for this computer's line
        leaving = pool.submit(_left_over, workspace, machine)
        pulls = {run_id: pool.submit(_pull, workspace, run_id) for run_id in _to_pull(workspace, whole)}
        note_ended(workspace, [run for run in runs if run.active])
        workspace.progress.say("delete", f"{machine.name}, and wait until it is gone")
        workspace.provider.delete(machine.name)
        wait_until_gone(workspace, machine.name, clock=clock)
        workspace.records.forget_machine(machine.provider, machine.name)
        workspace.records.forget_lives(machine.provider, machine.name)
        for run_id in ghosts:
            take_back(workspace, run_id)
        left = leaving.result()
        not_pulled = {run_id: why for run_id, pull in pulls.items() if (why := _outcome(pull))}
    per_month = left.disks_of.get(machine.name, 0.0) if left else 0.0
    used = spent(machine, datetime.now(UTC), disk_per_month=per_month)
    return DownResult(
        machine.name,
        was_there=True,
        deleted=True,
        runs=whole,
        never_started=sorted(ghosts),
        abandoned=missing,
        not_pulled=not_pulled,
        hours=used.hours,
        cost=used.dollars,
        seconds=clock.now() - began,
        left_over=left,
    )


def _machine(workspace: Workspace) -> Machine | None:
    """The one that is meant; None when there is none. Never another owner's."""
    named = workspace.settings.machine.name
    if named is None and not workspace.machines():
        return None
    machine = workspace.provider.get(named) if named else workspace.machine()
    if machine is not None and machine.owner != workspace.settings.owner_label:
        raise ConflictError(
            f"The machine {machine.name} belongs to {machine.owner}",
            next=f"Only {machine.owner} ends it; you are {workspace.settings.owner_label}.",
        )
    return machine


def _stored(workspace: Workspace, machine: Machine, *, force: bool) -> list[StoredRun]:
    """What may be a run of it. With force, a store that is gone keeps no machine that costs money."""
    try:
        wanted = run_index(workspace.store).of_machines(workspace.store, [machine])
        return read_runs(workspace.store, wanted)[0]
    except TlvmError as error:
        if not force:
            raise
        workspace.progress.warn(f"The store can't be asked for runs: {error.what}")
        return []


def _removed(workspace: Workspace, run_id: str, *, force: bool) -> bool:
    """By somebody, so that nothing of it is verified."""
    try:
        return was_removed(workspace.store, run_id)
    except TlvmError:
        if not force:
            raise
        return False


def _problem(workspace: Workspace, run_id: str, *, force: bool) -> str:
    try:
        return result_problem(workspace.store, run_id)
    except TlvmError as error:
        if not force:
            raise
        return error.what


@contextmanager
def _told(machine: Machine) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        raise Interruption(
            f"The machine {machine.name} may still exist", next="tlvm status shows it, tlvm down goes on."
        ) from None


def _refuse_active(workspace: Workspace, machine: Machine, runs: list[StoredRun]) -> None:
    active = [run for run in runs if run.active]
    if not active:
        return
    words = heard(workspace, active, [machine])
    working = [run.spec.run_id for run in active if not words[run.spec.run_id].doubt]
    lines = []
    for run_id, word in words.items():
        lines.append(f"{run_id}: {word.state.lower()}" + (f", {word.doubt}" if word.doubt else ""))
    known = [run.spec.run_id for run in runs]
    if not working:
        name = short(active[0].spec.run_id, known)
        raise ConflictError(
            f"The machine {machine.name} is kept: a run on it has not ended",
            detail="\n".join(lines),
            next=f"tlvm attach {name} goes on with it, tlvm cancel {name} ends it; or tlvm down --force deletes the "
            "machine, and what is not in the store is lost.",
        )
    name = short(working[0], known)
    raise AtWork(
        f"The machine {machine.name} is at work",
        detail="\n".join(lines),
        next=f"Wait (tlvm logs -f {name}), or tlvm down --force ends it and loses what is not in the store.",
    )


def _left_over(workspace: Workspace, machine: Machine) -> LeftOver | None:
    """Asked while the machine is being deleted; its own disk, which has its name, goes with it."""
    found = left_over(workspace, things_of(workspace.rented), with_store=True)
    if found is None:
        return None
    return replace(found, things=[thing for thing in found.things if thing.name != machine.name])


def _to_pull(workspace: Workspace, run_ids: list[str]) -> list[str]:
    """Results of runs that this computer started and does not have yet."""
    records = (workspace.records.run(run_id) for run_id in run_ids)
    return [record.run_id for record in records if record and not record.pulled_to]


def _pull(workspace: Workspace, run_id: str) -> None:
    from orchestrator.workflows.results.pull import pull

    pull(workspace, run_id)


def _outcome(pull: Future[None]) -> str:
    try:
        pull.result()
    except TlvmError as error:
        return error.what
    return ""
