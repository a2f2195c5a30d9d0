"""The machines behind the fake Compute Engine really boot; and the metadata server that each of them asks."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
import requests
from google.api_core.exceptions import NotFound
from google.cloud import compute_v1 as compute

from orchestrator.errors import ConnectionLost
from orchestrator.progress import Silent
from orchestrator.providers.base import SshAddress
from orchestrator.ssh import Connection, connect, new_key
from tests.fakes import compute_loopback
from tests.fakes.compute_container import ContainerHardware
from tests.fakes.compute_hardware import Hardware
from tests.fakes.compute_server import ComputeServer
from tests.fakes.credentials import TOKEN
from tests.fakes.guest_agent import welcome
from tests.needs import need
from tests.orchestrator.compute_client import PLACE, Client, spot
from tests.remote.machine import eventually

ASK = {"Metadata-Flavor": "Google"}
SCRIPT = """#!/bin/sh
mkdir -p "${TLVM_SYSTEM:-}/tmp"
echo "hello from the startup script"
nvidia-smi -L >"${TLVM_SYSTEM:-}/tmp/gpus" 2>&1
echo boot >>"${TLVM_SYSTEM:-}/tmp/boots"
"""


def _loopback(folder: Path) -> Hardware:
    need("loopback machines")
    return compute_loopback.LoopbackHardware(folder, boot_s=0.2)


def _container(folder: Path) -> Hardware:
    return ContainerHardware(progress=Silent())


@pytest.mark.parametrize(
    "hardware",
    [
        pytest.param(_loopback, id="loopback"),
        pytest.param(_container, id="container", marks=pytest.mark.docker),
    ],
)
def test_a_machine_boots_and_is_reached(hardware: Callable[[Path], Hardware], tmp_path: Path) -> None:
    key = new_key(tmp_path / "key")
    with ComputeServer(hardware(tmp_path / "machines")) as server:
        client = Client(server)
        client.insert(metadata={"ssh-keys": f"tlvm:{key}", "startup-script": SCRIPT})
        id = str(client.get().id)
        with _reach(client, tmp_path / "key") as machine:
            assert machine.check("nvidia-smi --query-gpu=name --format=csv,noheader") == b"NVIDIA L4\n"
            assert machine.run("echo $HOME").stdout.strip()
        eventually(lambda: "hello from the startup script" in _console(client))
        server.machines.stop(id)  # as a machine does that powers itself off
        assert client.get().status == "TERMINATED"
        client.act("start")
        with _reach(client, tmp_path / "key"):
            server.clock.advance(3601)
        assert not server.machines.is_on(id)
    assert server.errors == []


def test_metadata() -> None:
    with ComputeServer() as server:
        Client(server).insert(scheduling=spot(), metadata={"tlvm-owner": "ana"})
        _, instance = server.instances.named("tlvm-a")
        host = server.metadata_host(instance["id"])
        root = f"http://{host}/computeMetadata/v1"
        assert requests.get(f"{root}/instance/name", timeout=5).status_code == 403

        def said(path: str) -> str:
            answer = requests.get(f"{root}/{path}", headers=ASK, timeout=5)
            assert answer.headers["Metadata-Flavor"] == "Google"
            return answer.text if answer.ok else f"{answer.status_code}"

        assert said("instance/attributes/tlvm-owner") == "ana"
        assert said("instance/attributes/").splitlines() == ["enable-guest-attributes", "tlvm-owner"]
        assert said("instance/attributes/other") == "404"
        assert said("instance/id") == instance["id"]
        assert said("instance/zone").endswith("/zones/us-central1-a")
        assert said("instance/preempted") == "FALSE"
        put = requests.put(
            f"{root}/instance/guest-attributes/tlvm/soft-end", b"active", headers=ASK, timeout=5
        )
        assert put.ok
        assert server.cloud.guests[instance["id"]].attributes["tlvm/soft-end"] == "active"
        assert _credentials(host) == [TOKEN, instance["serviceAccounts"][0]["email"]]
        threading.Timer(0.1, lambda: server.instances.preempt("tlvm-a", notice_s=30)).start()
        assert said("instance/preempted?wait_for_change=true&timeout_sec=10") == "TRUE"
        server.clock.advance(31)
        with pytest.raises(requests.exceptions.ConnectionError):
            said("instance/preempted")
    assert server.errors == []


def test_who_comes_in() -> None:
    now = datetime(2026, 11, 22, tzinfo=UTC)
    expiring = 'ben:ssh-ed25519 BBBB google-ssh {"userName":"ben","expireOn":"2026-11-21T10:00:00+0000"}'
    keys = {"ssh-keys": f"ana:ssh-ed25519 AAAA\n{expiring}"}
    theirs = {"ssh-keys": "eve:ssh-ed25519 EEEE"}
    assert welcome(keys, {}, now) == [("ana", "ssh-ed25519 AAAA")]
    assert welcome({}, theirs, now) == [("eve", "ssh-ed25519 EEEE")]
    assert len(welcome(keys, {}, now.replace(day=20))) == 2
    assert welcome(keys | {"block-project-ssh-keys": "TRUE"}, theirs, now) == [("ana", "ssh-ed25519 AAAA")]
    assert welcome(keys, {"enable-oslogin": "TRUE"}, now) == []
    assert welcome(keys | {"enable-oslogin": "FALSE"}, {"enable-oslogin": "TRUE"}, now) != []


def _credentials(host: str) -> list[str]:
    """Token and account, as google-auth finds them on a machine; it reads the variable when it is imported."""
    script = """
import google.auth.compute_engine, google.auth.transport.requests as transport
credentials = google.auth.compute_engine.Credentials()
credentials.refresh(transport.Request())
print(credentials.token, credentials.service_account_email)
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "GCE_METADATA_HOST": host},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.split()


def _reach(client: Client, key_file: Path) -> Connection:
    address = client.get().network_interfaces[0].access_configs[0].nat_i_p
    deadline = time.monotonic() + 120
    while True:
        asked = compute.GetGuestAttributesInstanceRequest(**PLACE, instance="tlvm-a", query_path="hostkeys/")
        try:
            entries = client.instances.get_guest_attributes(asked).query_value.items
            keys = [f"{entry.key} {entry.value}" for entry in entries]
            return connect(SshAddress(address, 22, "tlvm"), host_keys=keys, key_file=key_file)
        except (ConnectionLost, NotFound):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def _console(client: Client) -> str:
    return str(client.instances.get_serial_port_output(**PLACE, instance="tlvm-a").contents)
