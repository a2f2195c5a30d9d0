"""`tlvm stop`, `tlvm start`, `tlvm extend`: the two clocks of a machine, and its disk in between."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from orchestrator.errors import CloudError, ConfigError, ConflictError, Interruption
from orchestrator.providers.base import Machine, MachineState
from orchestrator.workflows.clock import Clock
from orchestrator.workflows.machines.readiness import make_ready
from orchestrator.workflows.runs.documents import StoredRun, read_runs
from orchestrator.workflows.runs.ended import note_ended
from orchestrator.workflows.runs.index import run_index
from orchestrator.workflows.runs.machine_runs import runs_of
from orchestrator.workflows.runs.overview import short
from orchestrator.workflows.runs.unfinished import heard
from orchestrator.workflows.workspace import Workspace, of_owner

STOPPED_WITHIN_S = 300.0
LONGEST_H = 168.0


@dataclass(frozen=True)
class StopResult:
    machine: Machine
    stopped: bool  # False: the user said no
    was_stopped: bool
    interrupted: list[str] = field(default_factory=list)  # runs that were at work, with force
    disk_per_month: float = 0  # dollars, an estimate: what it costs while it is stopped
    resumes: bool = False  # runs that were at work go on by themselves after `start`


@dataclass(frozen=True)
class StartResult:
    machine: Machine
    was_running: bool
    hours_left: float  # of its hard clock, which a stop does not move
    seconds: float  # until it was ready


@dataclass(frozen=True)
class ExtendResult:
    machine: Machine
    until: datetime  # before then its guard ends nothing
    asked_for: datetime
    capped: bool  # the hard clock ends it before what was asked for


def stop(
    workspace: Workspace,
    *,
    force: bool = False,
    confirm: Callable[[str], bool] | None = None,
    clock: Clock | None = None,
) -> StopResult:
    """Halt the machine and keep its disk, which goes on costing; twice is success.

    force           also while runs are at work
    ConflictError   runs are at work, or the machine is somebody else's
    """
    clock = clock or Clock()
    machine = mine(workspace)
    rented = workspace.rented
    per_month = rented.disk_per_month(machine.name) if rented else 0.0
    if machine.state is MachineState.STOPPED:
        return StopResult(machine, True, True, disk_per_month=per_month, resumes=rented is not None)
    unfinished, _ = read_runs(workspace.store, run_index(workspace.store).newest(0))
    active = [run for run in runs_of(machine, unfinished) if run.active]
    working = _at_work(workspace, machine, active)
    if working and not force:
        raise ConflictError(
            f"The machine {machine.name} is at work",
            detail="\n".join(working),
            next=f"Wait (tlvm logs -f {short(working[0], working)}), or tlvm stop --force interrupts it.",
        )
    if confirm and not confirm(f"Stop the machine {machine.name}?"):
        return StopResult(machine, False, False, disk_per_month=per_month)
    try:
        note_ended(workspace, active)
        workspace.progress.say("stop", f"{machine.name}, and wait until it has stopped")
        workspace.provider.stop(machine.name)
        machine = _stopped(workspace, machine, clock)
    except KeyboardInterrupt:
        raise Interruption(
            f"The machine {machine.name} is being stopped", next="tlvm status shows it; tlvm stop goes on."
        ) from None
    return StopResult(machine, True, False, working, per_month, resumes=rented is not None)


def start(workspace: Workspace, *, clock: Clock | None = None) -> StartResult:
    """Boot a stopped machine and wait until it is ready. It lives no longer than it would have without the stop.

    ConflictError   its time is over, or it is just being stopped, or it is somebody else's
    """
    clock = clock or Clock()
    began = clock.now()
    machine = mine(workspace)
    was_running = machine.state is MachineState.RUNNING
    try:
        machine = make_ready(workspace, machine, clock=clock)
    except KeyboardInterrupt:
        raise Interruption(
            f"The machine {machine.name} may be running", next="tlvm status shows it; tlvm start goes on."
        ) from None
    left = (machine.ends - datetime.now(UTC)).total_seconds() / 3600
    return StartResult(machine, was_running, max(0.0, left), clock.now() - began)


def extend(workspace: Workspace, hours: float, *, now: datetime | None = None) -> ExtendResult:
    """Keep the machine for so many hours from now, even when it is idle; the hard clock is not moved by that.

    ConfigError     nothing is rented here, so there is no soft clock; or the hours make no sense
    ConflictError   it does not run, or is somebody else's
    """
    if not 0 < hours <= LONGEST_H:
        raise ConfigError(
            f"{hours:g} hours is not what a machine can be kept for", next=f"Up to {LONGEST_H:g}."
        )
    now = now or datetime.now(UTC)
    machine = mine(workspace)
    rented = workspace.rented
    ends = f"{machine.ends.astimezone():%Y-%m-%d %H:%M}"
    if rented is None:
        raise ConfigError(
            f"The machine {machine.name} on {machine.provider} has no idle clock that could be moved",
            detail=f"It ends at {ends}, idle or not.",
            next="tlvm down, then tlvm up --max-hours H makes one that lives longer.",
        )
    if machine.state is not MachineState.RUNNING:
        raise ConflictError(
            f"The machine {machine.name} is {machine.state.value}: its guard ends nothing now",
            detail=f"Its hard clock ends at {ends}.",
            next="tlvm start boots it.",
        )
    asked_for = now + timedelta(hours=hours)
    until = min(asked_for, machine.ends)
    rented.keep_until(machine.name, until)
    return ExtendResult(machine, until, asked_for, capped=asked_for > machine.ends)


def mine(workspace: Workspace) -> Machine:
    """The machine that is meant; ConflictError when it is another owner's."""
    return of_owner(workspace.machine(), workspace.settings.owner_label)


def _at_work(workspace: Workspace, machine: Machine, active: list[StoredRun]) -> list[str]:
    """The ids of those that are known to be active or waiting."""
    words = heard(workspace, active, [machine])
    return [run_id for run_id, word in words.items() if not word.doubt]


def _stopped(workspace: Workspace, machine: Machine, clock: Clock) -> Machine:
    deadline = clock.now() + STOPPED_WITHIN_S
    while True:
        found = workspace.provider.get(machine.name)
        if found is None:
            raise CloudError(
                f"The machine {machine.name} ended while it was being stopped", next="tlvm up makes it again."
            )
        if found.state is MachineState.STOPPED:
            return found
        if clock.now() > deadline:
            raise CloudError(
                f"The machine {machine.name} has not stopped within {STOPPED_WITHIN_S / 60:.0f} minutes",
                detail=f"Its state is {found.state.value}.",
                next="tlvm status shows it; it may cost money. tlvm stop asks again.",
            )
        clock.sleep(1)
