"""A run whose machine was taken away goes on: where it was, when that machine is there; else on another one.

The machines of a run follow each other under one name, so hours and budget are shared (`allowance`). What another machine
needs comes from the store: the bundle that began the run, its data, its newest checkpoint.

    rented without being asked   only where the run was begun so (`--recover`, the default for spot machines)
    never                        when somebody ended the machine, when its time or money is over, when the run was
                                 lost twice at the same place, or after ATTEMPTS_MAX attempts
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from orchestrator import bundle
from orchestrator.config import MachineSettings
from orchestrator.errors import (
    ConflictError,
    Interrupted,
    Interruption,
    TlvmError,
)
from orchestrator.providers.base import Machine, MachineState
from orchestrator.workflows.clock import Clock
from orchestrator.workflows.machines.readiness import make_ready
from orchestrator.workflows.machines.up import up
from orchestrator.workflows.runs import attempts, secrets
from orchestrator.workflows.runs.documents import StoredRun, latest_checkpoints, read_runs, required_run
from orchestrator.workflows.runs.ended import was_ended
from orchestrator.workflows.runs.following import MachineLost, Position
from orchestrator.workflows.runs.index import run_index
from orchestrator.workflows.runs.launch import ask_to_start, follow_to_the_end, refused
from orchestrator.workflows.runs.machine_runs import is_silent
from orchestrator.workflows.runs.overview import called
from orchestrator.workflows.workspace import Workspace
from remote.contract.run_spec import RunSpec
from remote.contract.run_status import RunStatus

if TYPE_CHECKING:
    from orchestrator.ssh import Connection

ATTEMPTS_MAX = 10  # of one run
CAPACITY_WAIT_H = 0.5  # so long all places are asked again now and then
_TAKEN_WITHIN_S = 45.0  # a machine that says that it is taken away is gone by then; Google gives it 30 s
_GONE_WITHIN_S = 300.0
_TOO_LATE = timedelta(minutes=10)  # so near to the end of its machine, a run that was interrupted stays so
_ACTIVE_OR_OVER = ConflictError.exit_code


@dataclass(frozen=True)
class Recovery:
    """How far a run may be brought back.

    rent        another machine may be rented; None: as the run was begun
    by_hand     somebody asks for it now, and knows what happened before
    environment variables of the training, secrets among them, as they were given now
    """

    rent: bool | None = None
    by_hand: bool = False
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)


def follow_through(
    workspace: Workspace,
    spec: RunSpec,
    connection: Connection | None,
    on_event: Callable[[dict[str, Any]], None] | None,
    *,
    machine: Machine | None = None,
    recovery: Recovery | None = None,
    clock: Clock | None = None,
) -> RunStatus:
    """Follow a run to its end, through the loss of its machines; its final status.

    workspace       meaning the machine that it is on
    connection      to that `machine`, if there is one already
    Interrupted, MachineLost   it can't be brought back, or need not be: says why
    and what `follow_to_the_end` and `up` raise
    """
    recovery, at = recovery or Recovery(), Position()
    with ExitStack() as opened:
        while True:
            try:
                return follow_to_the_end(workspace, spec, connection, on_event, machine=machine, at=at)
            except (Interrupted, MachineLost) as why:
                brought = bring_back(workspace, spec.run_id, why, recovery, clock=clock)
            if isinstance(brought, RunStatus):
                return brought
            connection, machine = opened.enter_context(brought.connection), brought.machine
            recovery = replace(recovery, by_hand=False)


@dataclass(frozen=True)
class Brought:
    """A run that is at work again, or waits in the line of its machine."""

    connection: Connection
    machine: Machine  # that it leads to


def bring_back(
    workspace: Workspace, run_id: str, why: TlvmError, recovery: Recovery, *, clock: Clock | None = None
) -> Brought | RunStatus:
    """Have the run go on; its final status when it has come to its end meanwhile.

    why     what was seen of its loss; raised when nothing is to be done
    """
    clock = clock or Clock()
    run = required_run(workspace.store, run_id)
    if run.status and not run.active and (run.status.published or run.state != "SUCCEEDED"):
        return run.status
    place = workspace.of_machine(run.machine)
    try:
        machine = _come_to_rest(place, run, clock)
        if machine is None or machine.state is MachineState.STOPPED:
            machine = _rented_again(place, run, machine, why, recovery, clock)
        else:
            _require_time(place, run, machine)
            if not recovery.by_hand:
                _require_progress(place, run, why)
            machine = make_ready(place, machine, clock=clock)
    except KeyboardInterrupt as interrupt:
        detail = f"{interrupt.what}. " if isinstance(interrupt, Interruption) else ""
        raise Interruption(
            f"{detail}The run {run_id} does not go on yet",
            next=f"tlvm attach {called(workspace, run_id)} brings it back; tlvm status shows what exists.",
        ) from None
    # Somebody may have cancelled it while the machine was coming.
    again = required_run(workspace.store, run_id)
    if again.status and not again.active and again.status.published:
        return again.status
    brought = _restarted(place, run, machine, recovery.environment)
    if not on_same(run, machine):
        _bring_its_line(place, run, machine, recovery)
    return brought


def _come_to_rest(workspace: Workspace, run: StoredRun, clock: Clock) -> Machine | None:
    """The machine once it is neither being stopped nor, as it has said itself, being taken away."""
    said_so = bool(run.status and run.status.state == "INTERRUPTED") and not is_silent(run)
    began = clock.now()
    while True:
        machine = workspace.provider.get(run.machine)
        if machine is None or machine.state is MachineState.STOPPED:
            return machine
        going = machine.state is MachineState.STOPPING
        if clock.now() - began >= (_GONE_WITHIN_S if going else _TAKEN_WITHIN_S if said_so else 0.0):
            return machine
        clock.sleep(1)


def _rented_again(
    workspace: Workspace,
    run: StoredRun,
    stopped: Machine | None,
    why: TlvmError,
    recovery: Recovery,
    clock: Clock,
) -> Machine:
    """The machine that was stopped, started; or another one, in another place if need be."""
    run_id = run.spec.run_id
    name = called(workspace, run_id)
    if run.spec.owner != workspace.settings.owner_label:
        raise _but(why, f"It is the run of {run.spec.owner}, who alone brings it back.")
    if not attempts.may_rent(workspace, run_id, recovery.rent) and not (recovery.by_hand and stopped):
        raise _but(why, "", f"tlvm attach --recover {name} goes on with it on another machine.")
    if not (recovery.by_hand and (recovery.rent or stopped)) and _ended_by_somebody(workspace, run):
        raise _but(
            why,
            f"Somebody {'stopped' if stopped else 'ended'} its machine.",
            f"tlvm attach --recover {name} goes on with it all the same.",
        )
    if not recovery.by_hand:
        _require_progress(workspace, run, why)
    place = replace_settings(workspace, run_id)
    attempts.know_lives(place, run)
    number = len({attempt.number for attempt in run.attempts}) + 1
    if stopped is not None:
        workspace.progress.say("recover", f"{stopped.name} was stopped: it is started again")
        return make_ready(place, stopped, clock=clock)
    workspace.progress.say("recover", f"{run_id} goes on with another machine, its attempt {number}")
    last = run.attempts[-1].place if run.attempts else ""
    try:
        made = up(place, clock=clock, wait_hours=CAPACITY_WAIT_H, last=last).machine
    except TlvmError as error:
        error.next = f"{error.next} tlvm attach --recover {name} tries again.".strip()
        raise
    assert made is not None
    return made


def replace_settings(workspace: Workspace, run_id: str) -> Workspace:
    """The same, wishing for a machine like the first one of the run, where this computer knows that."""
    record = workspace.records.run(run_id)
    if record is None or not record.machine_settings:
        return workspace
    known = {
        name: text for name, text in record.machine_settings.items() if name in MachineSettings.model_fields
    }
    wanted = workspace.settings.machine.model_dump() | known | {"name": workspace.settings.machine.name}
    for name in ("budget", "max_hours"):
        if name in known and not float(known[name]):
            wanted[name] = None
    found = Workspace(
        workspace.settings.model_copy(update={"machine": MachineSettings.model_validate(wanted)}),
        workspace.progress,
    )
    found.provider, found.store = workspace.provider, workspace.store
    return found


def _ended_by_somebody(workspace: Workspace, run: StoredRun) -> bool:
    """As `down` and `stop` noted it, or as far as it can be told: `down` closes the account of a rented machine, and a
    cloud knows who ended it."""
    if was_ended(workspace.store, run):
        return True
    settings = workspace.settings
    lives = workspace.records.lives(settings.provider, run.machine)
    record = workspace.records.run(run.spec.run_id)
    if not lives:
        return bool(record and run.attempts and run.attempts[-1].price_per_hour > 0)
    taken = getattr(workspace.provider, "taken_away", None)
    return taken is not None and taken(lives[-1].place, lives[-1].id) is False


def _require_time(workspace: Workspace, run: StoredRun, machine: Machine) -> None:
    left = machine.ends - datetime.now(UTC)
    if left < _TOO_LATE and run.status and run.status.state == "INTERRUPTED":
        raise Interrupted(
            f"The run {run.spec.run_id} was interrupted: the time of {machine.name} is nearly over",
            detail=f"It ends at {machine.ends.astimezone():%H:%M}. What the run has done is kept.",
            next=f"Then tlvm attach --recover {called(workspace, run.spec.run_id)} goes on on another machine.",
        )


def _require_progress(workspace: Workspace, run: StoredRun, why: TlvmError) -> None:
    """A run that is lost again and again where it was must not be paid for again and again."""
    name = called(workspace, run.spec.run_id)
    once_more = f"tlvm attach --recover {name} tries it once more; tlvm logs {name} shows what it said."
    if len(run.attempts) >= ATTEMPTS_MAX:
        raise _but(why, f"It has had {len(run.attempts)} attempts already.", once_more)
    numbers = sorted(times.number for times in run.status.attempts) if run.status else []
    if not numbers and len(run.attempts) < 2:
        return
    before_last = numbers[-2] if len(numbers) > 1 else 0
    latest = latest_checkpoints(workspace.store, run.spec.run_id)
    newest = max((file.attempt for file in latest.files), default=0) if latest else 0
    if (len(numbers) > 1 or len(run.attempts) > 1) and newest < max(before_last, 1):
        raise _but(why, "It was lost twice without having come any further.", once_more)


def _but(why: TlvmError, detail: str, next: str = "") -> TlvmError:
    """What was seen, and why nothing is done about it."""
    why.detail = "\n".join(part for part in (why.detail, detail) if part)
    why.next = next or why.next
    return why


def _bring_its_line(workspace: Workspace, run: StoredRun, machine: Machine, recovery: Recovery) -> None:
    """Those that waited behind it, or were lost with it, wait behind it again; what goes wrong there is theirs."""
    for other in read_runs(workspace.store, run_index(workspace.store).newest(0))[0]:
        same = (other.machine, other.spec.owner) == (run.machine, run.spec.owner)
        if not same or not other.active or other.spec.run_id == run.spec.run_id or on_same(other, machine):
            continue
        if not attempts.may_rent(workspace, other.spec.run_id, recovery.rent):
            continue
        try:
            _restarted(workspace, other, machine, recovery.environment).connection.close()
        except TlvmError as error:
            workspace.progress.warn(f"{other.spec.run_id} was not brought back: {error.what}")


def _restarted(workspace: Workspace, run: StoredRun, machine: Machine, given: Mapping[str, str]) -> Brought:
    spec = run.spec
    elsewhere = not run.attempts or not on_same(run, machine)
    environment = secrets.again(workspace, spec.run_id, spec.environment, given) if elsewhere else given
    with ExitStack() as closing:
        connection = closing.enter_context(workspace.connect(machine))
        _bring_bundle(workspace, spec, machine, connection)
        number = attempts.next_number(workspace, run)
        attempt = attempts.announce(workspace, spec.run_id, machine, at_least=number)
        output = ask_to_start(connection, spec, machine, attempt.number, environment)
        if output.exit_code:
            attempts.withdraw(workspace, spec.run_id, attempt)
        if output.exit_code not in (
            0,
            _ACTIVE_OR_OVER,
        ):  # else another terminal, or the machine itself, was faster
            raise refused(spec, machine.name, output)
        closing.pop_all()
    workspace.progress.say("recover", f"{spec.run_id} goes on on {machine.name}, {machine.place}")
    return Brought(connection, machine)


def on_same(run: StoredRun, machine: Machine) -> bool:
    """Whether that very machine had the run before, so that all it has said is there."""
    asked = datetime.fromisoformat(run.asked)
    return run.machine == machine.name and asked >= machine.created.replace(microsecond=0)


def _bring_bundle(workspace: Workspace, spec: RunSpec, machine: Machine, connection: Connection) -> None:
    """The one that began the run, from the store: it is the one that understands it."""
    about = bundle.ask(connection)
    if spec.bundle in about.bundles:
        return
    kept = bundle.fetch(workspace.store, spec.bundle, workspace.settings.data_dir / "cache")
    bundle.install(connection, kept, about)
    workspace.progress.say("bundle", f"{spec.bundle[:8]}, which began the run, is on {machine.name}")
