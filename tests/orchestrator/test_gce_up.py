"""`tlvm up` on gce: which place is asked after which, what is kept of it, and what a crash in between leaves."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from orchestrator.config import MachineSettings, Settings, StoreSettings
from orchestrator.errors import (
    AuthError,
    CapacityError,
    CloudError,
    ConflictError,
    ConnectionLost,
    NotFoundError,
    QuotaError,
    TransientError,
)
from orchestrator.providers.base import Machine
from orchestrator.providers.retrying import retrying
from orchestrator.ssh import Output
from orchestrator.workflows.clock import Clock as Waiting
from orchestrator.workflows.down import down
from orchestrator.workflows.readiness import check_gpu
from orchestrator.workflows.up import ensure, up
from orchestrator.workflows.workspace import Workspace
from remote.contract.attempts import Attempts
from tests.conformance.providers import eventually
from tests.fakes import compute_loopback
from tests.fakes.compute_cloud import Clock
from tests.fakes.compute_server import ComputeServer
from tests.orchestrator.gce_cloud import gce, gce_settings
from tests.orchestrator.test_up_down import machine_of
from tests.processes import living_with


class Told:
    """Progress, kept."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, label: str, text: str) -> None:
        self.lines.append(f"{label} {text}")

    def warn(self, text: str) -> None:
        self.lines.append(text)

    def bar(self, label: str, total: int, unit: str) -> object:
        raise AssertionError(label)


@pytest.fixture
def server() -> Iterator[ComputeServer]:
    with ComputeServer(clock=Clock(rate=0), wait_s=0.05) as running:
        yield running
        assert running.errors == []


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
    made = Workspace(settings, Told())  # type: ignore[arg-type]
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


def test_no_capacity_leads_to_the_next_zone_then_the_next_accelerator(
    server: ComputeServer, tmp_path: Path
) -> None:
    made = workspace(server, tmp_path, accelerator="l4,t4")
    server.faults.add("stock-out")
    server.faults.add("plain stock-out")
    server.faults.add("preempted creation")
    bring_up(made, server)
    assert asked(server) == [
        ("us-central1-a", "g2-standard-8"), ("us-central1-b", "g2-standard-8"), ("us-central1-c", "g2-standard-8"),
        ("us-central1-a", "n1-standard-8"),
    ]  # fmt: skip
    assert instances(server) == [("us-central1-a", "tlvm-ana-default")]
    assert (
        "us-central1-a nvidia-l4: no capacity (ZONE_RESOURCE_POOL_EXHAUSTED_WITH_DETAILS); nothing created"
        in told(made)
    )
    assert "us-central1-a nvidia-tesla-t4: accepted" in told(made)
    kept = [json.loads(line) for line in (made.records.folder / "attempts.jsonl").read_text().splitlines()]
    assert [(line["place"], bool(line["refused"])) for line in kept] == [
        ("us-central1-a", True), ("us-central1-b", True), ("us-central1-c", True), ("us-central1-a", False),
    ]  # fmt: skip


def test_a_quota_of_a_region_skips_the_region(server: ComputeServer, tmp_path: Path) -> None:
    made = workspace(server, tmp_path, gce_more={"zones": "us-central1,us-east4"})
    server.cloud.region_quotas["us-central1"]["NVIDIA_L4_GPUS"] = 0
    bring_up(made, server)
    assert [zone for zone, _ in asked(server)] == ["us-central1-a", "us-east4-a"]
    assert "quota" in told(made) and "us-central1" in told(made)


def test_the_other_accelerator_of_that_region_has_a_quota_of_its_own(
    server: ComputeServer, tmp_path: Path
) -> None:
    made = workspace(server, tmp_path, accelerator=["l4", "t4"])
    server.cloud.region_quotas["us-central1"]["NVIDIA_L4_GPUS"] = 0
    bring_up(made, server)
    assert asked(server) == [("us-central1-a", "g2-standard-8"), ("us-central1-a", "n1-standard-8")]


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ("global quota", QuotaError),
        ("403 global quota", QuotaError),
        ("403 permission", AuthError),
        ("403 disabled", AuthError),
    ],
)
def test_what_no_other_place_can_help_stops_at_once(
    server: ComputeServer, tmp_path: Path, fault: str, error: type[Exception]
) -> None:
    made = workspace(server, tmp_path)
    server.faults.add(fault)
    with pytest.raises(error):
        up(made, clock=waiting(server))
    assert len(asked(server)) == 1 and instances(server) == []
    assert made.records.machines() == []


def test_quotas_alone_are_no_reason_to_wait(server: ComputeServer, tmp_path: Path) -> None:
    made = workspace(server, tmp_path)
    server.cloud.region_quotas["us-central1"]["NVIDIA_L4_GPUS"] = 0
    with pytest.raises(QuotaError) as caught:
        up(made, wait_hours=5, clock=waiting(server))
    assert "tlvm quota" in caught.value.next
    assert len(asked(server)) == 1


def test_no_place_at_all_names_every_attempt(server: ComputeServer, tmp_path: Path) -> None:
    server.cloud.frozen_zones |= {f"us-central1-{letter}" for letter in "abcf"}
    made = workspace(server, tmp_path)
    with pytest.raises(CapacityError) as caught:
        up(made, clock=waiting(server))
    assert caught.value.detail.count("ZONE_RESOURCE_POOL_EXHAUSTED") == 3
    assert made.records.machines() == [] and instances(server) == []


def test_waiting_asks_politely_until_a_place_has_one(server: ComputeServer, tmp_path: Path) -> None:
    zones = {f"us-central1-{letter}" for letter in "abcf"}
    server.cloud.frozen_zones |= zones
    pauses: list[float] = []

    def sleep(seconds: float) -> None:
        if seconds >= 60:
            pauses.append(seconds)
        if len(pauses) == 3:
            server.cloud.frozen_zones.clear()
        server.clock.advance(seconds)

    made = workspace(server, tmp_path)
    with pytest.raises(ConnectionLost):
        up(made, wait_hours=2, clock=waiting(server, sleep), ready_timeout_s=30)
    assert pauses == [60, 90, 135]
    assert len(asked(server)) == 3 * 3 + 1
    assert (
        len(
            {
                request.query["requestId"][0]
                for request in server.requests
                if request.call == "instances.insert"
            }
        )
        == 10
    )
    assert "asked again in 60 s" in told(made)


def test_waiting_outlasts_a_cloud_that_gives_no_answer(server: ComputeServer, tmp_path: Path) -> None:
    """And asks the same again: what was accepted without an answer makes no second machine."""
    made = workspace(server, tmp_path)
    server.faults.add("503 after")
    server.faults.add("503", times=9)
    with pytest.raises(ConnectionLost):
        up(made, wait_hours=2, clock=waiting(server), ready_timeout_s=30)
    inserts = [request for request in server.requests if request.call == "instances.insert"]
    assert len(inserts) == 11 and len({request.query["requestId"][0] for request in inserts}) == 1
    assert instances(server) == [("us-central1-a", "tlvm-ana-default")]


def test_waiting_ends(server: ComputeServer, tmp_path: Path) -> None:
    server.cloud.frozen_zones |= {f"us-central1-{letter}" for letter in "abcf"}
    began = server.clock.now()
    with pytest.raises(CapacityError):
        up(workspace(server, tmp_path), wait_hours=1, clock=waiting(server))
    assert (server.clock.now() - began).total_seconds() <= 3600


# What a crash leaves


def test_an_attempt_that_was_cut_is_asked_again_with_its_own_request_id(
    server: ComputeServer, tmp_path: Path
) -> None:
    """The client died between sending and hearing, and the cloud did it: one machine."""
    made = workspace(server, tmp_path)
    first = made.provider.create

    def cut(*values: object) -> None:
        raise SystemExit

    made.provider.__dict__["create"] = cut  # before the request leaves
    with pytest.raises(SystemExit):
        up(made, clock=waiting(server))
    (record,) = made.records.machines()
    assert record.outcome == "asked" and record.request_id and record.place == "us-central1-a"
    made.provider.__dict__["create"] = first
    bring_up(made, server)
    (insert,) = [request for request in server.requests if request.call == "instances.insert"]
    assert insert.query["requestId"] == [record.request_id]


def test_a_machine_whose_asker_died_is_adopted_in_whichever_zone(
    server: ComputeServer, tmp_path: Path
) -> None:
    made = workspace(server, tmp_path)
    server.faults.add("stock-out")
    bring_up(made, server)
    made.records.forget_machine("gce", "tlvm-ana-default")
    again = workspace(server, tmp_path)
    bring_up(again, server)
    assert len(asked(server)) == 2
    assert instances(server) == [("us-central1-b", "tlvm-ana-default")]
    assert "adopt tlvm-ana-default is there: running on us-central1-b" in told(again)


def test_an_answer_that_never_came_keeps_the_record(server: ComputeServer, tmp_path: Path) -> None:
    made = workspace(server, tmp_path)
    server.faults.add("503 after")
    server.faults.add("503", times=20)
    with pytest.raises(TransientError):
        up(made, clock=waiting(server))
    (record,) = made.records.machines()
    server.faults.clear()
    bring_up(workspace(server, tmp_path), server)
    assert instances(server) == [("us-central1-a", "tlvm-ana-default")]
    assert {
        request.query["requestId"][0] for request in server.requests if request.call == "instances.insert"
    } == {record.request_id}


def test_other_settings_are_a_conflict(server: ComputeServer, tmp_path: Path) -> None:
    bring_up(workspace(server, tmp_path), server)
    with pytest.raises(ConflictError, match="spot"):
        up(workspace(server, tmp_path, spot=True), clock=waiting(server))


# While it boots


def test_a_preempted_machine_ends_the_wait_at_once_with_the_reason(
    server: ComputeServer, tmp_path: Path
) -> None:
    began = server.clock.now()

    def sleep(seconds: float) -> None:
        server.clock.advance(seconds)
        if (server.clock.now() - began).total_seconds() > 5:
            server.instances.preempt("tlvm-ana-default")

    with pytest.raises(CloudError) as caught:
        up(workspace(server, tmp_path, spot=True), clock=waiting(server, sleep))
    assert "compute.instances.preempted" in caught.value.detail
    assert (server.clock.now() - began).total_seconds() < 60


def test_a_boot_that_hangs_shows_the_end_of_the_console(server: ComputeServer, tmp_path: Path) -> None:
    assert "Booting from disk" in bring_up(workspace(server, tmp_path), server).detail


def test_who_comes_from_another_network_is_let_through_when_nobody_answers(
    server: ComputeServer, tmp_path: Path
) -> None:
    bring_up(workspace(server, tmp_path), server)
    elsewhere = workspace(server, tmp_path, gce_more={"ssh_source_ranges": "198.51.100.9/32"})
    machine = elsewhere.machine()
    for _ in range(2):
        with pytest.raises(ConnectionLost):
            elsewhere.connect(machine, timeout_s=1)
    rules = {name: rule for (_, name), rule in server.cloud.resources["firewalls"].items()}
    assert rules["tlvm-ssh-ana"]["sourceRanges"] == ["198.51.100.9/32"]
    assert server.count("firewalls.patch") == 1


def test_a_dry_run_prints_the_very_request_and_sends_none(server: ComputeServer, tmp_path: Path) -> None:
    result = up(workspace(server, tmp_path, budget=1.0), dry_run=True)
    assert [offer.place for offer in result.offers] == ["us-central1-a", "us-central1-b", "us-central1-c"]
    assert result.most == pytest.approx(1.0)
    assert result.request is not None
    assert result.request["zone"] == "us-central1-a"
    assert result.request["body"]["scheduling"]["instanceTerminationAction"] == "DELETE"
    assert all(request.method == "GET" for request in server.requests)
    assert list(tmp_path.iterdir()) == []


def test_a_run_never_makes_a_machine_that_costs_money(server: ComputeServer, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no machine"):
        ensure(workspace(server, tmp_path), clock=waiting(server))
    assert asked(server) == []


def test_up_and_down_with_machines_that_really_boot(tmp_path: Path) -> None:
    """Google's client, real SSH with a pinned host key, the startup script, the fake GPU's driver; then nothing is left."""
    if why := compute_loopback.missing():
        pytest.skip(why)
    with ComputeServer(compute_loopback.LoopbackHardware(tmp_path / "disks")) as server:
        made = workspace(server, tmp_path / "here", accelerator="none", gce_more={"zones": "us-central1-b"})
        made.store = NoRuns()  # type: ignore[assignment]
        result = up(made)
        assert result.made and result.machine is not None and result.machine.place == "us-central1-b"
        assert not up(made).made
        (record,) = made.records.machines()
        assert record.host_keys and record.id == result.machine.id
        through_a_proxy(made, result.machine, tmp_path)
        ended = down(made)
        assert (
            ended.deleted
            and server.cloud.resources["instances"] == {}
            and server.cloud.resources["disks"] == {}
        )
        assert made.records.machines() == []
        assert server.errors == []


_PROXY = """
import selectors, socket, sys, os
far = socket.create_connection((sys.argv[1], int(sys.argv[2])))
with selectors.DefaultSelector() as ready:
    ready.register(0, selectors.EVENT_READ)
    ready.register(far, selectors.EVENT_READ)
    while True:
        for key, _ in ready.select():
            data = os.read(0, 65536) if key.fd == 0 else far.recv(65536)
            if not data:
                sys.exit()
            far.sendall(data) if key.fd == 0 else os.write(1, data)
"""


def through_a_proxy(made: Workspace, machine: Machine, tmp_path: Path) -> None:
    """As --iap does it: a command carries the connection, and the host is only the name of the pinned key."""
    assert machine.ssh is not None
    script = tmp_path / "proxy.py"
    script.write_text(_PROXY)
    command = f"{sys.executable} {script} {machine.ssh.host} %p"
    address = dataclasses.replace(machine.ssh, host=f"compute.{machine.id}", proxy_command=command)
    with made.connect(dataclasses.replace(machine, ssh=address)) as connection:
        assert connection.check("echo carried") == b"carried\n"
    assert eventually(lambda: not living_with(str(script)))


class NoRuns:
    url = "gs://trees-4711-tlvm"

    def blobs(self, prefix: str, *, delimiter: str | None = None) -> Iterator[object]:
        return iter(())


@pytest.mark.parametrize(
    ("exit_code", "stderr", "error"),
    [
        (0, b"", None),
        (
            1,
            b"RuntimeError: CUDA error: no kernel image is available for execution on the device",
            CloudError,
        ),
        (1, b"RuntimeError: No CUDA GPUs are available", TransientError),
        (1, b"ModuleNotFoundError: No module named 'torch'", TransientError),
    ],
)
def test_the_gpu_computes_before_data_moves(
    exit_code: int, stderr: bytes, error: type[Exception] | None
) -> None:
    machine = machine_of("tlvm-ana-trees")
    if error is None:
        check_gpu(machine, Output(exit_code, b"4.0\n", stderr))
        return
    with pytest.raises(error) as caught:
        check_gpu(machine, Output(exit_code, b"", stderr))
    assert type(caught.value) is error
