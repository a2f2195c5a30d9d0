"""What a project of Google Cloud holds and allows beside the machines themselves: `Rented`, on Compute Engine."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import Protocol

from orchestrator.config import GceSettings
from orchestrator.providers.base import MachineSpec, Offer
from orchestrator.providers.findings import Finding
from orchestrator.providers.rented import AcceleratorKind, Disk, Planned, Quota, QuotaRequest, Standing, Thing
from remote.contract.run_spec import StoreRef

from . import checks, firewall, kinds, quota_requests, standing, things
from .catalogue import Prices
from .checks_context import Context
from .operations import Waiting
from .request import Insert
from .rest import Rest


class Machines(Protocol):
    """The part of the provider that is needed here."""

    settings: GceSettings
    rest: Rest

    def request(self, spec: MachineSpec, offer: Offer) -> Insert: ...
    def soft_end(self, name: str) -> datetime | None: ...
    def keep_until(self, name: str, when: datetime) -> None: ...


class GceAccount:
    def __init__(self, machines: Machines, prices: Prices, waiting: Waiting) -> None:
        self._machines = machines
        self._rest = machines.rest
        self._prices = prices
        self._waiting = waiting

    def planned(self, spec: MachineSpec, offer: Offer) -> Planned:
        insert = self._machines.request(spec, offer)
        made_of = insert.body["disks"][0]["initializeParams"]
        kind, size_gb = str(made_of["diskType"]).rpartition("/")[2], int(made_of["diskSizeGb"])
        per_month = self._prices.known().of(offer.region).disk_per_month(size_gb, kind)
        sources = firewall.ssh_sources(self._machines.settings)
        return Planned(asdict(insert), Disk(size_gb, kind, per_month), sources)

    def soft_end(self, name: str) -> datetime | None:
        return self._machines.soft_end(name)

    def keep_until(self, name: str, when: datetime) -> None:
        self._machines.keep_until(name, when)

    def things(self, *, free: bool = True) -> list[Thing]:
        return things.things(self._rest, self._prices.known(), free=free)

    def remove(self, thing: Thing) -> bool:
        return things.remove(self._rest, thing, waiting=self._waiting)

    def disk_per_month(self, name: str) -> float:
        return sum(
            things.disk(found, self._prices.known()).per_month for found in things.disks_of(self._rest, name)
        )

    def storage_per_month(self, stored_bytes: int) -> float:
        return self._prices.known().storage_per_month(stored_bytes)

    def examine(self, spec: MachineSpec, store: StoreRef) -> list[Finding]:
        return checks.examine(Context(self._rest, self._machines.settings, spec, store))

    def standing(self) -> Standing:
        return standing.standing(self._rest)

    def make_bucket(self, store: StoreRef, region: str) -> bool:
        return standing.make_bucket(self._rest, store, region)

    def quotas(self, spec: MachineSpec) -> list[Quota]:
        return kinds.quotas_of(self._rest, self._machines.settings, spec)

    def quota_request(self, metric: str, region: str, value: float) -> QuotaRequest:
        email = self._rest.account()
        return quota_requests.by_hand(
            self._rest.project, metric, region, value, email if "@" in email else ""
        )

    def send_quota_request(self, request: QuotaRequest) -> QuotaRequest:
        email = self._rest.account()
        return quota_requests.send(self._rest, request, email if "@" in email else "")

    def accelerators(self, spec: MachineSpec) -> list[AcceleratorKind]:
        return kinds.accelerators(self._rest, self._machines.settings, spec, self._prices.today())

    def prices(self) -> str:
        table = self._prices.known()
        return f"{table.source} of {table.listed}"
