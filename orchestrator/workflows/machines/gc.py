"""`tlvm gc`: deletes what is ours, carries our label and has outlived its expiry; shows all the rest.

A machine that has not expired goes the way of `tlvm down`: its results are proven to be in the store first.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Literal

from orchestrator.config import nearest
from orchestrator.errors import ConfigError, ConflictError, NotFoundError, TlvmError
from orchestrator.providers.base import Machine, MachineState
from orchestrator.providers.rented import Thing
from orchestrator.workflows.clock import Clock
from orchestrator.workflows.machines.down import down
from orchestrator.workflows.machines.placement import GONE_TIMEOUT_S
from orchestrator.workflows.workspace import Workspace

Fate = Literal["expired", "asked for", "listed", "not touched"]


@dataclass(frozen=True)
class Item:
    kind: Literal["machine", "disk", "address", "firewall rule"]
    name: str
    place: str
    owner: str  # "" when it serves every owner
    project: str
    made: datetime
    expires: datetime | None
    per_month: float  # dollars, an estimate; of a machine its disks
    size_gb: int
    state: str  # of a machine
    fate: Fate  # why it is deleted, or why it is not
    deleted: bool = False
    per_hour: float = 0  # dollars, an estimate: of a machine that runs, all of it
    why: str = ""  # why it is there although it should not


@dataclass(frozen=True)
class GcResult:
    provider: str
    dry_run: bool  # nothing was deleted: that was not asked for, or the answer was no
    now: datetime
    items: list[Item]  # what expired or was asked for; then what else is mine; then what is of others

    @property
    def exit_code(self) -> int:
        wanted = [item for item in self.items if item.fate in ("expired", "asked for")]
        return 3 if not self.dry_run and any(not item.deleted for item in wanted) else 0


@dataclass(frozen=True)
class _Found:
    item: Item
    thing: Machine | Thing


def gc(
    workspace: Workspace,
    names: Sequence[str] = (),
    *,
    mine: bool = False,
    force: bool = False,
    dry_run: bool = False,
    confirm: Callable[[str], bool] | None = None,
    now: datetime | None = None,
    clock: Clock | None = None,
) -> GcResult:
    """Look everywhere, decide, delete.

    names           delete these, too, though they have not expired
    mine            delete everything of this owner
    force           machines also with runs at work, or results that are not in the store
    NotFoundError   nothing of ours has that name
    ConflictError   it is somebody else's
    """
    now = now or datetime.now(UTC)
    if mine and names:
        raise ConfigError(
            "Names and --mine were given", next="Name things, or take all of yours with --mine."
        )
    rented = workspace.rented
    machines, things = workspace.provider.machines(), rented.things() if rented else []
    found = plan(machines, things, workspace.settings.owner_label, names, mine=mine, now=now)
    wanted = [one for one in found if one.item.fate in ("expired", "asked for")]
    kept = [one.item for one in found if one not in wanted]
    if dry_run or not wanted or (confirm and not confirm(_question(wanted))):
        return GcResult(workspace.settings.provider, True, now, [one.item for one in wanted] + kept)
    done = [_delete(workspace, one, force=force, now=now, clock=clock or Clock()) for one in wanted]
    return GcResult(workspace.settings.provider, False, now, done + kept)


def plan(
    machines: Iterable[Machine],
    things: Iterable[Thing],
    owner: str,
    names: Collection[str],
    *,
    mine: bool,
    now: datetime,
) -> list[_Found]:
    """What is to be done with each: machines first, since disks and rules are free when they are gone. Pure."""
    machines, things = list(machines), list(things)
    alive = Counter(machine.name for machine in machines if not _is_over(machine, now))
    disks: dict[str, float] = defaultdict(float)
    for thing in things:
        for name in thing.used_by:
            disks[name] += thing.per_month
    found = [
        _Found(
            _machine(
                machine,
                owner,
                names,
                mine=mine,
                now=now,
                twins=alive[machine.name],
                per_month=disks[machine.name],
            ),
            machine,
        )
        for machine in machines
    ]
    ending = {one.item.name for one in found if one.item.fate in ("expired", "asked for")}
    for thing in things:
        needed = [name for name in thing.used_by if name not in ending]
        if (needed and thing.name not in names) or (thing.kind == "disk" and thing.used_by):
            continue  # a part of its machine, or of its protection
        found.append(_Found(_thing(thing, needed, owner, names, mine=mine, now=now), thing))
    _check_names(found, names, owner)
    order = {"expired": 0, "asked for": 0, "listed": 1, "not touched": 2}
    return sorted(found, key=lambda one: (order[one.item.fate], one.item.kind != "machine", one.item.name))


def _machine(
    machine: Machine,
    owner: str,
    names: Collection[str],
    *,
    mine: bool,
    now: datetime,
    twins: int,
    per_month: float,
) -> Item:
    """twins    machines of the same name whose time is not over: a name must mean one machine to be deleted unasked"""
    over = _is_over(machine, now) and not twins
    fate = _fate(machine.owner, owner, machine.name, names, mine=mine, over=over)
    runs = machine.state is not MachineState.STOPPED
    return Item(
        "machine",
        machine.name,
        machine.place,
        machine.owner,
        machine.project,
        machine.created,
        machine.ends,
        per_month,
        0,
        machine.state.value,
        fate,
        per_hour=machine.price_per_hour if runs else 0.0,
    )


def _thing(
    thing: Thing, needed: Sequence[str], owner: str, names: Collection[str], *, mine: bool, now: datetime
) -> Item:
    over = thing.expires is not None and thing.expires <= now and not needed
    fate = _fate(thing.owner, owner, thing.name, names, mine=mine, over=over)
    why = f"{', '.join(needed)} needs it" if needed else ""
    return Item(
        thing.kind,
        thing.name,
        thing.place,
        thing.owner,
        thing.project,
        thing.made,
        thing.expires,
        thing.per_month,
        thing.size_gb,
        "",
        fate,
        why=why,
    )


def _fate(whose: str, owner: str, name: str, names: Collection[str], *, mine: bool, over: bool) -> Fate:
    if whose not in (owner, ""):
        return "not touched"
    if over:
        return "expired"
    return "asked for" if name in names or (mine and whose == owner) else "listed"


def _is_over(machine: Machine, now: datetime) -> bool:
    """A machine whose expiry can't be read has none: it is listed, and its owner decides."""
    return machine.created < machine.ends <= now


def _check_names(found: Sequence[_Found], names: Collection[str], owner: str) -> None:
    """All of them, before anything is deleted."""
    for name in names:
        same = [one.item for one in found if one.item.name == name]
        if not same:
            known = sorted({one.item.name for one in found})
            raise NotFoundError(
                f"Nothing of tlvm is called {name[:80]}",
                next=nearest(name, known) if known else "There is nothing to delete.",
            )
        if theirs := [item for item in same if item.fate == "not touched"]:
            raise ConflictError(
                f"The {theirs[0].kind} {name} belongs to {theirs[0].owner}",
                next=f"Only {theirs[0].owner} deletes it; you are {owner}. Nothing was deleted.",
            )
        if needed := [item for item in same if item.why]:
            raise ConflictError(
                f"The {needed[0].kind} {name} is in use: {needed[0].why}",
                next="tlvm down ends the machine first. Nothing was deleted.",
            )


def _question(wanted: Sequence[_Found]) -> str:
    names = ", ".join(f"the {one.item.kind} {one.item.name}" for one in wanted)
    return f"Delete {names}?"


def _delete(workspace: Workspace, one: _Found, *, force: bool, now: datetime, clock: Clock) -> Item:
    """An error is told, and the next one is deleted all the same."""
    item = one.item
    workspace.progress.say("delete", f"{item.kind} {item.name} in {item.place}")
    try:
        if isinstance(one.thing, Thing):
            rented = workspace.rented
            gone = rented is not None and rented.remove(one.thing)
            return replace(item, deleted=gone, why="" if gone else "it is gone or needed by now")
        gone, why = _end(workspace, one.thing, item.fate, force=force, now=now, clock=clock)
        return replace(item, deleted=gone, why=why)
    except TlvmError as error:
        return replace(item, why=error.what + (f" ({error.detail.splitlines()[0]})" if error.detail else ""))


def _end(
    workspace: Workspace, machine: Machine, fate: Fate, *, force: bool, now: datetime, clock: Clock
) -> tuple[bool, str]:
    """Whether it is gone, and why not."""
    if fate == "asked for":
        done = down(workspace.of_machine(machine.name), force=force, clock=clock)
        return done.deleted or not done.was_there, ""
    there = workspace.provider.get(machine.name)
    if there is not None and (there.id != machine.id or not _is_over(there, now)):
        return False, "another machine has its name by now"
    workspace.provider.delete(machine.name)
    deadline = clock.now() + GONE_TIMEOUT_S
    while (there := workspace.provider.get(machine.name)) is not None and there.id == machine.id:
        if clock.now() > deadline:
            return False, f"it is still there ({there.state.value}) after it was deleted"
        clock.sleep(1)
    if there is None:
        workspace.records.forget_machine(machine.provider, machine.name)
    return True, ""
