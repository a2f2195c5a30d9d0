"""The one request that makes a machine: everything that keeps its user safe is in it, and Google's own types take it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from orchestrator import config
from orchestrator.errors import ConfigError
from orchestrator.providers.base import MachineSpec, Offer
from orchestrator.providers.gce import request as request_module
from orchestrator.providers.gce.request import Image, insert
from orchestrator.resources import folder as shipped
from tests.fakes.compute_server import ComputeServer
from tests.fakes.discovery import discovery
from tests.orchestrator.gce_cloud import OFFER, gce, gce_settings, wanted

NOW = datetime(2026, 11, 22, 14, 0, tzinfo=UTC)
IMAGE = Image("projects/deeplearning-platform-release/global/images/pytorch-x", "pytorch-x", 50)


@pytest.fixture(scope="module")
def server() -> Iterator[ComputeServer]:
    with ComputeServer() as running:
        yield running
        assert running.errors == []


def body(
    server: ComputeServer, spec: MachineSpec, offer: Offer = OFFER, **settings: object
) -> dict[str, Any]:
    made = insert(spec, offer, IMAGE, gce_settings(server, **settings), "trees-4711", NOW)
    api = discovery("compute.v1")
    api.check_body(api.call("POST", made.path, {"requestId": [made.request_id]}, more=set()), made.body)
    return dict(made.body)


def items(body: dict[str, Any]) -> dict[str, str]:
    return {item["key"]: item["value"] for item in body["metadata"]["items"]}


def test_everything_that_keeps_its_user_safe_is_in_it(server: ComputeServer) -> None:
    spec = wanted()
    made = body(server, spec)
    assert made["labels"] == {
        "tlvm-machine": "tlvm-ana-trees", "tlvm-owner": "ana", "tlvm-project": "trees",
        "tlvm-expires": str(int(NOW.timestamp()) + 4 * 3600), "tlvm-attempt": spec.request_id,
    }  # fmt: skip
    assert made["scheduling"] == {
        "maxRunDuration": {"seconds": "14400"}, "instanceTerminationAction": "DELETE", "provisioningModel": "STANDARD",
        "onHostMaintenance": "TERMINATE", "automaticRestart": True,
    }  # fmt: skip
    (disk,) = made["disks"]
    assert disk["boot"] and disk["autoDelete"] and disk["initializeParams"]["diskSizeGb"] == "200"
    assert disk["initializeParams"]["labels"] == made["labels"]
    (account,) = made["serviceAccounts"]
    assert account["email"] == "tlvm-machine@trees-4711.iam.gserviceaccount.com"
    assert made["shieldedInstanceConfig"]["enableVtpm"]
    assert made["tags"]["items"] == ["tlvm", "tlvm-ana"]
    said = items(made)
    assert said["block-project-ssh-keys"] == "TRUE" and said["enable-oslogin"] == "FALSE"
    assert said["enable-guest-attributes"] == "TRUE"
    assert said["ssh-keys"].startswith("tlvm:ssh-ed25519 AAAA")
    assert json.loads(said["ssh-keys"].partition("google-ssh ")[2])["expireOn"] == "2026-11-22T18:00:00+0000"
    assert said["startup-script"].startswith("#!/bin/bash") and "def main" in said["tlvm-guard"]
    assert (said["tlvm-idle-seconds"], said["tlvm-idle-action"]) == ("1800", "stop")
    assert "guestAccelerators" not in made  # an L4 comes with its machine type


def test_no_secret_stands_in_it(server: ComputeServer) -> None:
    assert "PRIVATE" not in json.dumps(body(server, wanted())).upper().replace("PRIVATE GOOGLE ACCESS", "")


def test_spot_is_one_scheduling_message(server: ComputeServer) -> None:
    scheduling = body(server, wanted(spot=True))["scheduling"]
    assert scheduling["provisioningModel"] == "SPOT" and scheduling["automaticRestart"] is False
    assert scheduling["instanceTerminationAction"] == "DELETE"
    assert scheduling["maxRunDuration"] == {"seconds": "14400"}


def test_an_older_accelerator_is_attached(server: ComputeServer) -> None:
    made = body(
        server, wanted(), Offer("us-central1-b", "nvidia-tesla-t4", 0.7, "n1-standard-8", "us-central1")
    )
    (attached,) = made["guestAccelerators"]
    assert attached["acceleratorCount"] == 1
    assert attached["acceleratorType"].endswith("us-central1-b/acceleratorTypes/nvidia-tesla-t4")


def test_the_budget_is_a_clock(server: ComputeServer) -> None:
    made = body(server, wanted(budget=0.886))
    assert made["scheduling"]["maxRunDuration"] == {"seconds": "3600"}
    assert made["labels"]["tlvm-expires"] == str(int(NOW.timestamp()) + 3600)
    assert body(server, wanted(budget=100.0))["scheduling"]["maxRunDuration"] == {"seconds": "14400"}


def test_iap_means_no_address(server: ComputeServer) -> None:
    (interface,) = body(server, wanted())["networkInterfaces"]
    assert interface["accessConfigs"] == [{"type": "ONE_TO_ONE_NAT", "name": "External NAT"}]
    (interface,) = body(server, wanted(), iap=True, subnetwork="mine")["networkInterfaces"]
    assert "accessConfigs" not in interface
    assert interface["subnetwork"] == "projects/trees-4711/regions/us-central1/subnetworks/mine"


def test_what_newer_machine_types_take_as_a_disk(server: ComputeServer) -> None:
    assert request_module.disk_type(gce_settings(server), "g4-standard-48") == "hyperdisk-balanced"
    assert request_module.disk_type(gce_settings(server), "a3-highgpu-1g") == "pd-balanced"
    assert request_module.disk_type(gce_settings(server, disk_type="pd-ssd"), "g2-standard-8") == "pd-ssd"


def test_what_is_printed_is_what_is_sent(server: ComputeServer) -> None:
    """The body goes through Google's own message type on its way: nothing is lost or renamed there."""
    held = gce(server)
    spec = wanted(name="tlvm-ana-printed")
    offer = held.offers(spec)[0]
    printed = held.request(spec, offer)
    held.create(spec, offer)
    sent = [request for request in server.requests if request.call == "instances.insert"][-1]
    assert sent.query["requestId"] == [printed.request_id]
    assert f"/compute/v1/{printed.path}" == sent.path
    ends = {
        "labels": None,
        "metadata": None,
        "disks": None,
        "description": None,
    }  # the clock went on between the two
    assert {**sent.body, **ends} == {**printed.body, **ends}
    assert [item["key"] for item in sent.body["metadata"]["items"]] == [
        item["key"] for item in printed.body["metadata"]["items"]
    ]
    held.delete(spec.name)


@pytest.mark.parametrize("account", ["471147114711-compute@developer.gserviceaccount.com", "default"])
def test_the_default_account_is_refused(server: ComputeServer, account: str) -> None:
    before = server.count("instances.insert")
    with pytest.raises(ConfigError, match="default account"):
        gce(server, service_account=account).create(wanted(name="tlvm-ana-default"), OFFER)
    assert server.count("instances.insert") == before


def test_a_store_that_the_machine_could_not_reach_is_refused(server: ComputeServer) -> None:
    from remote.contract.run_spec import StoreRef

    with pytest.raises(ConfigError, match="gs://BUCKET"):
        gce(server).offers(wanted(store=StoreRef("/home/ana/store")))


def test_a_disk_smaller_than_the_image_is_refused_before_it_is_asked_for(server: ComputeServer) -> None:
    held = gce(server)
    spec = wanted(disk_gb=5, name="tlvm-ana-small")
    with pytest.raises(ConfigError, match="disk_gb is 5"):
        held.create(spec, held.offers(spec)[0])


def test_the_example_is_valid_and_begins_with_its_command(tmp_path: Path) -> None:
    text = (shipped("configs") / "gce.toml").read_text(encoding="utf-8")
    assert text.startswith("# tlvm up")
    (tmp_path / config.FILE).write_text(text, encoding="utf-8")
    found = config.load({}, environ={"TLVM_DATA_DIR": str(tmp_path)}, folder=tmp_path)
    assert (found.accelerator, found.accelerator_count, found.idle_minutes) == ("l4,t4", 1, 30)
    assert found.gce.zones == ("us-central1", "us-east1-b")


@pytest.mark.parametrize("ranges", ["0.0.0.0/0", "203.0.113.7, ::/0", "nowhere"])
def test_nobody_opens_ssh_to_everybody(tmp_path: Path, ranges: str) -> None:
    environ = {"TLVM_DATA_DIR": str(tmp_path), "TLVM_PROVIDER": "gce", "TLVM_GCE_SSH_SOURCE_RANGES": ranges}
    with pytest.raises(ConfigError, match="TLVM_GCE_SSH_SOURCE_RANGES"):
        config.load({}, environ=environ, folder=tmp_path)


def test_names_in_a_variable_are_separated_by_commas(tmp_path: Path) -> None:
    environ = {
        "TLVM_DATA_DIR": str(tmp_path), "TLVM_PROVIDER": "gce", "TLVM_GCE_ZONES": "us-east4-a, us-central1",
        "TLVM_MACHINE_ACCELERATOR": "l4, t4",
    }  # fmt: skip
    found = config.load({}, environ=environ, folder=tmp_path)
    assert found.gce.zones == ("us-east4-a", "us-central1") and found.accelerator == "l4,t4"
