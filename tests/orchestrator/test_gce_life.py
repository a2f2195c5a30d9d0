"""The life of a machine of the provider `gce`: its end, stopping and starting, both clocks, as the cloud keeps them."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from orchestrator.errors import (
    CapacityError,
    ConflictError,
    NotFoundError,
    TransientError,
)
from orchestrator.providers.base import MachineState
from orchestrator.workflows.machines.allowance import spent
from orchestrator.workflows.machines.down import down
from tests.fakes.compute_server import ComputeServer
from tests.orchestrator.gce_cloud import OFFER, gce, wanted
from tests.orchestrator.gce_workspace import waiting, workspace


def test_the_cloud_itself_deletes_it_at_its_end(server: ComputeServer) -> None:
    held = gce(server)
    made = held.create(wanted(max_hours=1), OFFER)
    server.clock.advance(3590)
    assert held.get(made.name) is not None
    server.clock.advance(120)
    assert held.get(made.name) is None
    assert server.cloud.resources["disks"] == {}


def test_a_machine_that_was_stopped_starts_with_what_is_left(server: ComputeServer) -> None:
    held = gce(server)
    made = held.create(wanted(max_hours=4), OFFER)
    server.clock.advance(3600)
    held.stop(made.name)
    server.clock.advance(3600)
    held.start(made.name)
    sent = [request.body for request in server.requests if request.call == "instances.setScheduling"]
    assert 7190 <= int(sent[0]["maxRunDuration"]["seconds"]) <= 7200
    server.clock.advance(7300)
    assert held.get(made.name) is None


def test_while_it_is_off_it_costs_its_disk_only(server: ComputeServer) -> None:
    held = gce(server)
    name = held.create(wanted(max_hours=24), OFFER).name

    def dollars() -> float:
        found = held.get(name)
        assert found is not None
        return spent(found, server.clock.now(), disk_per_month=20.0).dollars

    server.clock.advance(3600)
    held.stop(name)
    server.clock.advance(10 * 3600)
    off = 10 * 20.0 / 730
    assert dollars() == pytest.approx(OFFER.price_per_hour + off, abs=0.01)
    held.start(name)
    server.clock.advance(1800)
    assert dollars() == pytest.approx(1.5 * OFFER.price_per_hour + off, abs=0.01)


def test_a_stopped_machine_whose_time_is_over_does_not_start(server: ComputeServer) -> None:
    held = gce(server)
    made = held.create(wanted(max_hours=1), OFFER)
    held.stop(made.name)
    server.clock.advance(4000)
    found = held.get(made.name)
    assert found is not None and found.state is MachineState.STOPPED and found.ends < server.clock.now()
    with pytest.raises(ConflictError, match="over"):
        held.start(made.name)
    assert server.count("instances.start") == 0


def test_no_capacity_to_start_it_says_what_else_there_is(server: ComputeServer) -> None:
    held = gce(server)
    made = held.create(wanted(), OFFER)
    held.stop(made.name)
    server.cloud.frozen_zones.add("us-central1-a")
    with pytest.raises(CapacityError, match="us-central1-a") as caught:
        held.start(made.name)
    assert "tlvm start" in caught.value.next and "tlvm up" in caught.value.next
    found = held.get(made.name)
    assert found is not None and found.state is MachineState.STOPPED


def test_a_disk_of_an_earlier_machine_is_named(server: ComputeServer) -> None:
    held = gce(server)
    made = held.create(wanted(), OFFER)
    (disk,) = server.cloud.resources["disks"].values()
    held.delete(made.name)
    server.cloud.settle()
    server.cloud.add("disks", "zones/us-central1-a", {
        "name": made.name, "sizeGb": "100", "type": disk["type"], "labels": disk["labels"], "status": "READY",
    })  # fmt: skip
    with pytest.raises(ConflictError, match="disk") as caught:
        held.create(wanted(), OFFER)
    assert f"tlvm gc {made.name}" in caught.value.next
    assert ("zones/us-central1-a", made.name) in server.cloud.resources["disks"]


def test_a_preempted_machine_says_why_it_is_gone(server: ComputeServer) -> None:
    held = gce(server)
    made = held.create(wanted(spot=True), OFFER)
    server.instances.preempt(made.name)
    server.clock.advance(120)
    assert held.get(made.name) is None
    assert "spot" in held.said(made.name) and "compute.instances.preempted" in held.said(made.name)


def test_a_deletion_that_fails_may_be_asked_for_again(server: ComputeServer) -> None:
    held = gce(server)
    made = held.create(wanted(), OFFER)
    server.faults.add("internal error", "instances.delete")
    server.faults.add("503", "instances.delete")
    held.delete(made.name)
    server.clock.advance(60)
    assert held.get(made.name) is not None
    with pytest.raises(TransientError):
        held.delete(made.name)
    held.delete(made.name)
    server.clock.advance(60)
    assert held.get(made.name) is None


def test_down_outlasts_a_deletion_that_fails_for_a_while(server: ComputeServer, tmp_path: Path) -> None:
    made = workspace(server, tmp_path)
    gce(server).create(wanted(name="tlvm-ana-default", project="default"), OFFER)
    for fault in ("internal error", "503", "operation rate"):
        server.faults.add(fault, "instances.delete")
    assert down(made, force=True, clock=waiting(server)).deleted
    assert server.cloud.resources["instances"] == {} and server.cloud.resources["disks"] == {}


def test_the_soft_clock_is_moved_and_read_through_the_cloud(server: ComputeServer) -> None:
    held = gce(server)
    made = held.create(wanted(), OFFER)
    assert held.soft_end(made.name) is None
    server.cloud.guests[made.id].attributes["tlvm/soft-end"] = "1795363200"
    assert held.soft_end(made.name) == datetime.fromtimestamp(1795363200, UTC)
    server.cloud.guests[made.id].attributes["tlvm/soft-end"] = "active"
    assert held.soft_end(made.name) is None
    held.keep_until(made.name, datetime.fromtimestamp(1795363200, UTC))
    (resource,) = server.cloud.resources["instances"].values()
    assert {"key": "tlvm-keep-until", "value": "1795363200"} in resource["metadata"]["items"]


def test_nobody_home(server: ComputeServer) -> None:
    held = gce(server)
    with pytest.raises(NotFoundError, match="tlvm-nobody"):
        held.keep_until("tlvm-nobody", datetime.now(UTC))
    assert held.get("../x") is None
    held.delete("No Name")
