"""What goes wrong with the fake Compute Engine, as Google's own client library shows it to its users."""

from __future__ import annotations

import threading
import uuid
from pathlib import Path

import pytest
import requests
from google.api_core import exceptions as api
from google.cloud import compute_v1 as compute
from google.oauth2 import service_account

from tests.fakes.compute_server import PROJECT, ComputeServer
from tests.orchestrator.compute_client import PLACE, ZONE, Client, instance, spot


@pytest.fixture
def client(server: ComputeServer) -> Client:
    return Client(server)


@pytest.mark.parametrize(
    ("fault", "kind", "reason"),
    [
        ("403 permission", api.Forbidden, "forbidden"),
        ("403 quota", api.Forbidden, "quotaExceeded"),
        ("403 rate", api.Forbidden, "rateLimitExceeded"),
        ("409", api.Conflict, "alreadyExists"),
        ("429", api.TooManyRequests, "rateLimitExceeded"),
        ("500", api.InternalServerError, "internalError"),
        ("503", api.ServiceUnavailable, "backendError"),
    ],
)
def test_refused_at_once(
    server: ComputeServer, client: Client, fault: str, kind: type[api.GoogleAPICallError], reason: str
) -> None:
    server.faults.add(fault)
    with pytest.raises(kind) as caught:
        client.insert()
    assert caught.value.errors[0]["reason"] == reason
    assert not client.insert().error.errors  # nothing was made, and the fault is used up
    assert server.faults.unused() == []


def test_a_login_that_counts_no_more(tmp_path: Path) -> None:
    with ComputeServer(is_open=False) as server:
        path = server.credentials_file(tmp_path)
        client = Client(server, service_account.Credentials.from_service_account_file(str(path)))
        client.insert()
        server.faults.add("401", times=3)  # google-auth logs in anew twice before it gives up
        with pytest.raises(api.Unauthorized) as caught:
            client.insert(name="tlvm-b")
        assert caught.value.errors[0]["reason"] == "authError"
        address = f"{server.url}/compute/v1/projects/{PROJECT}"
        assert requests.get(address, timeout=5).status_code == 401
        assert server.errors == []


def test_an_api_that_is_not_enabled_says_where_to_enable_it(server: ComputeServer, client: Client) -> None:
    server.project.enabled.remove("compute.googleapis.com")
    with pytest.raises(api.Forbidden) as caught:
        client.insert()
    assert caught.value.reason == "SERVICE_DISABLED"
    assert PROJECT in caught.value.metadata["activationUrl"]


def test_permissions_are_named(server: ComputeServer, client: Client) -> None:
    server.project.refused_permissions.add("compute.instances.create")
    with pytest.raises(api.Forbidden, match=r"Required 'compute\.instances\.create' permission"):
        client.insert()
    list(client.instances.list(**PLACE))


@pytest.mark.parametrize(
    ("fault", "code", "http"),
    [
        ("stock-out", "ZONE_RESOURCE_POOL_EXHAUSTED_WITH_DETAILS", api.ServiceUnavailable),
        ("plain stock-out", "ZONE_RESOURCE_POOL_EXHAUSTED", api.ServiceUnavailable),
        ("quota", "QUOTA_EXCEEDED", api.Forbidden),
        ("global quota", "QUOTA_EXCEEDED", api.Forbidden),
        ("preempted creation", "UNSUPPORTED_OPERATION", api.BadRequest),
        ("operation rate", "RESOURCE_OPERATION_RATE_EXCEEDED", api.Forbidden),
    ],
)
def test_refused_after_it_was_accepted(
    server: ComputeServer, client: Client, fault: str, code: str, http: type[api.GoogleAPICallError]
) -> None:
    server.cloud.operation_s["insert"] = 5
    server.faults.add(fault)
    accepted = client.insert()
    assert client.get().status == "PROVISIONING"
    server.clock.advance(5)
    ended = client.operations.get(**PLACE, operation=accepted.name)
    assert [error.code for error in ended.error.errors] == [code]
    seen = api.from_http_status(ended.http_error_status_code, ended.http_error_message)
    assert type(seen) is http
    if fault == "stock-out":
        info = ended.error.errors[0].error_details[0].error_info
        assert (info.metadatas["zone"], info.metadatas["vmType"]) == (ZONE, "g2-standard-8")
    if fault == "global quota":
        assert "Quota 'GPUS_ALL_REGIONS' exceeded.  Limit: 0.0 globally." in ended.error.errors[0].message
    for kind, name in (("Instances", "instance"), ("Disks", "disk")):  # nothing of it stays
        with pytest.raises(api.NotFound):
            client.of(kind).get(**PLACE, **{name: "tlvm-a"})


def test_a_zone_without_stock_stays_without(server: ComputeServer, client: Client) -> None:
    server.cloud.frozen_zones.add(ZONE)
    for name in ("tlvm-a", "tlvm-b"):
        assert client.insert(name=name).error.errors[0].code.startswith("ZONE_RESOURCE_POOL_EXHAUSTED")


@pytest.mark.parametrize("fault", ["503 after", "reset after", "stall after"])
def test_accepted_without_an_answer_is_one_machine(server: ComputeServer, client: Client, fault: str) -> None:
    request = compute.InsertInstanceRequest(
        **PLACE, instance_resource=instance(), request_id=str(uuid.uuid4())
    )
    server.faults.add(fault)
    lost = (api.ServiceUnavailable, requests.exceptions.ConnectionError, requests.exceptions.ReadTimeout)
    with pytest.raises(lost):
        client.instances.insert_unary(request, timeout=0.3)
    client.finish(client.instances.insert_unary(request))
    assert [found.name for found in client.instances.list(**PLACE)] == ["tlvm-a"]
    assert server.count("instances.insert") == 2


def test_operations_that_tell_nothing(server: ComputeServer, client: Client) -> None:
    server.faults.add("unfinished", "zoneOperations.wait")
    begun = client.insert()
    assert (begun.status, client.get().status) == (compute.Operation.Status.RUNNING, "RUNNING")
    server.faults.add("collected", "zoneOperations.get")
    for _ in range(2):
        with pytest.raises(api.NotFound):
            client.operations.get(**PLACE, operation=begun.name)
    server.faults.add("vanish")
    assert not client.insert(name="tlvm-b").error.errors
    with pytest.raises(api.NotFound):
        client.get("tlvm-b")


def test_deletion_that_fails_for_a_while(server: ComputeServer, client: Client) -> None:
    client.insert()
    server.faults.add("internal error", "instances.delete", times=2)
    for _ in range(2):
        assert client.act("delete").error.errors[0].code == "INTERNAL_ERROR"
        assert client.get().status == "RUNNING"
    client.act("delete")
    with pytest.raises(api.NotFound):
        client.get()


def test_host_keys_late_never_and_wrong(server: ComputeServer, client: Client) -> None:
    def keys(name: str) -> list[str]:
        asked = compute.GetGuestAttributesInstanceRequest(**PLACE, instance=name, query_path="hostkeys/")
        return [entry.value for entry in client.instances.get_guest_attributes(asked).query_value.items]

    client.insert()
    good = keys("tlvm-a")
    server.instances.host_keys.after_s = 30
    client.insert(name="tlvm-b")
    with pytest.raises(api.NotFound, match="'hostkeys/' of type 'Guest Attribute' was not found"):
        keys("tlvm-b")
    server.clock.advance(30)
    assert keys("tlvm-b") == good
    server.instances.host_keys.after_s = None
    client.insert(name="tlvm-c")
    server.clock.advance(3000)
    with pytest.raises(api.NotFound):
        keys("tlvm-c")
    server.instances.host_keys.after_s, server.instances.host_keys.wrong = 0.0, True
    client.insert(name="tlvm-d")
    assert keys("tlvm-d") != good
    client.act("delete", "tlvm-d")
    client.insert(name="tlvm-e", metadata={"enable-guest-attributes": "FALSE"})
    with pytest.raises(api.Forbidden):
        keys("tlvm-e")


@pytest.mark.parametrize("action", ["STOP", "DELETE"])
def test_preemption(server: ComputeServer, client: Client, action: str) -> None:
    operation = client.insert(scheduling=spot(instance_termination_action=action))
    server.instances.preempt("tlvm-a", notice_s=30)
    assert client.get().status == "STOPPING"
    server.clock.advance(30)
    if action == "STOP":
        assert client.get().status == "TERMINATED"
    else:
        with pytest.raises(api.NotFound):
            client.get()
    asked = f'targetId={operation.target_id} AND operationType="compute.instances.preempted"'
    (event,) = client.operations.list(compute.ListZoneOperationsRequest(**PLACE, filter=asked))
    assert event.name.startswith("systemevent-")


def test_preemption_while_booting(server: ComputeServer, client: Client) -> None:
    server.cloud.operation_s["insert"] = 20
    client.insert(scheduling=spot())
    server.instances.preempt("tlvm-a")
    server.clock.advance(30)
    with pytest.raises(api.NotFound):
        client.get()
    assert not list(client.of("Disks").list(**PLACE))


@pytest.mark.parametrize("performed", [False, True])
def test_it_freezes_at_a_request(performed: bool) -> None:
    with ComputeServer() as server:
        client = Client(server)
        list(client.instances.list(**PLACE))
        server.stop_at(2, performed=performed)
        caught: list[BaseException] = []

        def insert() -> None:
            list(client.instances.list(**PLACE))
            try:
                client.instances.insert_unary(**PLACE, instance_resource=instance())
            except requests.exceptions.ConnectionError as error:
                caught.append(error)

        thread = threading.Thread(target=insert)
        thread.start()
        assert server.frozen.wait(5)
        server.resume()
        thread.join()
        assert len(caught) == 1
        assert len(list(client.instances.list(**PLACE))) == performed
        assert [request.call for request in server.requests][2] == "instances.insert"


def test_faults_come_when_they_are_due(server: ComputeServer, client: Client) -> None:
    server.faults.add("503", "instances.insert", path=f"*/{ZONE}/*", skip=1, times=1)
    client.insert()
    with pytest.raises(api.ServiceUnavailable):
        client.insert(name="tlvm-b")
    client.insert(name="tlvm-c")
    with pytest.raises(ValueError, match="no such fault"):
        server.faults.add("earthquake")
