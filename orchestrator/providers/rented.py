"""What only a provider has that rents its machines out: a soft clock, things that cost without a machine, quotas, prices.

Beside `Provider`, which every kind of machine has. All prices are estimates from list prices, in US dollars.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Protocol


@dataclass(frozen=True)
class Thing:
    """Something that carries our label, and is no machine."""

    kind: Literal["disk", "address", "firewall rule"]
    name: str
    place: str  # a zone or a region; "global"
    id: str  # of this very one: the next of the same name has another
    owner: str  # "" when it serves every owner
    project: str
    made: datetime  # UTC
    expires: datetime | None  # None: nothing says when; then nobody deletes it unasked
    per_month: float
    size_gb: int = 0
    used_by: tuple[str, ...] = ()  # machines that need it; "" stands for one whose name is not known


class Rented(Protocol):
    def soft_end(self, name: str) -> datetime | None:
        """When the machine's guard would end it; None while it is at work, or has not said."""

    def keep_until(self, name: str, when: datetime) -> None:
        """Move the soft clock: the guard ends nothing before that. The hard clock stays."""

    def things(self, *, free: bool = True) -> list[Thing]:
        """Everything with our label that is no machine, whoever owns it, in every place; also what costs nothing."""

    def remove(self, thing: Thing) -> bool:
        """Delete this very thing. False when it is gone, is another one by now, or a machine has come to need it."""

    def disk_per_month(self, name: str) -> float:
        """What the disks of a machine cost, running or stopped."""

    def storage_per_month(self, stored_bytes: int) -> float:
        """What a bucket costs that holds so much."""

    def prices(self) -> str:
        """Where prices come from, and of which day: "list prices of 2026-11-15"."""
