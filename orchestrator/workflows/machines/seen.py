"""The machines that the provider sees, and what it can't see: an outage somewhere hides no machine elsewhere, and no run."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from difflib import SequenceMatcher

from orchestrator.config import nearest
from orchestrator.errors import NotFoundError
from orchestrator.providers.base import Machine, Provider, Unseen


@dataclass(frozen=True)
class Seen:
    machines: list[Machine]
    problems: list[str] = field(default_factory=list)  # why there may be more

    @property
    def all_of_them(self) -> bool:
        return not self.problems


def seen(provider: Provider) -> Seen:
    try:
        return Seen(provider.machines())
    except Unseen as error:
        return Seen(error.machines, [f"{error.what}: a machine there is not shown, and goes on costing"])


def no_machine(name: str, provider: str, known: Collection[str]) -> NotFoundError:
    """What every command says of a name that no machine has."""
    there = [nearest(name, sorted(known))] if known else []
    return NotFoundError(
        f"There is no machine {name[:80]} on the provider {provider}",
        next="\n".join([*there, "tlvm up makes one."]),
    )


def nearest_first(name: str, known: Collection[str]) -> list[str]:
    return sorted(known, key=lambda other: (-SequenceMatcher(None, name, other).ratio(), other))
