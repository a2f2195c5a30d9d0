"""`tlvm up` against the fake Compute Engine, for the tests of it: a workspace, and what it asked for and told."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from orchestrator.config import MachineSettings, Settings, StoreSettings
from orchestrator.errors import ConnectionLost
from orchestrator.progress import Bar
from orchestrator.providers.retrying import retrying
from orchestrator.stores import open_store
from orchestrator.workflows.clock import Clock as Waiting
from orchestrator.workflows.machines.up import up
from orchestrator.workflows.workspace import Workspace
from remote.contract.attempts import Attempts
from remote.contract.run_spec import StoreRef
from tests.fakes.compute_server import ComputeServer
from tests.orchestrator.gce_cloud import gce, gce_settings


class Told:
    """Progress, kept."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, label: str, text: str) -> None:
        self.lines.append(f"{label} {text}")

    def warn(self, text: str) -> None:
        self.lines.append(text)

    def bar(self, label: str, total: int, unit: str) -> AbstractContextManager[Bar]:
        raise AssertionError(label)


def workspace(
    server: ComputeServer, folder: Path, *, gce_more: dict[str, object] | None = None, **machine: object
) -> Workspace:
    more = {"zones": "us-central1", **(gce_more or {})}
    settings = Settings(
        provider="gce",
        owner="ana",
        store=StoreSettings(url="gs://trees-4711-tlvm"),
        machine=MachineSettings.model_validate(machine),
        gce=gce_settings(server, **more),
        folder=folder,
        data_dir=folder / "data",
    )
    made = Workspace(settings, Told())
    vars(made)["store"] = open_store(
        StoreRef(str(folder / "store"))
    )  # the bucket, in which nothing has run yet
    made.provider = retrying(gce(server, **more), Attempts(count=4, sleep=server.clock.advance))
    return made


def waiting(server: ComputeServer, sleep: Callable[[float], None] | None = None) -> Waiting:
    return Waiting(now=lambda: server.clock.now().timestamp(), sleep=sleep or server.clock.advance)


def bring_up(made: Workspace, server: ComputeServer, **more: object) -> ConnectionLost:
    """Up to a machine at whose address nobody answers: everything before SSH has happened then."""
    with pytest.raises(ConnectionLost) as caught:
        up(made, clock=waiting(server), ready_timeout_s=30, **more)  # type: ignore[arg-type]
    return caught.value


def asked(server: ComputeServer) -> list[tuple[str, str]]:
    """(zone, machine type) of every insert."""
    inserts = [request for request in server.requests if request.call == "instances.insert"]
    return [
        (request.path.split("/")[-2], request.body["machineType"].rpartition("/")[2]) for request in inserts
    ]


def instances(server: ComputeServer) -> list[tuple[str, str]]:
    return [(scope.removeprefix("zones/"), name) for scope, name in server.cloud.resources["instances"]]


def told(made: Workspace) -> str:
    assert isinstance(made.progress, Told)
    return "\n".join(made.progress.lines)
