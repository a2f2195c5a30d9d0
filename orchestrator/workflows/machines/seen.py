"""The machines that the provider sees, and what it can't see: an outage somewhere hides no machine elsewhere, and no run."""

from __future__ import annotations

from dataclasses import dataclass, field

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
