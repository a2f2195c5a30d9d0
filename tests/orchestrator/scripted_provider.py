"""A provider whose answers are scripted, its machines, a workspace with it, and a clock that does not wait."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta
from pathlib import Path

from orchestrator.config import MachineSettings, Settings
from orchestrator.errors import TlvmError
from orchestrator.providers.base import Machine, MachineSpec, MachineState, Offer
from orchestrator.workflows.machines.up import Clock
from orchestrator.workflows.workspace import Workspace
from remote.contract.run_spec import StoreRef


def settings(folder: Path, **machine: object) -> Settings:
    return Settings(
        owner="ana",
        machine=MachineSettings(**machine),  # type: ignore[arg-type]
        folder=folder,
        data_dir=folder / "data",
    )


class FakeTime:
    """A clock that only a sleep moves."""

    def __init__(self) -> None:
        self.seconds = 0.0

    @property
    def clock(self) -> Clock:
        return Clock(now=lambda: self.seconds, sleep=self.sleep)

    def sleep(self, seconds: float) -> None:
        self.seconds += seconds


class Scripted:
    """A provider in memory. `answers` are what `create` does, place by place: an error, or None for success."""

    name = "local"

    def __init__(self, answers: list[TlvmError | None], *, price: float = 0, sticky: bool = False) -> None:
        self.answers = answers
        self.price = price
        self.sticky = sticky  # a deleted machine stays
        self.there: dict[str, Machine] = {}
        self.deleted: list[str] = []
        self.asked: list[str] = []

    def offers(self, spec: MachineSpec) -> list[Offer]:
        return [Offer(f"place-{number}", "none", self.price) for number in range(len(self.answers))]

    def create(self, spec: MachineSpec, offer: Offer) -> Machine:
        self.asked.append(offer.place)
        answer = self.answers[int(offer.place.removeprefix("place-"))]
        if answer is not None:
            raise answer
        self.there[spec.name] = machine_of(spec.name, settings=spec.settings(), owner=spec.owner)
        return self.there[spec.name]

    def get(self, name: str) -> Machine | None:
        return self.there.get(name)

    def machines(self) -> list[Machine]:
        return list(self.there.values())

    def host_keys(self, name: str) -> list[str]:
        return []

    def said(self, name: str) -> str:
        return "sshd: no hostkeys available"

    def authorize(self, name: str, public_key: str, expires: datetime) -> None:
        assert public_key.startswith("ssh-ed25519 ")

    def stop(self, name: str) -> None:
        raise AssertionError

    def start(self, name: str) -> None:
        raise AssertionError

    def delete(self, name: str) -> None:
        self.deleted.append(name)
        if not self.sticky:
            self.there.pop(name, None)


def machine_of(name: str, *, owner: str = "ana", **more: object) -> Machine:
    now = datetime.now(UTC)
    machine = Machine(
        name=name, provider="local", id="1", place="place-0", state=MachineState.STARTING, owner=owner,
        project="default", created=now - timedelta(hours=1), ends=now + timedelta(hours=3), accelerator="none",
        accelerator_count=0, price_per_hour=0, store=StoreRef("/store"),
    )  # fmt: skip
    return dataclasses.replace(machine, **more)  # type: ignore[arg-type]


def scripted(folder: Path, provider: Scripted, **machine: object) -> Workspace:
    workspace = Workspace(settings(folder, **machine))
    workspace.provider = provider
    return workspace
