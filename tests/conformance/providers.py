"""What the provider suite needs to know of each provider. A new provider is one more line in CASES."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest
import requests

from orchestrator.config import GceSettings
from orchestrator.errors import ConnectionLost
from orchestrator.providers import provider
from orchestrator.providers.base import Machine, MachineSpec, Provider
from orchestrator.providers.gce import GceProvider
from orchestrator.providers.retrying import retrying
from orchestrator.ssh import Connection, connect, new_key
from remote.contract.attempts import Attempts
from remote.contract.run_spec import StoreRef
from tests.docker_engine import by_hand
from tests.fakes import compute_loopback
from tests.fakes.compute_server import PROJECT, ComputeServer
from tests.needs import need


@dataclass(frozen=True)
class World:
    """Where a provider makes its machines."""

    open: Callable[[], Provider]  # as another process would
    store: StoreRef
    by_hand: Callable[[str], AbstractContextManager[Callable[[], bool]]]
    """(name): makes something of that name without our label; yields "does it still stand untouched?"."""
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    let_pass: Callable[[float], None] = lambda seconds: (
        None
    )  # where time is the test's; elsewhere it passes by itself


@dataclass(frozen=True)
class Case:
    name: str
    world: Callable[[Path], AbstractContextManager[World]]
    shortest_life_s: float = 4  # a machine with this hard clock can still be reached before its end
    marks: tuple[pytest.MarkDecorator, ...] = ()


@contextmanager
def _local(data_dir: Path) -> Iterator[World]:
    yield World(
        lambda: provider("local", data_dir=data_dir), _folder(data_dir), partial(_folder_by_hand, data_dir)
    )


@contextmanager
def _docker(data_dir: Path) -> Iterator[World]:
    yield World(lambda: provider("docker", data_dir=data_dir), _folder(data_dir), by_hand)


@contextmanager
def _gce(data_dir: Path) -> Iterator[World]:
    """Google's own client against the fake Compute Engine, whose machines boot on loopback addresses."""
    need("loopback machines")
    hardware = compute_loopback.LoopbackHardware(data_dir / "hardware")
    with ComputeServer(hardware) as server:
        settings = GceSettings(project=PROJECT, endpoint=server.url, ssh_source_ranges=("127.0.0.1/32",))

        def open_it() -> Provider:
            return retrying(GceProvider(settings, now=server.clock.now), Attempts())

        yield World(
            open_it,
            StoreRef("gs://trees-4711-tlvm"),
            partial(_instance_by_hand, server),
            now=server.clock.now,
            let_pass=server.clock.advance,
        )
        assert server.errors == []


def _folder(data_dir: Path) -> StoreRef:
    (data_dir / "store").mkdir(exist_ok=True)
    return StoreRef(str(data_dir / "store"))


@contextmanager
def _folder_by_hand(data_dir: Path, name: str) -> Iterator[Callable[[], bool]]:
    folder = data_dir / "machines" / name
    folder.mkdir(parents=True)
    (folder / "thesis.txt").write_text("years of work")
    yield lambda: (folder / "thesis.txt").read_text() == "years of work"


@contextmanager
def _instance_by_hand(server: ComputeServer, name: str) -> Iterator[Callable[[], bool]]:
    api = f"{server.url}/compute/v1/projects/{PROJECT}/zones/us-central1-a/instances"
    instance = {
        "name": name,
        "machineType": "zones/us-central1-a/machineTypes/e2-standard-2",
        "disks": [{"boot": True, "initializeParams": {"sourceImage": "projects/debian-cloud/global/images/family/debian-12"}}],
        "networkInterfaces": [{"network": "global/networks/default"}],
    }  # fmt: skip
    made = requests.post(api, json=instance, timeout=10)
    assert made.status_code == 200, made.text
    id = requests.get(f"{api}/{name}", timeout=10).json()["id"]
    try:
        yield lambda: bool(requests.get(f"{api}/{name}", timeout=10).json().get("id") == id)
    finally:
        requests.delete(f"{api}/{name}", timeout=10)


CASES = [
    Case("local", _local),
    Case("docker", _docker, shortest_life_s=8, marks=(pytest.mark.docker,)),
    Case("gce", _gce, shortest_life_s=60),
]

PARAMETERS = [pytest.param(case, id=case.name, marks=case.marks) for case in CASES]


@dataclass(frozen=True)
class Place:
    """A provider with a data directory of its own, and a key of this computer."""

    case: Case
    world: World
    provider: Provider
    data_dir: Path
    key_file: Path
    public_key: str
    tag: str  # makes names unlike those of another test run on this computer

    def spec(self, name: str, *, max_hours: float = 1.0, **settings: object) -> MachineSpec:
        spec = MachineSpec(
            name=f"tlvm-{self.tag}-{name}",
            owner="ana",
            project="trees",
            public_key=self.public_key,
            store=self.world.store,
            max_hours=max_hours,
            cpus=1,
            memory_gb=1,
        )
        return replace(spec, **settings)  # type: ignore[arg-type]

    def now(self) -> datetime:
        return self.world.now()

    def create(self, spec: MachineSpec) -> Machine:
        return self.provider.create(spec, self.provider.offers(spec)[0])

    def reach(self, name: str, *, key_file: Path | None = None, within_s: float = 120) -> Connection:
        """A connection to a machine that may still be booting."""
        deadline = time.monotonic() + within_s
        while True:
            machine = self.provider.get(name)
            host_keys = self.provider.host_keys(name)
            try:
                if machine is None or machine.ssh is None or not host_keys:
                    raise ConnectionLost(f"{name} has no address or host key yet")
                return connect(machine.ssh, host_keys=host_keys, key_file=key_file or self.key_file)
            except ConnectionLost:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)


@contextmanager
def place(case: Case, data_dir: Path) -> Iterator[Place]:
    """Whatever the test does, nothing of it stays."""
    data_dir.mkdir(parents=True, exist_ok=True)
    key_file = data_dir / "key"
    with case.world(data_dir) as world:
        made = Place(
            case=case,
            world=world,
            provider=world.open(),
            data_dir=data_dir,
            key_file=key_file,
            public_key=new_key(key_file),
            tag=f"{time.time_ns() % 36**6:x}",
        )
        try:
            yield made
        finally:
            for machine in made.provider.machines():
                if machine.name.startswith(f"tlvm-{made.tag}-"):
                    made.provider.delete(machine.name)


def eventually(holds: Callable[[], bool], within_s: float = 120) -> bool:
    deadline = time.monotonic() + within_s
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True
