"""What only a provider has that rents its machines out: a soft clock, things that cost without a machine, quotas, prices.

Beside `Provider`, which every kind of machine has. All prices are estimates from list prices, in US dollars.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, Protocol

from orchestrator.providers.base import MachineSpec, Offer
from orchestrator.providers.findings import Finding
from remote.contract.run_spec import StoreRef


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


@dataclass(frozen=True)
class Quota:
    metric: str  # the cloud's own name: "NVIDIA_L4_GPUS"
    region: str  # "" for the whole project
    limit: float
    used: float
    needed: float = 0  # by a machine as tlvm.toml describes it
    asked: float = 0  # what Google was asked to raise it to, and has not granted; 0: nothing
    is_pending: bool = False  # it has not answered yet
    asked_on: str = ""  # the day of that, ISO 8601; "" when Google does not say

    @property
    def left(self) -> float:
        return max(0.0, self.limit - self.used)

    @property
    def is_awaited(self) -> bool:
        """Google has been asked for enough of it, and has not answered: to ask again would change nothing."""
        return self.is_pending and self.asked >= self.used + max(1.0, self.needed)


@dataclass(frozen=True)
class QuotaRequest:
    """To have more of a quota."""

    metric: str
    region: str
    value: float
    command: list[str]  # how to ask by hand
    link: str
    is_sent: bool = False
    refused: str = ""  # why it could not be sent


@dataclass(frozen=True)
class Disk:
    """Of a machine, and deleted with it."""

    size_gb: int
    kind: str  # the cloud's own name: "pd-balanced"
    per_month: float  # running or stopped; its hours are part of the machine's price


@dataclass(frozen=True)
class SshSources:
    """Who may reach the SSH server of a machine."""

    ranges: list[str]
    said_by: str  # a setting ("gce.ssh_source_ranges", "gce.iap"), or the address that was asked


@dataclass(frozen=True)
class Planned:
    """What would be asked of the cloud for a machine, and what would come with it."""

    request: dict[str, Any]  # the very one that would be sent
    disk: Disk
    ssh_sources: SshSources


@dataclass(frozen=True)
class Standing:
    """Who asks, and whether anything can be rented at all."""

    account: str
    project: str
    billing: bool | None  # None: it can't be read
    gpus: float | None  # how many the project may have in all; None: it can't be read


@dataclass(frozen=True)
class AcceleratorKind:
    """A kind of GPU, and where it may be had."""

    name: str  # Google's: "nvidia-l4"
    title: str
    short: str  # ours: "l4"; "" when there is none
    zones: list[str]
    machine_type: (
        str  # of the machine that is priced: one of them, with disk and address; "" when it has no price
    )
    region: str  # where that is
    per_hour: float
    per_hour_spot: float
    # By region of its zones: how many more; None where the cloud does not tell.
    quota: dict[str, float | None]
    count: int = 1  # of them in the machine that is priced


class Rented(Protocol):
    def planned(self, spec: MachineSpec, offer: Offer) -> Planned:
        """What `create` would do there. Asks, changes nothing; refuses what `create` would."""

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

    def examine(self, spec: MachineSpec, store: StoreRef) -> list[Finding]:
        """Everything that may keep a machine of this kind from being made and used; all looked at at the same time."""

    def standing(self) -> Standing:
        """AuthError when nobody is logged in."""

    def make_bucket(self, store: StoreRef, region: str) -> bool:
        """A private bucket in which only checkpoints expire. False when it is there already: it stays as it is.

        ConflictError when the name is somebody else's.
        """

    def quotas(self, spec: MachineSpec) -> list[Quota]:
        """Those that matter for a machine of this kind, in the places of the settings."""

    def quota_request(self, metric: str, region: str, value: float) -> QuotaRequest:
        """How to ask for so many; nothing is sent."""

    def send_quota_request(self, request: QuotaRequest) -> QuotaRequest:
        """Ask Google; twice is once. What it answered stands in it: that it takes the request, or why not."""

    def accelerators(self, spec: MachineSpec) -> list[AcceleratorKind]:
        """Every kind of GPU that is offered anywhere; priced as a machine of that kind with otherwise these wishes."""

    def prices(self) -> str:
        """Where prices come from, and of which day: "list prices of 2026-11-15"."""
