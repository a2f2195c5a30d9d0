"""What a project of Google Cloud holds and allows beside the machines themselves: `Rented`, on Compute Engine."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol

from orchestrator.config import GceSettings
from orchestrator.providers.rented import Thing

from . import things
from .operations import Waiting
from .prices import PriceTable
from .rest import Rest


class Machines(Protocol):
    """The part of the provider that is needed here."""

    settings: GceSettings
    rest: Rest

    def soft_end(self, name: str) -> datetime | None: ...
    def keep_until(self, name: str, when: datetime) -> None: ...


class GceAccount:
    def __init__(self, machines: Machines, prices: PriceTable, waiting: Waiting) -> None:
        self._machines = machines
        self._rest = machines.rest
        self._prices = prices
        self._waiting = waiting

    def soft_end(self, name: str) -> datetime | None:
        return self._machines.soft_end(name)

    def keep_until(self, name: str, when: datetime) -> None:
        self._machines.keep_until(name, when)

    def things(self, *, free: bool = True) -> list[Thing]:
        return things.things(self._rest, self._prices, free=free)

    def remove(self, thing: Thing) -> bool:
        return things.remove(self._rest, thing, waiting=self._waiting)

    def disk_per_month(self, name: str) -> float:
        return sum(things.disk(found, self._prices).per_month for found in things.disks_of(self._rest, name))

    def storage_per_month(self, stored_bytes: int) -> float:
        return self._prices.storage_per_month(stored_bytes)

    def prices(self) -> str:
        return f"{self._prices.source} of {self._prices.listed}"
