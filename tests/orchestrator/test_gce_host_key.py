"""Host keys of machines on gce: learnt from Google, never from whoever answers; by a setting, and said so, from that one."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.errors import AuthError, ConnectionLost
from orchestrator.records import MachineRecord
from orchestrator.workflows.clock import Clock as Waiting
from orchestrator.workflows.machines.readiness import FIRST_CONTACT_S
from orchestrator.workflows.machines.up import up
from orchestrator.workflows.workspace import Workspace
from tests.fakes import compute_loopback
from tests.fakes.compute_cloud import Clock
from tests.fakes.compute_instances import WRONG_HOST_KEY
from tests.fakes.compute_server import ComputeServer
from tests.needs import need
from tests.orchestrator.gce_workspace import told, waiting, workspace

MACHINE = "tlvm-ana-default"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ComputeServer]:
    need("loopback machines")
    hardware = compute_loopback.LoopbackHardware(tmp_path / "disks")
    with ComputeServer(hardware, clock=Clock(rate=0), wait_s=0.05) as running:
        yield running
        assert running.errors == []


def here(server: ComputeServer, folder: Path, *, accepts: bool) -> Workspace:
    more: dict[str, object] = {"zones": "us-central1-b", "accept_first_host_key": accepts}
    return workspace(server, folder / "here", accelerator="none", gce_more=more)


def booting(server: ComputeServer, folder: Path) -> Waiting:
    """Time stands still until the machine has booted, however slow this computer is."""

    def sleep(seconds: float) -> None:
        if any((folder / "disks").glob("*/home/.tlvm/READY")):
            server.clock.advance(seconds)
        else:
            time.sleep(0.05)

    return waiting(server, sleep)


def record(made: Workspace) -> MachineRecord:
    (found,) = made.records.machines()
    return found


def published(server: ComputeServer, key: str) -> None:
    """The machine says its host key, late."""
    (guest,) = server.cloud.guests.values()
    guest.attributes["hostkeys/ssh-ed25519"] = key


def test_a_machine_that_never_says_its_host_key_is_refused(server: ComputeServer, tmp_path: Path) -> None:
    server.instances.host_keys.after_s = None
    made = here(server, tmp_path, accepts=False)
    with pytest.raises(ConnectionLost) as caught:
        up(made, clock=booting(server, tmp_path))
    assert "has not yet said its host keys" in caught.value.detail
    assert "--accept-first-host-key" in caught.value.detail
    assert record(made).host_keys == []


def test_by_a_setting_the_first_one_is_taken_with_a_warning_and_kept(
    server: ComputeServer, tmp_path: Path
) -> None:
    server.instances.host_keys.after_s = None
    made = here(server, tmp_path, accepts=True)
    began = server.clock.now()
    machine = up(made, clock=booting(server, tmp_path)).machine
    assert machine is not None
    assert (server.clock.now() - began).total_seconds() >= FIRST_CONTACT_S  # it had time to say it
    assert "nothing proves that it is not somebody else's: ssh-ed25519 AAAA" in told(made)
    (key,) = record(made).host_keys
    assert record(made).unproven

    # From now on that one is pinned: another is refused, and what Google says later counts.
    made.records.save_machine(dataclasses.replace(record(made), host_keys=[f"ssh-ed25519 {WRONG_HOST_KEY}"]))
    with pytest.raises(AuthError, match="not the one that was pinned"):
        made.connect(machine)
    made.records.save_machine(dataclasses.replace(record(made), host_keys=[key]))
    published(server, WRONG_HOST_KEY)
    with pytest.raises(AuthError, match="first contact"):
        made.connect(machine)
    published(server, key.split()[1])
    with made.connect(machine) as connection:
        assert connection.check("echo in") == b"in\n"
    assert not record(made).unproven


def test_the_wrong_key_is_refused_whatever_the_setting(server: ComputeServer, tmp_path: Path) -> None:
    server.instances.host_keys.wrong = True
    made = here(server, tmp_path, accepts=True)
    with pytest.raises(AuthError, match="not the one that was pinned"):
        up(made, clock=booting(server, tmp_path))
    assert "nothing proves" not in told(made)
