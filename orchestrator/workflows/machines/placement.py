"""Asking place after place for a machine: one loop, in which the kind of error decides what is asked next.

capacity            the next place, then the next accelerator
quota of a region   the next region
anything else       stops: no other place would say something else
"""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from orchestrator.errors import CapacityError, CloudError, QuotaError, TlvmError, TransientError
from orchestrator.providers.base import Machine, MachineSpec, MachineState, Offer
from orchestrator.records import AttemptRecord, MachineRecord
from orchestrator.workflows.clock import Clock
from orchestrator.workflows.workspace import Workspace, agree, of_owner

GONE_TIMEOUT_S = 300
FIRST_PAUSE_S = 60.0  # between two rounds, with --wait; each is longer than the one before
LONGEST_PAUSE_S = 600.0
ARRIVES_WITHIN_S = 5.0  # so late a request may still reach the cloud, after whoever sent it has given up
_SURELY = timedelta(minutes=10)


@dataclass(frozen=True)
class Attempt:
    """One place that was asked."""

    place: str
    accelerator: str
    refused: str  # why not; "" when it was accepted
    seconds: float


def ask(
    workspace: Workspace,
    spec: MachineSpec,
    offers: Sequence[Offer],
    attempts: list[Attempt],
    clock: Clock,
    *,
    wait_s: float = 0.0,
) -> Machine:
    """The first machine that a place gives, or one of that name that another terminal got meanwhile.

    attempts        grows by every place that was asked
    wait_s          so long, when no place has one, all of them are asked again now and then
    CapacityError   no place has one; QuotaError where a quota alone is in the way
    """
    deadline, pause_s = clock.now() + wait_s, FIRST_PAUSE_S
    while True:
        errors: list[TlvmError] = []
        try:
            if machine := _round(workspace, spec, offers, attempts, errors, clock):
                return machine
        except TransientError as error:  # no answer: the next round begins with the same request
            if clock.now() + pause_s > deadline:
                raise
            errors.append(error)
        waits_for = [error for error in errors if isinstance(error, CapacityError | TransientError)]
        if not waits_for or clock.now() + pause_s > deadline:
            forget_if_gone(workspace, spec.name)
            raise _nowhere(workspace, spec, attempts, errors)
        left = f"{(deadline - clock.now()) / 3600:.1f} h left"
        workspace.progress.say("wait", f"no place has one now; asked again in {pause_s:.0f} s, {left}")
        clock.sleep(pause_s)
        pause_s = min(pause_s * 1.5, LONGEST_PAUSE_S)


def forget_if_gone(workspace: Workspace, name: str) -> None:
    if workspace.provider.get(name) is None:
        workspace.records.forget_machine(workspace.settings.provider, name)


def unanswered(workspace: Workspace, there: Collection[str], now: datetime) -> list[str]:
    """Machines that were asked for, and of which nobody has heard: they may come to be. A line each, for people.

    there   the names of those that the provider lists
    """
    provider = workspace.settings.provider
    lines = []
    for record in workspace.records.machines():
        if record.provider != provider or record.name in there or not _is_open(record):
            continue
        asked = datetime.fromisoformat(record.asked)
        if now - asked > _SURELY:
            forget_if_gone(workspace, record.name)
            continue
        lines.append(
            f"{record.name} may exist and not be seen yet: {_place(record)} was asked for it at "
            f"{asked.astimezone():%H:%M}, and no answer came. tlvm up asks the same again; tlvm down finds out and ends it"
        )
    return lines


def came_late(workspace: Workspace, name: str, clock: Clock) -> Machine | None:
    """The machine that came of an attempt without an answer, where none is seen; None when nothing came of it."""
    record = workspace.records.machine(workspace.settings.provider, name)
    is_settled = getattr(workspace.provider, "is_settled", None)
    if record is None or not _is_open(record) or is_settled is None:
        return None
    asked_s = (datetime.now(UTC) - datetime.fromisoformat(record.asked)).total_seconds()
    began = clock.now()
    workspace.progress.say("ask", f"what became of {name}: {_place(record)} was asked, and no answer came")
    while not is_settled(record.place, record.request_id):
        if asked_s + clock.now() - began >= ARRIVES_WITHIN_S:
            break
        clock.sleep(0.5)
    return workspace.provider.get(name)


def adopt(workspace: Workspace, machine: Machine, spec: MachineSpec) -> None:
    """ConflictError when it is somebody else's, or has other settings."""
    of_owner(machine, spec.owner)
    agree(machine, spec.settings())
    workspace.progress.say("adopt", f"{machine.name} is there: {machine.state.value} on {machine.place}")


def wait_until_gone(
    workspace: Workspace, name: str, *, clock: Clock, timeout_s: float = GONE_TIMEOUT_S
) -> None:
    """Delete what may be left of a machine and return when the provider says, twice, that it is gone."""
    deadline = clock.now() + timeout_s
    confirmed = 0
    while confirmed < 2:
        machine = workspace.provider.get(name)
        if machine is None or machine.owner != workspace.settings.owner_label:
            confirmed += 1
            continue
        confirmed = 0
        if clock.now() > deadline:
            raise _still_there(machine, timeout_s)
        if machine.state is not MachineState.STOPPING:
            workspace.provider.delete(name)
        clock.sleep(1)


def _round(
    workspace: Workspace,
    spec: MachineSpec,
    offers: Sequence[Offer],
    attempts: list[Attempt],
    errors: list[TlvmError],
    clock: Clock,
) -> Machine | None:
    """Every place once. None when each of them refused; `errors` says why."""
    skipped: set[tuple[str, str]] = set()  # (region, accelerator) without quota
    record = workspace.records.machine(workspace.settings.provider, spec.name)
    for offer in _unfinished_first(record, offers):
        if (offer.region, offer.accelerator) in skipped:
            continue
        record = _intend(workspace, spec, offer, record)
        began = clock.now()
        try:
            machine = workspace.provider.create(
                dataclasses.replace(spec, request_id=record.request_id), offer
            )
        except (CapacityError, QuotaError) as error:
            record = _refused(workspace, record, attempts, error.what, clock.now() - began)
            if isinstance(error, QuotaError):
                if not error.region:
                    forget_if_gone(workspace, spec.name)
                    raise
                skipped.add((error.region, offer.accelerator))
            errors.append(error)
            if there := _made_meanwhile(workspace, spec.name, clock):
                adopt(workspace, there, spec)
                return there
            continue
        except TransientError:
            raise  # the request may still arrive: the record stays, and the next `up` asks the same again
        except TlvmError:
            forget_if_gone(workspace, spec.name)
            raise
        _note(workspace, record, attempts, "", clock.now() - began)
        workspace.records.save_machine(dataclasses.replace(record, id=machine.id, outcome="accepted"))
        until = f"{machine.ends.astimezone():%Y-%m-%d %H:%M}"
        workspace.progress.say(
            "ask", f"{_place(record)}: accepted; whatever happens here, it ends at {until}"
        )
        return machine
    return None


def _intend(
    workspace: Workspace, spec: MachineSpec, offer: Offer, earlier: MachineRecord | None
) -> MachineRecord:
    """What is about to be asked, on disk before it is: whoever comes after a crash asks the same again."""
    record = MachineRecord(
        spec.name,
        workspace.settings.provider,
        asked=datetime.now(UTC).isoformat(timespec="seconds"),
        place=offer.place,
        accelerator=offer.accelerator,
        request_id=_cut(earlier, offer) or str(uuid.uuid4()),
    )
    workspace.records.save_machine(record)
    return record


def _unfinished_first(record: MachineRecord | None, offers: Sequence[Offer]) -> list[Offer]:
    """An attempt that was cut is asked again first, with its own request id: only then is it known how it ended."""
    return sorted(offers, key=lambda offer: not _cut(record, offer))


def _is_open(record: MachineRecord) -> bool:
    """Asked, and never answered."""
    return record.outcome == "asked" and bool(record.request_id)


def _cut(record: MachineRecord | None, offer: Offer) -> str:
    """The request id of an attempt in this place that was asked and never answered; "" when there is none."""
    if record is None or not _is_open(record):
        return ""
    same = (record.place, record.accelerator) == (offer.place, offer.accelerator)
    return record.request_id if same else ""


def _refused(
    workspace: Workspace, record: MachineRecord, attempts: list[Attempt], why: str, seconds: float
) -> MachineRecord:
    """An answered attempt: its request id is used up."""
    _note(workspace, record, attempts, why, seconds)
    where = _place(record)
    workspace.progress.say("ask", f"{where}: {why}; nothing created{_after(seconds)}")
    answered = dataclasses.replace(record, request_id="")
    workspace.records.save_machine(answered)
    return answered


def _note(
    workspace: Workspace, record: MachineRecord, attempts: list[Attempt], refused: str, seconds: float
) -> None:
    attempts.append(Attempt(record.place, record.accelerator, refused, seconds))
    workspace.records.attempted(
        AttemptRecord(
            record.name,
            record.provider,
            record.asked,
            record.place,
            record.accelerator,
            refused,
            round(seconds, 1),
        )
    )


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


def _still_there(machine: Machine, timeout_s: float) -> CloudError:
    return CloudError(
        f"The machine {machine.name} is still there {timeout_s / 60:.0f} minutes after it was deleted",
        detail=f"Its state is {machine.state.value}.",
        next="Run tlvm down again; what exists may cost money.",
    )


def _nowhere(
    workspace: Workspace, spec: MachineSpec, attempts: Sequence[Attempt], errors: Sequence[TlvmError]
) -> TlvmError:
    tried = [f"{attempt.place}, {attempt.accelerator}: {attempt.refused}" for attempt in attempts]
    detail = "\n".join(tried) or f"The provider {workspace.settings.provider} offers no place."
    hints = list(dict.fromkeys(error.next for error in errors if error.next))
    if errors and all(isinstance(error, QuotaError) for error in errors):
        return QuotaError(
            f"Your quotas allow the machine {spec.name} nowhere", detail=detail, next=" ".join(hints)
        )
    return CapacityError(
        f"No place has the machine {spec.name} now",
        detail=detail,
        next=" ".join(
            [*hints, "Try again later (--wait HOURS does), or ask for less (accelerator, cpus, memory_gb), "]
        )
        + "or --provider local.",
    )


def _place(record: MachineRecord) -> str:
    return record.place if record.accelerator == "none" else f"{record.place} {record.accelerator}"


def _after(seconds: float) -> str:
    return f", {seconds:.0f} s" if seconds >= 1 else ""
