"""The provider `gce` against a fake Compute Engine, through Google's own client: what goes wrong leaves nothing behind."""

from __future__ import annotations

import dataclasses
import threading

import pytest

from orchestrator.errors import (
    AuthError,
    CapacityError,
    CloudError,
    ConfigError,
    ConflictError,
    QuotaError,
    TlvmError,
)
from orchestrator.providers.base import MachineState, Unseen
from orchestrator.providers.gce import GceProvider
from orchestrator.providers.retrying import retrying
from remote.contract.attempts import Attempts
from tests.fakes.compute_cloud import Clock
from tests.fakes.compute_server import ComputeServer
from tests.orchestrator.gce_cloud import OFFER, gce, wanted


def instances(server: ComputeServer) -> list[str]:
    return [name for _, name in server.cloud.resources["instances"]]


def patient(server: ComputeServer) -> GceProvider:
    """As the workflows have it: what may succeed a moment later is tried again."""
    return retrying(gce(server), Attempts(count=4, sleep=server.clock.advance))


# What goes wrong while a machine is made


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ("stock-out", CapacityError),
        ("plain stock-out", CapacityError),
        ("preempted creation", CapacityError),
        ("operation rate", CapacityError),  # of this attempt: the next place may do
        ("not ready", CapacityError),
        ("internal error", CapacityError),
        ("vanish", CapacityError),
        ("quota", QuotaError),
        ("global quota", QuotaError),
        ("403 quota", QuotaError),
        ("403 permission", AuthError),
        ("403 disabled", AuthError),
        ("401", AuthError),
    ],
)
def test_what_was_refused_is_dead(server: ComputeServer, fault: str, error: type[TlvmError]) -> None:
    server.faults.add(fault)
    held = gce(server)
    with pytest.raises(error):
        held.create(wanted(), OFFER)
    assert instances(server) == []
    assert held.create(wanted(), OFFER).place == "us-central1-a"


@pytest.mark.parametrize("fault", ["503 after", "reset after", "503", "reset", "429", "403 rate"])
def test_an_insert_whose_answer_was_lost_makes_one_machine(server: ComputeServer, fault: str) -> None:
    server.faults.add(fault)
    spec = wanted()
    made = patient(server).create(spec, OFFER)
    assert instances(server) == [spec.name]
    assert made.name == spec.name
    assert server.count("instances.insert") == 2
    requests = [request for request in server.requests if request.call == "instances.insert"]
    assert {request.query["requestId"][0] for request in requests} == {spec.request_id}


def test_a_stock_out_after_a_lost_answer_is_still_a_stock_out(server: ComputeServer) -> None:
    """What is found under our own attempt is not adopted before its operation has told how it ended."""
    server.cloud.operation_s["insert"] = 20
    server.faults.add("503 after")
    server.cloud.frozen_zones.add("us-central1-a")
    with pytest.raises(CapacityError):
        patient(server).create(wanted(), OFFER)
    assert instances(server) == []


def test_an_operation_that_is_forgotten_is_seen_in_the_machine(server: ComputeServer) -> None:
    server.faults.add("collected", "zoneOperations.wait")
    assert gce(server).create(wanted(), OFFER).state is MachineState.RUNNING
    assert instances(server) == ["tlvm-ana-trees"]


def test_waiting_that_ends_too_early_goes_on(server: ComputeServer) -> None:
    server.faults.add("unfinished", "zoneOperations.wait", times=3)
    server.faults.add("503", "zoneOperations.wait", times=2)
    assert gce(server).create(wanted(), OFFER).state is MachineState.RUNNING


def test_a_service_account_that_is_missing_is_named_with_what_makes_it(server: ComputeServer) -> None:
    account = "other@trees-4711.iam.gserviceaccount.com"
    with pytest.raises(ConfigError) as caught:
        gce(server, service_account=account).create(wanted(), OFFER)
    assert account in caught.value.detail
    assert instances(server) == []


def test_a_refused_machine_that_stays_stops_everything(server: ComputeServer) -> None:
    """Nothing else is tried while the last attempt may still cost money."""
    held = gce(server)
    spec = wanted()
    held.create(spec, OFFER)
    server.faults.add("internal error", "instances.delete", times=200)
    with pytest.raises(CloudError, match="still there"):
        held._prove_dead(spec, "us-central1-a")
    server.faults.clear()


# One machine


def test_the_same_name_adopts_in_whichever_zone_it_is(server: ComputeServer) -> None:
    elsewhere = dataclasses.replace(OFFER, place="us-central1-b")
    first = gce(server).create(wanted(), elsewhere)
    again = gce(server).create(wanted(max_hours=2), OFFER)
    assert again.id == first.id and again.place == "us-central1-b"
    assert server.count("instances.insert") == 1


def test_two_terminals_that_got_one_each_keep_the_older(server: ComputeServer) -> None:
    """Both saw nothing, in two zones: the second one finds out right after."""
    ours, theirs = gce(server), gce(server)
    elsewhere = dataclasses.replace(OFFER, place="us-central1-b")
    ours._instances.named = lambda name: None  # type: ignore[method-assign]  # it looked before the other one asked
    first = theirs.create(wanted(), elsewhere)
    server.clock.advance(1)
    second = ours.create(wanted(), OFFER)
    assert second.id == first.id
    server.clock.advance(1)
    assert instances(server) == ["tlvm-ana-trees"]


def test_what_was_made_by_hand_is_never_touched(server: ComputeServer) -> None:
    held = gce(server)
    made = held.create(wanted(), OFFER)
    (resource,) = server.cloud.resources["instances"].values()
    resource["labels"] = {"team": "birds"}
    with pytest.raises(ConflictError, match=made.name):
        gce(server).create(wanted(), OFFER)
    assert held.get(made.name) is None and held.machines() == []
    held.delete(made.name)
    assert instances(server) == [made.name]


def test_a_machine_with_damaged_marks_is_shown_and_counts_as_past(server: ComputeServer) -> None:
    held = gce(server)
    held.create(wanted(), OFFER)
    (resource,) = server.cloud.resources["instances"].values()
    resource["labels"]["tlvm-expires"] = "soon"
    resource["metadata"]["items"] = [{"key": "tlvm-about", "value": "{"}]
    (found,) = held.machines()
    assert found.ends == found.created and found.price_per_hour == 0


def test_a_zone_that_gives_no_answer_is_no_evidence_that_nothing_is_there(server: ComputeServer) -> None:
    gce(server).create(wanted(), OFFER)
    server.cloud.unreachable.add("us-central1-a")
    for ask in (lambda: gce(server).machines(), lambda: gce(server).get("tlvm-ana-trees")):
        with pytest.raises(Unseen, match="us-central1-a") as caught:
            ask()
        assert caught.value.places == ["us-central1-a"] and caught.value.machines == []
    server.cloud.unreachable.clear()


def test_every_page_is_read() -> None:
    with ComputeServer(clock=Clock(rate=0), page_size=1) as paged:
        held = gce(paged)
        names = {f"tlvm-ana-{number}" for number in range(3)}
        for name in sorted(names):
            held.create(wanted(name=name, accelerator="none", accelerator_count=0), dataclasses.replace(
                OFFER, accelerator="none", machine_type="e2-standard-8"))  # fmt: skip
        assert {found.name for found in held.machines()} == names
        assert held.get("tlvm-ana-2") is not None
        assert len(held.offers(wanted())) == 3
        assert paged.errors == []


def test_twins_make_one(server: ComputeServer) -> None:
    together = threading.Barrier(2)
    ids: list[str] = []

    def create() -> None:
        together.wait(timeout=20)
        ids.append(gce(server).create(wanted(), OFFER).id)

    threads = [threading.Thread(target=create) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(ids)) == 1 and instances(server) == ["tlvm-ana-trees"]
