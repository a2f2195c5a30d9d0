"""Hours and budget are shared by all machines that follow each other under one name: the next one gets what is left.

A machine may be lost (preempted, deleted by hand, its host failed); `up` makes it again, and must not pay twice. What
the earlier ones used is counted from their creation to their end, as the cloud tells it, at most to their hard clock.

    budget      counts until `tlvm down`
    hours       count until `tlvm down`, or until a machine has reached its hard clock
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from datetime import UTC, datetime

from orchestrator.errors import ConfigError, ConflictError
from orchestrator.providers.base import Machine, MachineSpec, Offer
from orchestrator.records import Life
from orchestrator.workflows.workspace import Workspace

HOURS_A_MONTH = 730
SHORTEST_H = 1 / 12  # a machine that lives for less is not worth its boot


def begun(workspace: Workspace, machine: Machine) -> None:
    """Remember that this machine costs from now on; twice is once. Nothing where nothing is rented."""
    if machine.price_per_hour <= 0:
        return
    life = Life(
        machine.id,
        machine.place,
        machine.created.isoformat(),
        machine.ends.isoformat(),
        machine.price_per_hour,
    )
    with workspace.records.alone():
        known = workspace.records.lives(machine.provider, machine.name)
        if all(other.id != machine.id for other in known):
            lives = [*(_over(workspace, earlier) for earlier in known), life]
            workspace.records.save_lives(machine.provider, machine.name, lives)


@dataclasses.dataclass(frozen=True)
class Spent:
    hours: float  # from its creation
    dollars: float  # an estimate: a machine that is off costs its disk only


def spent(machine: Machine, now: datetime, *, disk_per_month: float) -> Spent:
    """By a machine until now, or until its end; of several stops, all but the last count as if it had run."""
    until = min(now, machine.ends)
    hours = _between(machine.created, until)
    off = min(hours, machine.off_s / 3600 + (_between(machine.stopped, until) if machine.stopped else 0.0))
    disk = off * min(machine.price_per_hour, disk_per_month / HOURS_A_MONTH)
    return Spent(hours, (hours - off) * machine.price_per_hour + disk)


def left_of(workspace: Workspace, spec: MachineSpec) -> MachineSpec:
    """The same wish, with what earlier machines of the name have used; asked when none of them is there."""
    lives = [
        _over(workspace, life) for life in workspace.records.lives(workspace.settings.provider, spec.name)
    ]
    recent: list[Life] = []
    for life in lives:
        recent = [] if _reached_its_end(life) else [*recent, life]
    dollars = sum(_hours(life) * life.price_per_hour for life in lives)
    return dataclasses.replace(
        spec, used_hours=sum(map(_hours, recent)), used_dollars=dollars if spec.budget else 0.0
    )


def worth_it(workspace: Workspace, spec: MachineSpec, offers: Sequence[Offer]) -> list[Offer]:
    """The places in which something is left for a machine; ConflictError when there is none."""
    found = [offer for offer in offers if spec.hours(offer.price_per_hour) >= SHORTEST_H]
    if not spec.used_hours and not spec.used_dollars:
        return _paid_for(spec, offers, found)
    used = f"{spec.used_hours:.1f} of {spec.max_hours:g} h" + (
        f" and ${spec.used_dollars:.2f} of ${spec.budget:.2f}" if spec.budget else ""
    )
    if offers and not found:
        raise ConflictError(
            f"Hours or budget of the machine {spec.name} are used up",
            detail=f"Earlier machines of that name used {used}.",
            next="tlvm down closes that account, and the next tlvm up begins a new one; --budget and --max-hours give more.",
        )
    workspace.progress.say("left", f"earlier machines of {spec.name} used {used}; this one gets the rest")
    return found


def _paid_for(spec: MachineSpec, offers: Sequence[Offer], found: Sequence[Offer]) -> list[Offer]:
    """Of the first machine of a name: those that the budget pays for, where there is one."""
    if not spec.budget or not offers or spec.max_hours < SHORTEST_H:
        return list(offers)
    if not found:
        cheapest = min(offer.price_per_hour for offer in offers)
        raise ConfigError(
            f"A budget of ${spec.budget:g} pays for less than {SHORTEST_H * 60:.0f} minutes of {spec.name}",
            detail=f"The cheapest place costs about ${cheapest:.2f} an hour, an estimate.",
            next="Give it more (--budget, machine.budget), or ask for less (--spot, --accelerator, --machine-type).",
        )
    return list(found)


def _over(workspace: Workspace, life: Life) -> Life:
    """When it ended: as the cloud says, else by now, which is later; never after its hard clock."""
    if life.ended:
        return life
    ended_at = getattr(workspace.provider, "ended_at", None)
    told = ended_at(life.place, life.id) if ended_at else datetime.now(UTC)
    ended = min(told, datetime.fromisoformat(life.ends))
    return dataclasses.replace(life, ended=ended.isoformat())


def _hours(life: Life) -> float:
    return _between(datetime.fromisoformat(life.began), datetime.fromisoformat(life.ended))


def _between(began: datetime, ended: datetime) -> float:
    """In hours; none before the beginning."""
    return max(0.0, (ended - began).total_seconds() / 3600)


def _reached_its_end(life: Life) -> bool:
    return datetime.fromisoformat(life.ended) >= datetime.fromisoformat(life.ends)
