"""--iap: a machine without an address, entered through what `gcloud compute start-iap-tunnel` carries.

The stand-in for gcloud takes exactly the words that the real one takes, asks the cloud where the machine is and whether
its firewall lets Google's proxy in, and carries bytes. The installed gcloud, where there is one, reads the same words.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.providers.gce.machine import PROXY
from tests.conformance.providers import eventually
from tests.e2e.gce_world import MACHINE, World, world
from tests.e2e.test_gce_faults import User
from tests.fakes.compute_server import PROJECT
from tests.faults.fork_server import Forked
from tests.faults.ready_machines import ReadyMachines
from tests.faults.standin import draw, furnished
from tests.needs import need
from tests.processes import living_with

_GCLOUD = """#!{python}
import argparse, ipaddress, json, os, selectors, socket, sys, urllib.request
words = argparse.ArgumentParser(allow_abbrev=False)
words.add_argument("group", choices=["compute"])
words.add_argument("command", choices=["start-iap-tunnel"])
words.add_argument("instance")
words.add_argument("port", type=int)
words.add_argument("--listen-on-stdin", action="store_true", required=True)
for name in ("--project", "--zone", "--verbosity"):
    words.add_argument(name, required=True)
asked = words.parse_args()

def get(path):
    url = "{cloud}/compute/v1/projects/" + asked.project + "/" + path
    return json.load(urllib.request.urlopen(url))

machine = get("zones/" + asked.zone + "/instances/" + asked.instance)
tags = set(machine["tags"]["items"])
rules = [rule for rule in get("global/firewalls")["items"] if not rule.get("targetTags") or tags & set(rule["targetTags"])]
rules = [rule for rule in rules if any("22" in entry.get("ports", []) for entry in rule.get("allowed", rule.get("denied")))]
proxy = ipaddress.ip_network("35.235.240.0/20")
fitting = [rule for rule in rules if any(proxy.subnet_of(ipaddress.ip_network(one)) for one in rule["sourceRanges"])]
if "allowed" not in min(fitting, key=lambda rule: rule["priority"]):
    sys.exit("ERROR: (gcloud.compute.start-iap-tunnel) Error while connecting [4003: 'failed to connect to backend'].")
far = socket.create_connection((machine["networkInterfaces"][0]["networkIP"], asked.port))
with selectors.DefaultSelector() as ready:
    ready.register(0, selectors.EVENT_READ)
    ready.register(far, selectors.EVENT_READ)
    while True:
        for key, _ in ready.select():
            data = os.read(0, 65536) if key.fd == 0 else far.recv(65536)
            if not data:
                sys.exit()
            far.sendall(data) if key.fd == 0 else os.write(1, data)
"""


@pytest.fixture(scope="module")
def forked() -> Iterator[Forked]:
    with Forked(rate=50) as server:
        yield server


@pytest.fixture
def user(tmp_path: Path, forked: Forked) -> Iterator[User]:
    need("loopback machines")
    bundles = furnished(tmp_path)
    machines = ReadyMachines(tmp_path / "machines", lambda home: (home / ".tlvm/bundles").symlink_to(bundles))
    tools = tmp_path / "tools"
    tools.mkdir()
    more = {"TLVM_GCE_IAP": "true", "PATH": f"{tools}:{os.environ['PATH']}"}
    with world(tmp_path, machines, variables=more) as there:
        gcloud = tools / "gcloud"
        gcloud.write_text(_GCLOUD.replace("{python}", sys.executable).replace("{cloud}", there.cloud.url))
        gcloud.chmod(0o755)
        for subnetwork in there.cloud.cloud.resources["subnetworks"].values():
            subnetwork["privateIpGoogleAccess"] = True
        yield User(there, forked)


def addresses(there: World) -> list[str]:
    return [
        access.get("natIP", "")
        for instance in there.instances()
        for interface in instance["networkInterfaces"]
        for access in interface.get("accessConfigs", [])
    ]


def test_the_whole_way_through_googles_proxy(user: User, tmp_path: Path) -> None:
    draw(tmp_path / "photos")
    user("upload", tmp_path / "photos")
    user("up")
    assert addresses(user.there) == []  # none is paid for, and none can be reached
    assert not user.there.cloud.instances.admits(MACHINE, "203.0.113.7")
    assert user("ssh", "--", "echo", "carried").stdout == "carried\n"
    assert user("run", "fixed-extractor", "--weights", "none", "--json").document["run_id"]
    (shown,) = user("status", "--json").document["machines"]
    assert shown["orphan"] == "" and shown["machine"]["ssh"]["host"].startswith("compute.")
    assert user("down", "--yes").exit_code == 0
    assert user.there.left_over() == []
    assert eventually(lambda: not living_with(str(tmp_path / "tools")))


def test_without_a_way_to_the_bucket_already_the_dry_run_says_so(user: User) -> None:
    for subnetwork in user.there.cloud.cloud.resources["subnetworks"].values():
        subnetwork["privateIpGoogleAccess"] = False
    for words in (("up", "--dry-run"), ("up",)):
        assert "--enable-private-ip-google-access" in user.refused(*words, exit_code=2)["next"]
    assert user.there.inserts() == []


def test_another_host_key_than_the_machines_own_is_refused_there_too(user: User) -> None:
    user.there.cloud.instances.host_keys.wrong = True
    error = user.refused("up", exit_code=5)
    assert "host key" in (error["what"] + error["detail"]).lower()
    user("down", "--yes")


def test_without_gcloud_nothing_is_made(user: User, tmp_path: Path) -> None:
    (tmp_path / "tools" / "gcloud").unlink()
    assert "gcloud" in user.begin("up", PATH=str(tmp_path / "tools")).answer().stderr
    assert user.there.inserts() == []


@pytest.mark.needs("gcloud")
def test_the_real_gcloud_takes_these_words(tmp_path: Path) -> None:
    """It goes as far as asking for a token, which it has none of here."""
    command = PROXY.format(instance="vm", project=PROJECT, zone="us-central1-a").replace("%p", "22")
    environment = {
        **os.environ, "CLOUDSDK_CONFIG": str(tmp_path), "CLOUDSDK_AUTH_DISABLE_CREDENTIALS": "True",
        "CLOUDSDK_CORE_DISABLE_PROMPTS": "1",
    }  # fmt: skip
    done = subprocess.run(
        shlex.split(command),
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "unrecognized arguments" not in done.stderr and "Invalid choice" not in done.stderr
    assert "iap_tunnel" in done.stderr or "local connection to [stdin]" in done.stderr
