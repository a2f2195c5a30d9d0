"""`tlvm up`: a machine that is there, agrees with what was asked for, and is ready to run."""

from __future__ import annotations

import dataclasses
import fcntl
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from orchestrator.errors import (
    AuthError,
    CapacityError,
    CloudError,
    ConflictError,
    ConnectionLost,
    Interruption,
    NotFoundError,
    TlvmError,
    TransientError,
)
from orchestrator.providers.base import Machine, MachineSpec, MachineState, Offer
from orchestrator.records import MachineRecord, Records
from orchestrator.workflows.workspace import Workspace, agree

READY_TIMEOUT_S = 600
GONE_TIMEOUT_S = 300
_FAILED_S = 3  # so long stopped, while it is waited for: it does not start


@dataclass(frozen=True)
class Clock:
    """Time, and waiting for it: a test gives its own."""

    now: Callable[[], float] = time.monotonic  # seconds
    sleep: Callable[[float], None] = time.sleep


@dataclass(frozen=True)
class Attempt:
    """One place that was asked."""

    place: str
    accelerator: str
    refused: str  # why not; "" when it was accepted
    seconds: float


@dataclass(frozen=True)
class UpResult:
    machine: Machine | None  # None after a dry run
    made: bool  # False: it was there before
    spec: MachineSpec
    offers: list[Offer] = field(default_factory=list)
    attempts: list[Attempt] = field(default_factory=list)
    seconds: float = 0  # until it was ready
    uploaded: dict[str, str] = field(default_factory=dict)  # version by dataset, with --upload


def up(
    workspace: Workspace,
    *,
    dry_run: bool = False,
    ready_timeout_s: float = READY_TIMEOUT_S,
    clock: Clock | None = None,
) -> UpResult:
    """Adopt the machine of that name, start it when it is stopped, or make it; then wait until it is ready.

    dry_run         ask for offers only: nothing is created and nothing is written
    ConflictError   the machine is there with other settings (says which), or is just being deleted
    CapacityError   no place had one; every attempt is in its detail
    CloudError      it stopped instead of getting ready; the end of its log is in the detail
    ConnectionLost  it did not get ready in time; it is kept, and `up` again goes on waiting
    Interruption    on Ctrl-C once it may exist
    """
    clock = clock or Clock()
    began = clock.now()
    spec = _spec(workspace, public_key="")
    offers = workspace.provider.offers(spec)
    if dry_run:
        return UpResult(None, False, spec, offers)
    machine = workspace.provider.get(spec.name)
    attempts: list[Attempt] = []
    try:
        if machine is not None:
            _adopt(workspace, machine, spec)
        else:
            spec = dataclasses.replace(
                spec, public_key=own_key(workspace.records, workspace.settings.provider, spec.name)
            )
            machine = _create(workspace, spec, offers, attempts, clock)
            agree(machine, spec.settings())  # another terminal may have been faster
        machine = make_ready(workspace, machine, timeout_s=ready_timeout_s, clock=clock)
    except KeyboardInterrupt:
        stands = "may exist" if machine is None else "exists and is not ready yet"
        raise Interruption(
            f"The machine {spec.name} {stands}", next="tlvm status shows it, tlvm down ends it."
        ) from None
    made = bool(attempts) and not attempts[-1].refused
    return UpResult(machine, made, spec, offers, attempts, clock.now() - began)


def ensure(workspace: Workspace, *, clock: Clock | None = None) -> Machine:
    """A machine that is ready for a run: the one that is there, or a new one where machines are free.

    NotFoundError   there is none, and one would cost money: `tlvm up` asks for it
    """
    try:
        machine = workspace.machine()
    except NotFoundError:
        spec = _spec(workspace, public_key="")
        if any(offer.price_per_hour > 0 for offer in workspace.provider.offers(spec)):
            raise
        made = up(workspace, clock=clock).machine
        assert made is not None
        return made
    return make_ready(workspace, machine, clock=clock)


def make_ready(
    workspace: Workspace,
    machine: Machine,
    *,
    timeout_s: float = READY_TIMEOUT_S,
    clock: Clock | None = None,
) -> Machine:
    """Start it if it is stopped, let this computer in, and wait until it can run."""
    clock = clock or Clock()
    if machine.state is MachineState.STOPPING:
        raise ConflictError(
            f"The machine {machine.name} is just being stopped or deleted",
            next="Try again in a minute; tlvm status shows it.",
        )
    if not _is_let_in(workspace, machine):
        _let_in(workspace, machine)
    if machine.state is MachineState.STOPPED:
        workspace.progress.say("start", f"{machine.name} was stopped")
        workspace.provider.start(machine.name)
    return _wait_until_ready(workspace, machine.name, timeout_s, clock)


def own_key(records: Records, provider: str, name: str) -> str:
    """The public key of this computer for that machine, made when there is none; two terminals get the same one."""
    from orchestrator.ssh import new_key  # its libraries cost half a second

    private = records.key_file(provider, name)
    public = private.with_name(private.name + ".pub")
    with (private.parent / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (private.exists() and public.exists()):  # half a pair was left by a crash and opens nothing
            private.unlink(missing_ok=True)
            public.write_text(new_key(private) + "\n", encoding="ascii")
        return public.read_text(encoding="ascii").strip()


def _spec(workspace: Workspace, *, public_key: str) -> MachineSpec:
    settings = workspace.settings
    wanted = settings.machine
    return MachineSpec(
        name=settings.machine_name,
        owner=settings.owner_label,
        project=settings.project,
        public_key=public_key,
        store=settings.store_ref,
        max_hours=settings.max_hours,
        accelerator=settings.accelerator,
        accelerator_count=settings.accelerator_count,
        disk_gb=wanted.disk_gb,
        cpus=wanted.cpus,
        memory_gb=wanted.memory_gb,
        image=wanted.image,
    )


def _create(
    workspace: Workspace, spec: MachineSpec, offers: list[Offer], attempts: list[Attempt], clock: Clock
) -> Machine:
    """Ask place after place; only a lack of capacity leads to the next one."""
    record = MachineRecord(spec.name, workspace.settings.provider, asked=_now())
    workspace.records.save_machine(record)
    for offer in offers:
        began = clock.now()
        try:
            machine = workspace.provider.create(spec, offer)
        except CapacityError as error:
            attempts.append(Attempt(offer.place, offer.accelerator, error.what, clock.now() - began))
            workspace.progress.say("ask", f"{offer.place}: {error.what}; nothing created")
            if there := _made_meanwhile(workspace, spec.name, clock):
                _adopt(workspace, there, spec)
                return there
            continue
        except TlvmError:
            _forget_if_gone(workspace, spec.name)
            raise
        attempts.append(Attempt(offer.place, offer.accelerator, "", clock.now() - began))
        workspace.records.save_machine(dataclasses.replace(record, id=machine.id, outcome="accepted"))
        until = f"{machine.ends.astimezone():%Y-%m-%d %H:%M}"
        workspace.progress.say("ask", f"{offer.place}: accepted; whatever happens here, it ends at {until}")
        return machine
    _forget_if_gone(workspace, spec.name)
    tried = [f"{attempt.place}, {attempt.accelerator}: {attempt.refused}" for attempt in attempts]
    raise CapacityError(
        f"No place has the machine {spec.name} now",
        detail="\n".join(tried) or f"The provider {workspace.settings.provider} offers no place.",
        next="Try again later, or ask for less (accelerator, cpus, memory_gb), or --provider local.",
    )


def _adopt(workspace: Workspace, machine: Machine, spec: MachineSpec) -> None:
    agree(machine, spec.settings())
    workspace.progress.say("adopt", f"{machine.name} is there: {machine.state.value} on {machine.place}")


def _made_meanwhile(workspace: Workspace, name: str, clock: Clock) -> Machine | None:
    """A machine of that name after a place had none for us: another terminal's, since a place leaves nothing behind.

    One that is just going is waited for. Nothing is deleted here.
    """
    deadline = clock.now() + GONE_TIMEOUT_S
    while (machine := workspace.provider.get(name)) and machine.state is MachineState.STOPPING:
        if clock.now() > deadline:
            raise _still_there(machine, GONE_TIMEOUT_S)
        clock.sleep(1)
    return machine


def wait_until_gone(
    workspace: Workspace,
    name: str,
    *,
    clock: Clock,
    timeout_s: float = GONE_TIMEOUT_S,
) -> None:
    """Delete what may be left of a machine and return when the provider says, twice, that it is gone."""
    deadline = clock.now() + timeout_s
    confirmed = 0
    while confirmed < 2:
        machine = workspace.provider.get(name)
        if machine is None:
            confirmed += 1
            continue
        confirmed = 0
        if clock.now() > deadline:
            raise _still_there(machine, timeout_s)
        if machine.state is not MachineState.STOPPING:
            workspace.provider.delete(name)
        clock.sleep(1)


def _still_there(machine: Machine, timeout_s: float) -> CloudError:
    return CloudError(
        f"The machine {machine.name} is still there {timeout_s / 60:.0f} minutes after it was deleted",
        detail=f"Its state is {machine.state.value}.",
        next="Run tlvm down again; what exists may cost money.",
    )


def _wait_until_ready(workspace: Workspace, name: str, timeout_s: float, clock: Clock) -> Machine:
    """Running, its host key pinned and shown, the startup marker there; with a GPU, `nvidia-smi` answers."""
    deadline = clock.now() + timeout_s
    last: TlvmError | None = None
    stopped: float | None = None  # since when
    let_in = False
    pause_s = 0.1
    while True:
        machine = workspace.provider.get(name)
        if machine is None:
            raise CloudError(
                f"The machine {name} ended while it was starting",
                detail=str(last or ""),
                next="tlvm up makes it again; tlvm doctor looks for the cause.",
            )
        if machine.state is not MachineState.STOPPED:
            stopped = None
        elif stopped is None:
            stopped = clock.now()
        if stopped is not None and clock.now() - stopped >= _FAILED_S:
            raise CloudError(
                f"The machine {name} stopped while it was starting",
                detail=workspace.provider.said(name),
                next="tlvm down deletes it; tlvm up starts it again.",
            )
        try:
            _look(workspace, machine)
        except (TransientError, ConnectionLost) as error:
            last = error
        except AuthError:
            if let_in:
                raise
            _let_in(workspace, machine)  # our key may be one of an earlier machine of this name
            let_in = True
        else:
            return machine
        if clock.now() > deadline:
            raise ConnectionLost(
                f"The machine {name} was not ready after {timeout_s / 60:.0f} minutes",
                detail=f"Its state is {machine.state.value}. {last}",
                next="tlvm up goes on waiting; tlvm down deletes it.",
            )
        clock.sleep(pause_s)
        pause_s = min(pause_s * 1.5, 5)


def _look(workspace: Workspace, machine: Machine) -> None:
    """TransientError or ConnectionLost while it is not ready."""
    if machine.state is not MachineState.RUNNING:
        raise TransientError(f"The machine {machine.name} is {machine.state.value}", next="It is waited for.")
    with workspace.connect(machine) as connection:
        if connection.run("test -e ~/.tlvm/READY").exit_code != 0:
            raise TransientError(f"The machine {machine.name} is still setting itself up", next="Wait.")
        if machine.accelerator_count > 0:
            answer = connection.run("nvidia-smi --query-gpu=name,driver_version --format=csv,noheader")
            if answer.exit_code != 0:
                raise TransientError(
                    f"The GPU of {machine.name} does not answer yet",
                    detail=answer.stderr.decode(errors="replace")[-500:],
                    next="It is waited for.",
                )
            gpu = answer.stdout.decode(errors="replace").strip()
            workspace.progress.say("gpu", gpu)


def _is_let_in(workspace: Workspace, machine: Machine) -> bool:
    """Whether the key that is here was made for this very instance, not for an earlier one of the same name."""
    record = workspace.records.machine(machine.provider, machine.name)
    has_key = workspace.records.key_file(machine.provider, machine.name).exists()
    return has_key and record is not None and record.id == machine.id


def _let_in(workspace: Workspace, machine: Machine) -> None:
    public_key = own_key(workspace.records, machine.provider, machine.name)
    workspace.provider.authorize(machine.name, public_key, machine.ends)
    workspace.progress.say("key", f"{machine.name} lets this computer in, with a key of its own")


def _forget_if_gone(workspace: Workspace, name: str) -> None:
    if workspace.provider.get(name) is None:
        workspace.records.forget_machine(workspace.settings.provider, name)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
