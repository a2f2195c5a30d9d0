"""The provider `gce` against a fake Compute Engine, through Google's own client: what goes wrong leaves nothing behind."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from orchestrator.errors import (
    AuthError,
    CapacityError,
    CloudError,
    ConfigError,
    ConflictError,
    NotFoundError,
    QuotaError,
    TlvmError,
    TransientError,
)
from orchestrator.providers.base import MachineState
from orchestrator.providers.gce import GceProvider, images
from orchestrator.providers.gce.firewall import IAP_RANGE
from orchestrator.providers.retrying import retrying
from remote.contract.attempts import Attempts
from tests.fakes.compute_cloud import Clock
from tests.fakes.compute_server import ComputeServer
from tests.orchestrator.gce_cloud import OFFER, PUBLIC_KEY, gce, wanted

OTHER_KEY = PUBLIC_KEY[:-4] + "AAAA"


@pytest.fixture
def server() -> Iterator[ComputeServer]:
    with ComputeServer(clock=Clock(rate=0), wait_s=0.05) as running:
        yield running
        assert running.errors == []
        assert running.faults.unused() == []


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
    ours._named = lambda name: None  # type: ignore[method-assign]  # it looked before the other one asked
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
        with pytest.raises(TransientError, match="us-central1-a"):
            ask()
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


# Its life


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


# Who comes in


def test_keys_end_and_none_is_lost(server: ComputeServer) -> None:
    held = gce(server)
    made = held.create(wanted(), OFFER)
    until = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)
    server.faults.add("412", "instances.setMetadata")
    with pytest.raises(TransientError):
        held.authorize(made.name, OTHER_KEY, until)
    held.authorize(made.name, OTHER_KEY, until)
    held.authorize(made.name, OTHER_KEY, until + timedelta(hours=1))
    (resource,) = server.cloud.resources["instances"].values()
    said = {item["key"]: item["value"] for item in resource["metadata"]["items"]}
    lines = said["ssh-keys"].splitlines()
    assert [line.split()[1] for line in lines] == [PUBLIC_KEY.split()[1], OTHER_KEY.split()[1]]
    assert "2030-01-02T04:04:05+0000" in lines[1]
    assert said["startup-script"] and said["block-project-ssh-keys"] == "TRUE"


@pytest.mark.parametrize("value", ["", "not base64!", "AAAA\nssh-rsa BBBB"])
def test_a_host_key_that_is_none_is_left_out(server: ComputeServer, value: str) -> None:
    held = gce(server)
    made = held.create(wanted(), OFFER)
    guest = server.cloud.guests[made.id]
    guest.attributes.clear()
    assert held.host_keys(made.name) == []
    guest.attributes["hostkeys/ssh-ed25519"] = value
    assert held.host_keys(made.name) == (["ssh-ed25519 AAAA"] if value.startswith("AAAA") else [])


def test_ssh_is_denied_to_everybody_and_allowed_from_here(server: ComputeServer) -> None:
    gce(server).create(wanted(), OFFER)
    rules = {
        name: rule
        for (_, name), rule in server.cloud.resources["firewalls"].items()
        if name.startswith("tlvm")
    }
    deny, allow = rules["tlvm-deny-ssh"], rules["tlvm-ssh-ana"]
    assert (deny["priority"], deny["sourceRanges"], deny["targetTags"]) == (900, ["0.0.0.0/0"], ["tlvm"])
    assert deny["denied"] == [{"IPProtocol": "tcp", "ports": ["22"]}]
    assert (allow["priority"], allow["sourceRanges"], allow["targetTags"]) == (
        800,
        ["203.0.113.7/32"],
        ["tlvm-ana"],
    )
    writes = server.count("firewalls.insert"), server.count("firewalls.patch")
    gce(server).admit("ana")
    assert (server.count("firewalls.insert"), server.count("firewalls.patch")) == writes
    gce(server, ssh_source_ranges="198.51.100.0/24").admit("ana")
    assert server.count("firewalls.patch") == 1
    rules = {name: rule for (_, name), rule in server.cloud.resources["firewalls"].items()}
    assert rules["tlvm-ssh-ana"]["sourceRanges"] == ["198.51.100.0/24"]


def test_nobody_is_asked_for_the_address_when_that_is_switched_off(server: ComputeServer) -> None:
    with pytest.raises(ConfigError, match=r"From|from which address"):
        gce(server, ssh_source_ranges=(), address_lookup="").create(wanted(), OFFER)
    assert instances(server) == []


def test_a_machine_without_an_address_needs_a_way_to_the_bucket(server: ComputeServer) -> None:
    held = gce(server, iap=True)
    for (_, name), subnetwork in server.cloud.resources["subnetworks"].items():
        if name == "default":
            subnetwork["privateIpGoogleAccess"] = False
    with pytest.raises(ConfigError, match="without an address") as caught:
        held.create(wanted(), OFFER)
    assert "gcloud compute networks subnets update default --region=us-central1" in caught.value.next
    for subnetwork in server.cloud.resources["subnetworks"].values():
        subnetwork["privateIpGoogleAccess"] = True
    made = held.create(wanted(), OFFER)
    assert made.ssh is not None
    assert made.ssh.host == f"compute.{made.id}" and made.ssh.proxy_command.startswith(
        "gcloud compute start-iap-tunnel"
    )
    rules = {name: rule for (_, name), rule in server.cloud.resources["firewalls"].items()}
    assert rules["tlvm-ssh-ana"]["sourceRanges"] == [IAP_RANGE]


# Places and images


def test_places_come_in_the_users_order(server: ComputeServer) -> None:
    held = gce(server, zones="us-east4, us-central1-b")
    found = [(offer.place, offer.accelerator) for offer in held.offers(wanted(accelerator="l4,t4"))]
    assert found == [
        ("us-east4-a", "nvidia-l4"), ("us-east4-c", "nvidia-l4"), ("us-central1-b", "nvidia-l4"),
        ("us-central1-b", "nvidia-tesla-t4"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("accelerator", "count", "machine_type"),
    [
        ("t4", 1, "n1-standard-8"),
        ("l4", 1, "g2-standard-8"),
        ("a100", 1, "a2-highgpu-1g"),
        ("a100-80gb", 1, "a2-ultragpu-1g"),
        ("h100", 1, "a3-highgpu-1g"),
        ("nvidia-l4", 2, "g2-standard-24"),
        ("none", 0, "e2-standard-8"),
    ],
)
def test_the_machine_type_follows_from_the_accelerator(
    server: ComputeServer, accelerator: str, count: int, machine_type: str
) -> None:
    offers = gce(server, zones="us-central1-a").offers(
        wanted(accelerator=accelerator, accelerator_count=count)
    )
    assert [offer.machine_type for offer in offers] == [machine_type]
    assert offers[0].price_per_hour > 0


def test_what_no_place_has_is_said_with_what_they_have(server: ComputeServer) -> None:
    with pytest.raises(ConfigError, match="l4") as caught:
        gce(server, zones="us-central1-f").offers(wanted())
    assert "nvidia-tesla-t4" in caught.value.detail
    with pytest.raises(ConfigError, match="g2-standard-4"):
        gce(server, zones="us-central1-a").offers(wanted(machine_type="g2-standard-4", accelerator="t4"))


@pytest.mark.parametrize(
    ("setting", "said"), [("us-centrl1-a", "us-central1-a"), ("moon", "gcloud compute zones")]
)
def test_a_place_that_does_not_exist_is_named(server: ComputeServer, setting: str, said: str) -> None:
    with pytest.raises(ConfigError, match=setting) as caught:
        gce(server, zones=setting).offers(wanted())
    assert said in str(caught.value)


def test_an_accelerator_that_does_not_exist_is_named_with_the_nearest(server: ComputeServer) -> None:
    with pytest.raises(ConfigError, match="l5") as caught:
        gce(server).offers(wanted(accelerator="l5"))
    assert "'l4'" in str(caught.value)


def test_the_newest_family_that_is_alive_is_taken(server: ComputeServer) -> None:
    held = gce(server)
    there = images.alive(held.rest, held.settings.image_project)
    assert images.find(held.rest, held.settings).family == there[0]["family"]
    assert there[0]["family"].startswith("pytorch-2-9")
    assert all("deprecated" not in image for image in there)


def test_a_retired_family_is_told_with_those_that_live(server: ComputeServer) -> None:
    with pytest.raises(ConfigError, match="pytorch-latest-gpu") as caught:
        gce(server, image_family="pytorch-latest-gpu").offers(wanted())
    assert "pytorch-2-9" in caught.value.detail


@pytest.mark.parametrize("accelerator", ["p100", "v100"])
def test_a_generation_that_the_image_can_not_use_is_refused(server: ComputeServer, accelerator: str) -> None:
    with pytest.raises(ConfigError, match="can't compute"):
        gce(server, zones="us-central1").offers(wanted(accelerator=accelerator))
    assert server.count("instances.insert") == 0


# The verbs of the soft clock


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


def test_a_refused_machine_that_stays_stops_everything(server: ComputeServer) -> None:
    """Nothing else is tried while the last attempt may still cost money."""
    held = gce(server)
    spec = wanted()
    held.create(spec, OFFER)
    server.faults.add("internal error", "instances.delete", times=200)
    with pytest.raises(CloudError, match="still there"):
        held._prove_dead(spec, "us-central1-a")
    server.faults.clear()
