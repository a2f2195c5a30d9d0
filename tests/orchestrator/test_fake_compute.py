"""The fake Compute Engine, spoken to by Google's own client library: what it does when all goes well, and its rules."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
import requests
from google.api_core import exceptions as api
from google.cloud import compute_v1 as compute

from tests.fakes.compute_server import PROJECT, ComputeServer
from tests.orchestrator.compute_client import IMAGE, PLACE, ZONE, Client, instance, spot, standard


@pytest.fixture
def client(server: ComputeServer) -> Client:
    return Client(server)


def test_life(server: ComputeServer, client: Client) -> None:
    operation = client.insert()
    assert (operation.status, operation.error.errors) == (compute.Operation.Status.DONE, [])
    made = client.get()
    assert (made.status, made.id) == ("RUNNING", operation.target_id)
    assert made.network_interfaces[0].access_configs[0].nat_i_p
    assert made.resource_status.scheduling.termination_timestamp > made.last_start_timestamp
    disks = client.of("Disks")
    assert disks.get(**PLACE, disk="tlvm-a").users == [made.self_link]
    client.act("stop")
    stopped = client.get()
    assert (stopped.status, stopped.network_interfaces[0].access_configs[0].nat_i_p) == ("TERMINATED", "")
    assert disks.get(**PLACE, disk="tlvm-a").size_gb == 200
    client.act("start")
    assert client.get().status == "RUNNING"
    client.act("delete")
    with pytest.raises(api.NotFound):
        client.get()
    with pytest.raises(api.NotFound):
        disks.get(**PLACE, disk="tlvm-a")


def test_operations_take_their_time_and_are_forgotten(server: ComputeServer, client: Client) -> None:
    server.cloud.operation_s["insert"] = 20
    begun = client.insert()
    assert (begun.status, client.get().status) == (compute.Operation.Status.RUNNING, "PROVISIONING")
    server.clock.advance(11)
    assert client.get().status == "STAGING"
    server.clock.advance(10)
    assert client.operations.get(**PLACE, operation=begun.name).status == compute.Operation.Status.DONE
    found = client.operations.list(
        compute.ListZoneOperationsRequest(
            **PLACE, filter=f"targetId={begun.target_id} AND operationType=insert"
        )
    )
    assert [operation.name for operation in found] == [begun.name]
    server.cloud.operations_kept_s = 0
    server.clock.advance(15 * 24 * 3600)
    with pytest.raises(api.NotFound):
        client.operations.get(**PLACE, operation=begun.name)


def test_one_request_id_is_one_machine(server: ComputeServer, client: Client) -> None:
    request_id = str(uuid.uuid4())
    first, second = client.insert(request_id), client.insert(request_id)
    assert first.name == second.name
    with pytest.raises(api.Conflict) as caught:
        client.insert(str(uuid.uuid4()))
    assert caught.value.errors[0]["reason"] == "alreadyExists"
    with pytest.raises(api.BadRequest):
        client.insert(str(uuid.UUID(int=0)))


def test_the_cloud_ends_what_has_run_long_enough(server: ComputeServer, client: Client) -> None:
    client.insert(scheduling=standard(3600))
    client.insert(name="tlvm-b", scheduling=standard(7200, instance_termination_action="STOP"))
    server.clock.advance(3599)
    assert client.get().status == "RUNNING"
    server.clock.advance(2)
    with pytest.raises(api.NotFound):
        client.get()
    assert client.get("tlvm-b").status == "RUNNING"
    client.act("stop", "tlvm-b")
    server.clock.advance(7200)
    client.act("start", "tlvm-b")  # the time of the last start counts
    server.clock.advance(7199)
    assert client.get("tlvm-b").status == "RUNNING"
    server.clock.advance(2)
    assert client.get("tlvm-b").status == "TERMINATED"
    with pytest.raises(api.NotFound):
        client.of("Disks").get(**PLACE, disk="tlvm-a")
    assert client.of("Disks").get(**PLACE, disk="tlvm-b").status == "READY"


def test_scheduling_is_changed_only_when_stopped_and_as_a_whole(client: Client) -> None:
    client.insert()
    with pytest.raises(api.BadRequest):
        client.act("set_scheduling", scheduling_resource=compute.Scheduling(**standard(60)))
    client.act("stop")
    with pytest.raises(api.BadRequest):
        client.act(
            "set_scheduling",
            scheduling_resource=compute.Scheduling(max_run_duration=compute.Duration(seconds=60)),
        )
    client.act("set_scheduling", scheduling_resource=compute.Scheduling(**standard(60)))
    assert client.get().scheduling.max_run_duration.seconds == 60


@pytest.mark.parametrize(
    "wanted",
    [
        pytest.param({"scheduling": standard(on_host_maintenance="MIGRATE")}, id="a GPU that migrates"),
        pytest.param({"scheduling": {"on_host_maintenance": "TERMINATE", "max_run_duration": compute.Duration(seconds=60)}}, id="an end without an action"),
        pytest.param({"scheduling": {"on_host_maintenance": "TERMINATE", "instance_termination_action": "DELETE"}}, id="an action without an end"),
        pytest.param({"scheduling": standard(termination_time="2099-01-01T00:00:00Z")}, id="two ends"),
        pytest.param({"scheduling": standard(29)}, id="too short a life"),
        pytest.param({"scheduling": spot(automatic_restart=True)}, id="spot that restarts"),
        pytest.param({"machine_type": "x1-standard-8"}, id="no such machine type"),
        pytest.param({"guest_accelerators": [compute.AcceleratorConfig(accelerator_type=f"zones/{ZONE}/acceleratorTypes/nvidia-tesla-t4", accelerator_count=1)]}, id="a T4 on g2"),
        pytest.param({"machine_type": "f1-micro", "guest_accelerators": [compute.AcceleratorConfig(accelerator_type=f"zones/{ZONE}/acceleratorTypes/nvidia-tesla-t4", accelerator_count=1)]}, id="a T4 on a shared core"),
        pytest.param({"disk_gb": 20}, id="a disk smaller than its image"),
        pytest.param({"labels": {"Owner": "Ana"}}, id="bad labels"),
    ],
)  # fmt: skip
def test_what_can_not_be_is_refused(client: Client, wanted: dict[str, Any]) -> None:
    labels = wanted.pop("labels", None)
    resource = instance(**wanted)
    if labels:
        resource.labels = labels
    with pytest.raises(api.BadRequest):
        client.instances.insert_unary(**PLACE, instance_resource=resource)


def test_what_can_not_be_by_discovery_is_refused() -> None:
    with ComputeServer() as server:
        url = f"{server.url}/compute/v1/projects/{PROJECT}/zones/{ZONE}/instances"
        bodies: list[dict[str, Any]] = [
            {"guestAccelerator": []},
            {"scheduling": {"instanceTerminationAction": "HALT"}},
            {"name": 4},
            {"name": "Tlvm_A"},
        ]
        for body in bodies:
            assert requests.post(url, json=body, timeout=5).status_code == 400
        assert requests.get(url, params={"pagesize": "5"}, timeout=5).status_code == 400
        assert len(server.errors) == 5


def test_accelerators_come_with_the_type_or_are_attached_to_n1(client: Client) -> None:
    client.insert()
    t4 = compute.AcceleratorConfig(
        accelerator_type=f"projects/{PROJECT}/zones/{ZONE}/acceleratorTypes/nvidia-tesla-t4",
        accelerator_count=1,
    )
    client.insert(name="tlvm-b", machine_type="n1-standard-8", guest_accelerators=[t4])
    for name, kind in (("tlvm-a", "nvidia-l4"), ("tlvm-b", "nvidia-tesla-t4")):
        (found,) = client.get(name).guest_accelerators
        assert found.accelerator_type.endswith(f"/{kind}")
    kinds = client.of("MachineTypes").get(**PLACE, machine_type="g2-standard-24").accelerators
    assert [(kind.guest_accelerator_type, kind.guest_accelerator_count) for kind in kinds] == [
        ("nvidia-l4", 2)
    ]
    cards = {
        kind.name: kind.maximum_cards_per_instance for kind in client.of("AcceleratorTypes").list(**PLACE)
    }
    assert cards["nvidia-tesla-t4"] == 4
    offered = dict(client.of("AcceleratorTypes").aggregated_list(project=PROJECT))
    assert not offered["zones/us-east4-b"].accelerator_types


def test_quotas_count_what_runs(server: ComputeServer, client: Client) -> None:
    server.cloud.region_quotas["us-central1"]["NVIDIA_L4_GPUS"] = 1
    client.insert()
    failed = client.insert(name="tlvm-b")
    assert (failed.http_error_status_code, failed.http_error_message) == (403, "FORBIDDEN")
    (error,) = failed.error.errors
    assert error.code == "QUOTA_EXCEEDED"
    assert error.error_details[0].quota_info.limit_name == "NVIDIA-L4-GPUS-per-project-region"
    with pytest.raises(api.NotFound):
        client.get("tlvm-b")
    quotas = client.of("Regions").get(project=PROJECT, region="us-central1").quotas
    used = {quota.metric: (quota.usage, quota.limit) for quota in quotas}
    assert (used["NVIDIA_L4_GPUS"], used["SSD_TOTAL_GB"][0]) == ((1, 1), 200)
    client.act("stop")
    assert not client.insert(name="tlvm-b").error.errors  # a stopped machine needs no GPU
    assert client.act("start").error.errors[0].code == "QUOTA_EXCEEDED"
    everywhere = client.of("Projects").get(project=PROJECT).quotas
    assert {quota.metric: quota.usage for quota in everywhere}["GPUS_ALL_REGIONS"] == 1


def test_metadata_and_labels_need_the_fingerprint(client: Client) -> None:
    client.insert()
    before = client.get()
    changed = compute.Metadata(
        items=[compute.Items(key="a", value="1")], fingerprint=before.metadata.fingerprint
    )
    client.act("set_metadata", metadata_resource=changed)
    assert [entry.key for entry in client.get().metadata.items] == ["a"]
    with pytest.raises(api.PreconditionFailed) as caught:
        client.act("set_metadata", metadata_resource=changed)
    assert caught.value.errors[0]["reason"] == "conditionNotMet"
    labels = compute.InstancesSetLabelsRequest(labels={"x": "1"}, label_fingerprint=before.label_fingerprint)
    client.act("set_labels", instances_set_labels_request_resource=labels)
    assert dict(client.get().labels) == {"x": "1"}


def test_lists_have_pages_and_filters() -> None:
    with ComputeServer(page_size=2) as server:
        client = Client(server)
        for number in range(5):
            client.insert(name=f"tlvm-{number}", machine_type="e2-standard-2")
        listed = client.instances.list
        names = [found.name for found in listed(compute.ListInstancesRequest(**PLACE))]
        assert names == [f"tlvm-{number}" for number in range(5)]
        assert server.count("instances.list") == 3
        for text, wanted in (
            ("labels.tlvm-owner:*", 5),
            ("labels.tlvm-owner=ben", 0),
            ('name eq "tlvm-[12]"', 2),
            ("(status = RUNNING) (name != tlvm-0)", 4),
            ('name = "tlvm-1" OR name = "tlvm-2"', 2),
        ):
            assert len(list(listed(compute.ListInstancesRequest(**PLACE, filter=text)))) == wanted, text
        for text in ("name eq tlvm AND status = RUNNING", "colour = red", "name ="):
            with pytest.raises(api.BadRequest):
                list(listed(compute.ListInstancesRequest(**PLACE, filter=text)))
        scopes = dict(
            client.instances.aggregated_list(
                compute.AggregatedListInstancesRequest(project=PROJECT, filter="name = tlvm-4")
            )
        )
        assert [found.name for found in scopes[f"zones/{ZONE}"].instances] == ["tlvm-4"]
        assert scopes["zones/us-east4-a"].warning.code == "NO_RESULTS_ON_PAGE"
        server.cloud.unreachable.add(ZONE)
        page = next(client.instances.aggregated_list(project=PROJECT).pages)
        assert list(page.unreachables) == [f"zones/{ZONE}"]
        assert page.items[f"zones/{ZONE}"].warning.code == "UNREACHABLE"
        server.errors.clear()


def test_images_live_and_retire(client: Client) -> None:
    images = client.of("Images")
    project, family = "deeplearning-platform-release", IMAGE.rpartition("/")[2]
    newest = images.get_from_family(project=project, family=family)
    assert (newest.name, newest.disk_size_gb) == (f"{family}-v20260416", 50)
    for retired in ("pytorch-latest-gpu", "pytorch-2-7-cu128-ubuntu-2204-nvidia-570"):
        with pytest.raises(api.NotFound, match=f"family/{retired}' was not found"):
            images.get_from_family(project=project, family=retired)
    found = images.list(compute.ListImagesRequest(project=project, filter='family eq "pytorch-.*"'))
    states = {image.family: image.deprecated.state for image in found}
    assert states["pytorch-2-4-cu124-ubuntu-2204-py310"] == "OBSOLETE"
    view = client.of("ImageFamilyViews").get(project=project, zone=ZONE, family=family)
    assert view.image.name == newest.name
    old = f"projects/{project}/global/images/pytorch-2-7-cu128-ubuntu-2204-nvidia-570-v20251210"
    assert not client.insert(image=old).error.errors  # deprecated still boots
    with pytest.raises(api.NotFound):
        client.insert(name="tlvm-b", image=f"projects/{project}/global/images/{project}")


def test_places_and_the_project(server: ComputeServer, client: Client) -> None:
    zones = {zone.name: zone.region for zone in client.of("Zones").list(project=PROJECT)}
    assert zones[ZONE].endswith("/regions/us-central1")
    (region,) = client.of("Regions").list(compute.ListRegionsRequest(project=PROJECT, filter="name=us-east4"))
    assert {zone.rpartition("/")[2] for zone in region.zones} < set(zones)
    with pytest.raises(api.Forbidden, match="Location us-east1-d is not found or access is unauthorized"):
        client.instances.get(project=PROJECT, zone="us-east1-d", instance="tlvm-a")
    with pytest.raises(api.Forbidden):
        client.of("Projects").get(project="others-1")
    server.cloud.metadata["enable-oslogin"] = "TRUE"
    (entry,) = client.of("Projects").get(project=PROJECT).common_instance_metadata.items
    assert (entry.key, entry.value) == ("enable-oslogin", "TRUE")


def test_firewalls_networks_and_addresses(server: ComputeServer, client: Client) -> None:
    firewalls = client.of("Firewalls")
    resource = instance()
    resource.tags = compute.Tags(items=["tlvm"])
    client.finish(client.instances.insert_unary(**PLACE, instance_resource=resource))
    assert server.instances.admits("tlvm-a", "198.51.100.1")  # the default network lets everybody in
    ssh = [compute.Denied(I_p_protocol="tcp", ports=["22"])]
    deny = compute.Firewall(
        name="tlvm-deny", priority=900, denied=ssh, target_tags=["tlvm"], source_ranges=["0.0.0.0/0"]
    )
    allow = compute.Firewall(
        name="tlvm-allow", priority=800, target_tags=["tlvm"], source_ranges=["203.0.113.7/32"],
        allowed=[compute.Allowed(I_p_protocol="tcp", ports=["22"])],
    )  # fmt: skip
    for rule in (deny, allow):
        operation = firewalls.insert_unary(project=PROJECT, firewall_resource=rule)
        client.of("GlobalOperations").wait(project=PROJECT, operation=operation.name)
    assert server.instances.admits("tlvm-a", "203.0.113.7")
    assert not server.instances.admits("tlvm-a", "198.51.100.1")
    changed = compute.Firewall(source_ranges=["198.51.100.1/32"])
    firewalls.patch_unary(project=PROJECT, firewall="tlvm-allow", firewall_resource=changed)
    firewalls.get(project=PROJECT, firewall="tlvm-allow")
    assert server.instances.admits("tlvm-a", "198.51.100.1")
    with pytest.raises(api.BadRequest):
        bad = compute.Firewall(name="tlvm-bad", source_ranges=["203.0.113.7/33"], denied=ssh)
        firewalls.insert_unary(project=PROJECT, firewall_resource=bad)
    firewalls.delete_unary(project=PROJECT, firewall="tlvm-allow")
    names = [rule.name for rule in firewalls.list(project=PROJECT)]
    assert "tlvm-deny" in names
    assert "tlvm-allow" not in names
    subnet = client.of("Subnetworks").get(project=PROJECT, region="us-central1", subnetwork="default")
    assert not subnet.private_ip_google_access
    addresses = client.of("Addresses")
    addresses.insert_unary(
        project=PROJECT, region="us-central1", address_resource=compute.Address(name="kept")
    )
    scopes = dict(addresses.aggregated_list(project=PROJECT))
    assert [found.name for found in scopes["regions/us-central1"].addresses] == ["kept"]


def test_a_machine_needs_an_account_that_is_there(client: Client) -> None:
    failed = client.insert(account=f"nobody@{PROJECT}.iam.gserviceaccount.com")
    assert failed.error.errors[0].code == "EXTERNAL_RESOURCE_NOT_FOUND"
    with pytest.raises(api.NotFound):
        client.get()
