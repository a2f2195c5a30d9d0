"""What the provider suite needs to know of each provider. A new provider is one more line in CASES."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from orchestrator.errors import ConnectionLost
from orchestrator.providers import provider
from orchestrator.providers.base import Machine, MachineSpec, Provider
from orchestrator.ssh import Connection, connect, new_key
from remote.contract.run_spec import StoreRef
from tests.docker_engine import by_hand


@dataclass(frozen=True)
class Case:
    name: str
    made_by_hand: Callable[[Path, str], AbstractContextManager[Callable[[], bool]]]
    """(data dir, name): makes something of that name without our label; yields "does it still stand untouched?"."""
    shortest_life_s: float = 4  # a machine with this hard clock can still be reached before its end
    marks: tuple[pytest.MarkDecorator, ...] = ()


@contextmanager
def _folder_by_hand(data_dir: Path, name: str) -> Iterator[Callable[[], bool]]:
    folder = data_dir / "machines" / name
    folder.mkdir(parents=True)
    (folder / "thesis.txt").write_text("years of work")
    yield lambda: (folder / "thesis.txt").read_text() == "years of work"


@contextmanager
def _container_by_hand(_: Path, name: str) -> Iterator[Callable[[], bool]]:
    with by_hand(name) as stands:
        yield stands


CASES = [
    Case("local", made_by_hand=_folder_by_hand),
    Case("docker", made_by_hand=_container_by_hand, shortest_life_s=8, marks=(pytest.mark.docker,)),
]

PARAMETERS = [pytest.param(case, id=case.name, marks=case.marks) for case in CASES]


@dataclass(frozen=True)
class Place:
    """A provider with a data directory of its own, and a key of this computer."""

    case: Case
    data_dir: Path
    provider: Provider
    key_file: Path
    public_key: str
    tag: str  # makes names unlike those of another test run on this computer

    def spec(self, name: str, *, max_hours: float = 1.0, **settings: object) -> MachineSpec:
        store = self.data_dir / "store"
        store.mkdir(exist_ok=True)
        spec = MachineSpec(
            name=f"tlvm-{self.tag}-{name}",
            owner="ana",
            project="trees",
            public_key=self.public_key,
            store=StoreRef(str(store)),
            max_hours=max_hours,
            cpus=1,
            memory_gb=1,
        )
        return replace(spec, **settings)  # type: ignore[arg-type]

    def create(self, spec: MachineSpec) -> Machine:
        return self.provider.create(spec, self.provider.offers(spec)[0])

    def reach(self, name: str, *, key_file: Path | None = None, within_s: float = 60) -> Connection:
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
    made = Place(
        case=case,
        data_dir=data_dir,
        provider=provider(case.name, data_dir=data_dir),
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


def eventually(holds: Callable[[], bool], within_s: float = 20) -> bool:
    deadline = time.monotonic() + within_s
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def now() -> datetime:
    return datetime.now(UTC)
