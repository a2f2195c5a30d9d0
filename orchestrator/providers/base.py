"""The contract of a provider: something that makes machines which we reach over SSH.

Every verb can be called twice. Every error is one of `orchestrator.errors`. A provider never retries, never loops
over places and never waits for a machine to be ready: the workflows do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from typing import Protocol

from orchestrator.errors import CloudError
from remote.contract.run_spec import StoreRef


class MachineState(Enum):
    STARTING = "starting"  # accepted, not yet reachable
    RUNNING = "running"
    STOPPED = "stopped"  # costs its disk; `start` brings it back
    STOPPING = "stopping"  # being stopped or deleted


@dataclass(frozen=True)
class MachineSpec:
    """What the user asked for. `settings()` is what `up` with other settings is compared by."""

    name: str
    owner: str
    project: str
    public_key: str  # OpenSSH format; of this computer, for this machine only
    store: StoreRef
    max_hours: float  # the hard clock
    accelerator: str = "none"
    accelerator_count: int = 0
    machine_type: str = ""
    disk_gb: int = 0
    cpus: float = 0  # 0 = all
    memory_gb: float = 0  # 0 = all
    spot: bool = False
    image: str = ""
    budget: float = 0  # US dollars, 0 = no bound: a clock too, see `hours`
    used_hours: float = 0  # by earlier machines of this name, which were lost
    used_dollars: float = 0
    idle_minutes: float = 0  # the soft clock; 0 = none
    idle_action: str = "stop"  # or "delete"
    request_id: str = (
        ""  # a UUID of this attempt, recorded before the call: the same one again makes no second machine
    )

    def hours(self, price_per_hour: float) -> float:
        """The hard clock of a machine of that price: until its time, or the money, is over, or what is left of it."""
        left = self.max_hours - self.used_hours
        if self.budget and price_per_hour > 0:
            left = min(left, (self.budget - self.used_dollars) / price_per_hour)
        return max(0.0, left)

    def settings(self) -> dict[str, str]:
        """The settings in which two machines of one name must agree, as text."""
        names = (
            "accelerator", "accelerator_count", "machine_type", "disk_gb", "cpus", "memory_gb", "spot", "image",
            "max_hours", "budget", "idle_minutes", "idle_action",
        )  # fmt: skip
        return {name: str(getattr(self, name)) for name in names} | {"store": self.store.url}


@dataclass(frozen=True)
class Offer:
    """One place that may have what the spec asks for."""

    place: str  # "us-central1-b", "this computer"
    accelerator: str
    price_per_hour: float  # US dollars, an estimate
    machine_type: str = ""
    region: str = ""  # what shares a quota


@dataclass(frozen=True)
class SshAddress:
    host: str
    port: int
    user: str
    proxy_command: str = ""  # what carries the connection where there is no way of its own


@dataclass(frozen=True)
class Machine:
    name: str
    provider: str
    id: str  # of this very instance: the next one of the same name has another
    place: str
    state: MachineState
    owner: str
    project: str
    created: datetime  # UTC, as all times
    ends: datetime  # the hard clock
    accelerator: str
    accelerator_count: int
    price_per_hour: float
    store: StoreRef  # as this machine sees the store
    ssh: SshAddress | None = None  # None until it is known
    settings: Mapping[str, str] = field(default_factory=dict)
    stopped: datetime | None = None  # since when; None while it runs, and where nobody says
    off_s: float = 0.0  # it was stopped for so long before its last start, as far as is known


class Unseen(CloudError):
    """Some places can't be asked now. What is not seen is not gone; `machines` are those of the other places."""

    def __init__(self, what: str, *, places: Sequence[str], machines: Sequence[Machine] = ()) -> None:
        super().__init__(
            what,
            detail="An outage of those places; whatever is in the others can be reached.",
            next="Try again later: status.cloud.google.com tells of outages.",
        )
        self.places = list(places)
        self.machines = list(machines)


class Provider(Protocol):
    name: str

    def offers(self, spec: MachineSpec) -> list[Offer]:
        """The places to try, in order. Asks, creates nothing. ConfigError when the spec can never be met here."""

    def create(self, spec: MachineSpec, offer: Offer) -> Machine:
        """Ask for the machine in one request that already holds its labels, its hard clock and its key.

        Returns as soon as it is accepted, not when it is ready. The same name again adopts the machine that is
        there (whatever its settings: the caller compares). After an error nothing is left behind.
        """

    def get(self, name: str) -> Machine | None:
        """The machine of that name that carries our label; None when there is none, or when it is another's."""

    def machines(self) -> list[Machine]:
        """Every machine with our label, whoever owns it, in every place, stopped ones too.

        Unseen, with those of the other places, when one can't be asked now.
        """

    def host_keys(self, name: str) -> list[str]:
        """The machine's SSH host keys ("ssh-ed25519 AAAA..."), learnt out of band; empty while not yet known.

        NotFoundError when there is no such machine.
        """

    def said(self, name: str) -> str:
        """The last lines that the machine wrote before anybody could come in; "" when none are kept, or it is gone."""

    def authorize(self, name: str, public_key: str, expires: datetime) -> None:
        """Let another computer of the same owner in, with a key of its own, until `expires` (UTC)."""

    def stop(self, name: str) -> None:
        """Halt the machine and keep its disk; its hard clock goes on. Stopped already is success."""

    def start(self, name: str) -> None:
        """Boot a stopped machine, within its hard clock. Running already is success."""

    def delete(self, name: str) -> None:
        """End the machine and everything that was made with it. Already gone is success.

        Waits until the provider has accepted; `get` tells when it is gone.
        """
