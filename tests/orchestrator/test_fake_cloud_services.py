"""What the fake cloud says of services, permissions, accounts, billing and prices, by Google's own description of it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from orchestrator.resources import folder
from tests.fakes.compute_cloud import USER
from tests.fakes.compute_server import PROJECT, ComputeServer
from tests.fakes.gcs_server import GcsServer

ACCOUNT = f"tlvm-machine@{PROJECT}.iam.gserviceaccount.com"


@pytest.fixture
def server() -> Iterator[ComputeServer]:
    with ComputeServer() as server:
        yield server
        assert server.errors == []


def ask(server: ComputeServer, verb: str, path: str, body: Any = None) -> Any:
    answer = requests.request(verb, f"{server.url}/{path}", json=body, timeout=5)
    document = answer.json()
    return document if answer.ok else document["error"]["status"]


def test_services_are_listed_and_enabled(server: ComputeServer) -> None:
    name = f"v1/projects/{PROJECT}/services"
    server.project.enabled.discard("compute.googleapis.com")
    listed = ask(server, "GET", f"{name}?filter=state:ENABLED")["services"]
    assert "compute.googleapis.com" not in [service["config"]["name"] for service in listed]
    wanted = "&".join(
        f"names=projects/{PROJECT}/services/{api}.googleapis.com" for api in ("compute", "storage")
    )
    states = [service["state"] for service in ask(server, "GET", f"{name}:batchGet?{wanted}")["services"]]
    assert states == ["DISABLED", "ENABLED"]
    assert ask(server, "GET", f"compute/v1/projects/{PROJECT}") == "PERMISSION_DENIED"
    assert ask(server, "POST", f"{name}/compute.googleapis.com:enable", {})["done"]
    assert ask(server, "GET", f"compute/v1/projects/{PROJECT}")["name"] == PROJECT


def test_permissions_of_the_caller(server: ComputeServer) -> None:
    server.project.refused_permissions.add("compute.instances.create")
    wanted = {"permissions": ["compute.instances.create", "compute.instances.list"]}
    for version in ("v1", "v3"):
        tested = ask(server, "POST", f"{version}/projects/{PROJECT}:testIamPermissions", wanted)
        assert tested == {"permissions": ["compute.instances.list"]}
    assert ask(server, "GET", f"v3/projects/{PROJECT}")["state"] == "ACTIVE"
    assert ask(server, "GET", "v3/projects/others-1") == "PERMISSION_DENIED"


def test_service_accounts(server: ComputeServer) -> None:
    accounts = f"v1/projects/{PROJECT}/serviceAccounts"
    server.cloud.service_accounts.discard(ACCOUNT)
    assert ask(server, "GET", f"{accounts}/{ACCOUNT}") == "NOT_FOUND"
    assert ask(server, "POST", accounts, {"accountId": "tlvm-machine"})["email"] == ACCOUNT
    assert ask(server, "POST", accounts, {"accountId": "tlvm-machine"}) == "ALREADY_EXISTS"
    policy = ask(server, "POST", f"{accounts}/{ACCOUNT}:getIamPolicy")
    binding = {"role": "roles/iam.serviceAccountUser", "members": [f"user:{USER}"]}
    changed = {"policy": {**policy, "bindings": [binding]}}
    assert ask(server, "POST", f"{accounts}/{ACCOUNT}:setIamPolicy", changed)["bindings"] == [binding]
    assert (
        ask(server, "POST", f"{accounts}/{ACCOUNT}:setIamPolicy", changed) == "ALREADY_EXISTS"
    )  # the etag is old


@pytest.mark.soak
@pytest.mark.needs("gcloud")
def test_setup_by_gcloud_twice(server: ComputeServer, tmp_path: Path) -> None:
    """infra/gce/setup.sh as its readers run it: a new project gets its account, its role and three bindings."""
    server.cloud.service_accounts.discard(ACCOUNT)
    server.project.enabled.discard("compute.googleapis.com")
    with GcsServer() as storage:
        storage.create_bucket("trees-4711-tlvm")
        names = ("COMPUTE", "IAM", "SERVICEUSAGE", "CLOUDRESOURCEMANAGER")
        environment = {
            **os.environ,
            "HOME": str(tmp_path),
            "CLOUDSDK_CONFIG": str(tmp_path),
            "CLOUDSDK_AUTH_DISABLE_CREDENTIALS": "True",
            "CLOUDSDK_CORE_ACCOUNT": USER,
            "CLOUDSDK_CORE_DISABLE_PROMPTS": "True",
            "CLOUDSDK_API_ENDPOINT_OVERRIDES_STORAGE": f"{storage.endpoint}/",
            **{f"CLOUDSDK_API_ENDPOINT_OVERRIDES_{name}": f"{server.url}/" for name in names},
        }
        script = folder("infra") / "gce" / "setup.sh"
        policies = []
        for _ in range(2):
            subprocess.run(["bash", script, PROJECT, "gs://trees-4711-tlvm"], env=environment, check=True)
            policies.append([storage.api.policies["trees-4711-tlvm"]["bindings"]])
            policies[-1] += [policy["bindings"] for policy in server.project.policies.values()]
        assert policies[0] == policies[1]
        assert storage.errors == []
    reading, writing = policies[0][0]
    assert (reading["role"], writing["role"]) == ("roles/storage.objectViewer", "roles/storage.objectUser")
    assert "objects/runs/" in writing["condition"]["expression"]
    assert ACCOUNT in server.cloud.service_accounts
    assert "compute.googleapis.com" in server.project.enabled
    assert server.project.roles["tlvmMachineEnd"]["includedPermissions"] == ["compute.instances.delete"]
    (acting,) = server.project.policies[ACCOUNT]["bindings"]
    assert acting == {"role": "roles/iam.serviceAccountUser", "members": [f"user:{USER}"]}


def test_billing_and_prices(server: ComputeServer) -> None:
    assert ask(server, "GET", f"v1/projects/{PROJECT}/billingInfo")["billingEnabled"]
    server.project.billing_enabled = False
    assert not ask(server, "GET", f"v1/projects/{PROJECT}/billingInfo")["billingEnabled"]
    found, token = [], ""
    while True:
        page = ask(server, "GET", f"v1/services/6F81-5844-456A/skus?pageSize=10&pageToken={token}")
        found += page["skus"]
        token = page["nextPageToken"]
        if not token:
            break
    prices = {
        sku["description"]: sku["pricingInfo"][0]["pricingExpression"]["tieredRates"][0]["unitPrice"]["nanos"]
        for sku in found
    }
    assert prices["Nvidia L4 GPU running in Americas"] == 560_000_000
    assert "Commitment v1: Nvidia L4 GPU running in Americas for 1 Year" in prices


def test_os_login_and_policies(server: ComputeServer) -> None:
    assert "sshPublicKeys" not in ask(server, "GET", f"v1/users/{USER}/loginProfile")
    key = {"key": "ssh-ed25519 AAAA"}
    profile = ask(server, "POST", f"v1/users/{USER}:importSshPublicKey", key)["loginProfile"]
    assert [entry["key"] for entry in profile["sshPublicKeys"].values()] == ["ssh-ed25519 AAAA"]
    name = f"v2/projects/{PROJECT}/policies/compute.requireOsLogin:getEffectivePolicy"
    assert ask(server, "GET", name)["spec"]["rules"] == [{"enforce": False}]


def test_faults_reach_these_too(server: ComputeServer) -> None:
    server.faults.add("503", "cloudbilling.*")
    assert ask(server, "GET", f"v1/projects/{PROJECT}/billingInfo") == "UNAVAILABLE"
    assert ask(server, "GET", f"v1/projects/{PROJECT}/billingInfo")["billingEnabled"]
    assert [request.call for request in server.requests] == ["cloudbilling.projects.getBillingInfo"] * 2
