"""`tlvm up` on gce: which place is asked after which, and what is kept of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from orchestrator.config import StoreSettings
from orchestrator.errors import (
    AuthError,
    CapacityError,
    ConnectionLost,
    QuotaError,
    TlvmError,
)
from orchestrator.workflows.machines.up import up
from orchestrator.workflows.workspace import Workspace
from tests.fakes.compute_server import ComputeServer
from tests.fakes.gcs_server import GcsServer
from tests.orchestrator.gce_workspace import asked, bring_up, instances, told, waiting, workspace


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


@pytest.mark.parametrize("store", ["gs://misspelt-4711", "file:///home/ana/store"])
def test_nothing_is_rented_for_a_store_that_is_not_there(
    store: str, server: ComputeServer, tmp_path: Path
) -> None:
    made = workspace(server, tmp_path)
    with GcsServer() as google:
        wrong = StoreSettings(url=store, endpoint=google.endpoint)
        misled = Workspace(made.settings.model_copy(update={"store": wrong}), made.progress)
        misled.provider = made.provider
        with pytest.raises(TlvmError) as caught:
            up(misled, clock=waiting(server))
    assert store in caught.value.what and caught.value.next
    assert instances(server) == [] and asked(server) == []


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
