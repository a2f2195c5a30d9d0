"""The installed gcloud, a client that is neither Google's library nor ours, against the fake Compute Engine."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.ssh import new_key
from tests.fakes.compute_server import PROJECT, ComputeServer
from tests.orchestrator.compute_client import ZONE

pytestmark = pytest.mark.needs("gcloud")


@pytest.fixture
def server() -> Iterator[ComputeServer]:
    with ComputeServer() as server:
        yield server
        assert server.errors == []


def test_create_list_describe_ssh_delete(server: ComputeServer, tmp_path: Path) -> None:
    made = gcloud(
        server, tmp_path, "instances", "create", "tlvm-g",
        "--machine-type=n1-standard-8", "--accelerator=type=nvidia-tesla-t4,count=1", "--maintenance-policy=TERMINATE",
        "--image-family=pytorch-2-9-cu129-ubuntu-2404-nvidia-580", "--image-project=deeplearning-platform-release",
        "--boot-disk-size=200GB", "--metadata=enable-guest-attributes=TRUE", "--labels=tlvm-owner=ana",
        f"--service-account=tlvm-machine@{PROJECT}.iam.gserviceaccount.com", "--scopes=cloud-platform",
        "--max-run-duration=4h", "--instance-termination-action=DELETE", "--format=json",
    )  # fmt: skip
    (machine,) = json.loads(made)
    assert machine["status"] == "RUNNING"
    assert machine["scheduling"]["maxRunDuration"] == {"seconds": "14400"}
    listed = gcloud(
        server, tmp_path, "instances", "list", "--filter=labels.tlvm-owner=ana", "--format=value(name)"
    )
    assert listed.split() == ["tlvm-g"]
    shown = gcloud(server, tmp_path, "instances", "describe", "tlvm-g", "--format=value(id)")
    assert shown.strip() == machine["id"]
    (tmp_path / "key.pub").write_text(new_key(tmp_path / "key"))
    ssh = gcloud(server, tmp_path, "ssh", "tlvm-g", "--dry-run", f"--ssh-key-file={tmp_path / 'key'}")
    assert f"HostKeyAlias=compute.{machine['id']}" in ssh
    assert "StrictHostKeyChecking=yes" in ssh  # it found the host key in the guest attributes
    gcloud(server, tmp_path, "instances", "delete", "tlvm-g")
    assert not server.cloud.resources["instances"]


def test_no_stock(server: ComputeServer, tmp_path: Path) -> None:
    server.cloud.frozen_zones.add(ZONE)
    with pytest.raises(subprocess.CalledProcessError) as caught:
        gcloud(
            server,
            tmp_path,
            "instances",
            "create",
            "tlvm-g",
            "--machine-type=g2-standard-8",
            "--maintenance-policy=TERMINATE",
        )
    assert "does not have enough resources available" in caught.value.stderr
    assert "currently unavailable" in caught.value.stderr


def gcloud(server: ComputeServer, folder: Path, *arguments: str) -> str:
    environment = {
        **os.environ,
        "HOME": str(folder),
        "CLOUDSDK_CONFIG": str(folder / "gcloud"),
        "CLOUDSDK_API_ENDPOINT_OVERRIDES_COMPUTE": f"{server.url}/compute/v1/",
        "CLOUDSDK_AUTH_DISABLE_CREDENTIALS": "True",
        "CLOUDSDK_CORE_PROJECT": PROJECT,
        "CLOUDSDK_COMPUTE_ZONE": ZONE,
        "CLOUDSDK_CORE_DISABLE_PROMPTS": "True",
        "CLOUDSDK_CORE_DISABLE_USAGE_REPORTING": "True",
        "CLOUDSDK_COMPONENT_MANAGER_DISABLE_UPDATE_CHECK": "True",
    }
    done = subprocess.run(
        ["gcloud", "compute", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return done.stdout
