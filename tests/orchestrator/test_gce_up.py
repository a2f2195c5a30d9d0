"""`tlvm up` on gce: what a crash leaves, what happens while a machine boots, and a machine that really does."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import pytest

from orchestrator.errors import (
    CloudError,
    ConflictError,
    ConnectionLost,
    NotFoundError,
    TransientError,
)
from orchestrator.providers.base import Machine
from orchestrator.providers.rented import Disk, SshSources
from orchestrator.render.machines import ready
from orchestrator.ssh import Output
from orchestrator.workflows.machines.down import down
from orchestrator.workflows.machines.readiness import check_gpu
from orchestrator.workflows.machines.up import ensure, up
from orchestrator.workflows.workspace import Workspace
from tests.conformance.providers import eventually
from tests.fakes import compute_loopback
from tests.fakes.compute_server import ComputeServer
from tests.fakes.http_service import Answer, HttpService, whole
from tests.needs import need
from tests.orchestrator.gce_project import text
from tests.orchestrator.gce_workspace import asked, bring_up, instances, told, waiting, workspace
from tests.orchestrator.scripted_provider import machine_of
from tests.processes import living_with

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


def test_preempted_between_two_looks_is_said_with_the_reason_too(
    server: ComputeServer, tmp_path: Path
) -> None:
    """It was there a moment ago, and its host keys are nobody's any more."""
    made = workspace(server, tmp_path, spot=True, max_hours=4)
    host_keys = made.provider.host_keys

    def taken_away(name: str) -> list[str]:
        server.instances.preempt(name)
        server.cloud.settle()
        return host_keys(name)

    made.provider.__dict__["host_keys"] = taken_away
    with pytest.raises(CloudError, match="ended while it was starting") as caught:
        up(made, clock=waiting(server))
    assert "Google took it away" in caught.value.detail


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
    assert result.disk == Disk(200, "pd-balanced", 20.0)
    assert result.ssh_sources == SshSources(["203.0.113.7/32"], "gce.ssh_source_ranges")
    assert all(request.method == "GET" for request in server.requests)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"address_lookup": "{there}"}, "only from 198.51.100.9/32, as {there} says; gce.ssh_source_ranges"),
        ({"iap": True}, "only through Google's proxy, as gce.iap says: the machine has no address"),
        ({"ssh_source_ranges": "192.0.2.0/24"}, "only from 192.0.2.0/24, as gce.ssh_source_ranges says"),
    ],
)
def test_a_dry_run_tells_the_disk_and_who_could_come_in(
    server: ComputeServer, tmp_path: Path, settings: dict[str, object], told: str
) -> None:
    server.cloud.resources["subnetworks"]["regions/us-central1", "default"]["privateIpGoogleAccess"] = True
    with HttpService(whole(lambda _: Answer(200, body=b"198.51.100.9\n")), ["127.0.0.1"]) as there:
        url = there.url_at("127.0.0.1")
        filled = {
            key: value.format(there=url) if isinstance(value, str) else value
            for key, value in settings.items()
        }
        more: dict[str, object] = {"ssh_source_ranges": ""} | filled
        result = up(workspace(server, tmp_path, gce_more=more, disk_gb=300), dry_run=True)
    shown = text(ready, result)
    assert "disk    300 GB pd-balanced, about $30.00 a month" in shown
    assert f"ssh     {told.format(there=url)}" in shown


def test_a_run_never_makes_a_machine_that_costs_money(server: ComputeServer, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no machine"):
        ensure(workspace(server, tmp_path), clock=waiting(server))
    assert asked(server) == []


def test_up_and_down_with_machines_that_really_boot(tmp_path: Path) -> None:
    """Google's client, real SSH with a pinned host key, the startup script, the fake GPU's driver; then nothing is left."""
    need("loopback machines")
    with ComputeServer(compute_loopback.LoopbackHardware(tmp_path / "disks")) as server:
        made = workspace(server, tmp_path / "here", accelerator="none", gce_more={"zones": "us-central1-b"})
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
