"""Who comes in to a machine of the provider `gce`: keys, host keys, and the firewall's rules."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from orchestrator.errors import (
    AuthError,
    ConfigError,
    TransientError,
)
from orchestrator.providers.gce import GceProvider
from orchestrator.providers.gce.firewall import IAP_RANGE
from orchestrator.workflows.machines.gc import gc
from tests.fakes.compute_server import ComputeServer
from tests.fakes.http_service import Answer, HttpService, whole
from tests.orchestrator.gce_cloud import OFFER, PUBLIC_KEY, gce, gce_settings, wanted
from tests.orchestrator.gce_workspace import waiting, workspace

OTHER_KEY = PUBLIC_KEY[:-4] + "AAAA"


def instances(server: ComputeServer) -> list[str]:
    return [name for _, name in server.cloud.resources["instances"]]


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


# An owner with two computers


@pytest.fixture
def whereabouts() -> Iterator[dict[str, str]]:
    """What a service says that tells computers their address: {"url": ..., "address": ...}."""
    told = {"address": "203.0.113.7"}
    with HttpService(whole(lambda _: Answer(body=f"{told['address']}\n".encode()))) as service:
        told["url"] = service.url_at("127.0.0.1")
        yield told
        assert service.errors == []


def comes_from(
    server: ComputeServer, whereabouts: dict[str, str], address: str, computer: str = ""
) -> set[str]:
    """A computer there lets itself in; from where the owner may come by then."""
    whereabouts["address"] = address
    settings = gce_settings(server, ssh_source_ranges=(), address_lookup=whereabouts["url"])
    GceProvider(settings, now=server.clock.now, computer=computer or address).admit("ana")
    rule = server.cloud.resources["firewalls"]["global", "tlvm-ssh-ana"]
    return set(rule["sourceRanges"])


def test_two_computers_of_one_owner_come_in_side_by_side(
    server: ComputeServer, whereabouts: dict[str, str]
) -> None:
    office, home = "203.0.113.7", "198.51.100.9"
    assert comes_from(server, whereabouts, office) == {f"{office}/32"}
    assert comes_from(server, whereabouts, home) == {f"{office}/32", f"{home}/32"}
    writes = server.count("firewalls.patch")
    for address in (office, home, office):
        assert comes_from(server, whereabouts, address) == {f"{office}/32", f"{home}/32"}
    assert server.count("firewalls.patch") == writes == 1


def test_an_address_that_nobody_came_from_for_a_day_is_closed(
    server: ComputeServer, whereabouts: dict[str, str]
) -> None:
    comes_from(server, whereabouts, "203.0.113.7")
    server.clock.advance(20 * 3600)
    comes_from(server, whereabouts, "198.51.100.9")
    server.clock.advance(5 * 3600)
    assert comes_from(server, whereabouts, "198.51.100.10") == {"198.51.100.9/32", "198.51.100.10/32"}


def test_no_more_addresses_than_a_person_has_computers(
    server: ComputeServer, whereabouts: dict[str, str]
) -> None:
    for number in range(10):
        server.clock.advance(60)
        allowed = comes_from(server, whereabouts, f"198.51.100.{number}")
    assert allowed == {f"198.51.100.{number}/32" for number in range(2, 10)}


def test_a_computer_that_moved_leaves_no_address_behind(
    server: ComputeServer, whereabouts: dict[str, str]
) -> None:
    assert comes_from(server, whereabouts, "203.0.113.7", "laptop") == {"203.0.113.7/32"}
    assert comes_from(server, whereabouts, "198.51.100.9", "laptop") == {"198.51.100.9/32"}


def test_networks_that_are_named_take_the_place_of_what_this_computer_looked_up(
    server: ComputeServer, whereabouts: dict[str, str]
) -> None:
    comes_from(server, whereabouts, "203.0.113.7", platform.node())
    gce(server, ssh_source_ranges="192.0.2.0/24").admit("ana")
    rule = server.cloud.resources["firewalls"]["global", "tlvm-ssh-ana"]
    assert rule["sourceRanges"] == ["192.0.2.0/24"]


def test_two_computers_that_name_different_networks_do_not_shut_each_other_out(server: ComputeServer) -> None:
    def comes_in(computer: str, networks: str) -> list[str]:
        settings = gce_settings(server, ssh_source_ranges=networks)
        GceProvider(settings, now=server.clock.now, computer=computer).admit("ana")
        return list(server.cloud.resources["firewalls"]["global", "tlvm-ssh-ana"]["sourceRanges"])

    comes_in("office", "192.0.2.0/24")
    both = ["192.0.2.0/24", "198.51.100.0/25"]
    for computer, networks in (("home", both[1]), ("office", both[0]), ("home", both[1])):
        assert comes_in(computer, networks) == both
    assert server.count("firewalls.patch") == 1
    assert comes_in("home", "198.51.100.128/25") == [both[0], "198.51.100.128/25"]


# What nobody needs any more


def test_rules_are_kept_while_a_machine_may_need_them_and_go_when_none_does(
    server: ComputeServer, tmp_path: Path
) -> None:
    made = workspace(server, tmp_path)
    held = gce(server)
    held.create(wanted(max_hours=4), OFFER)
    writes = server.count("firewalls.insert"), server.count("firewalls.patch")
    gce(server).create(wanted(name="tlvm-ana-more", max_hours=24), OFFER)
    assert (server.count("firewalls.insert"), server.count("firewalls.patch")) == writes == (2, 0)

    def left() -> set[str]:
        result = gc(made, now=server.clock.now(), clock=waiting(server))
        assert result.exit_code == 0
        return {name for _, name in server.cloud.resources["firewalls"] if name.startswith("tlvm")}

    rules = {"tlvm-deny-ssh", "tlvm-ssh-ana"}
    server.clock.advance(25 * 3600)  # both machines are over
    assert left() == rules
    server.clock.advance(7 * 24 * 3600)
    gce(server).create(wanted(name="tlvm-ana-late", max_hours=4), OFFER)
    server.clock.advance(3 * 3600)
    assert left() == rules
    server.clock.advance(8 * 24 * 3600)
    assert left() == set()


def test_a_rule_that_is_needed_again_since_it_was_listed_stays(server: ComputeServer) -> None:
    held = gce(server)
    held.admit("ana", until=server.clock.now())
    server.clock.advance(8 * 24 * 3600)
    (listed,) = [thing for thing in held.account().things() if thing.name == "tlvm-ssh-ana"]
    gce(server).admit("ana", until=server.clock.now() + timedelta(hours=4))
    assert not held.account().remove(listed)
    assert ("global", "tlvm-ssh-ana") in server.cloud.resources["firewalls"]


def test_os_login_needs_an_account_with_a_name(server: ComputeServer) -> None:
    with pytest.raises(AuthError, match="OS Login") as caught:
        gce(server, os_login=True).create(wanted(), OFFER)
    assert "gcloud auth application-default login" in caught.value.next
    assert instances(server) == []


def test_an_os_login_api_that_is_off_is_said_before_anything_is_made(
    server: ComputeServer, tmp_path: Path
) -> None:
    server.project.enabled.discard("oslogin.googleapis.com")
    held = gce(server, os_login=True, credentials_file=str(server.credentials_file(tmp_path)))
    with pytest.raises(AuthError) as caught:
        held.create(wanted(), OFFER)
    assert "gcloud services enable oslogin.googleapis.com" in caught.value.next
    assert instances(server) == [] and server.count("instances.insert") == 0


def test_nobody_is_asked_for_the_address_when_that_is_switched_off(server: ComputeServer) -> None:
    with pytest.raises(ConfigError, match=r"From|from which address"):
        gce(server, ssh_source_ranges=(), address_lookup="").create(wanted(), OFFER)
    assert instances(server) == []


def test_a_machine_without_an_address_needs_gcloud_and_a_way_to_the_bucket(
    server: ComputeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    held = gce(server, iap=True)
    with pytest.raises(ConfigError, match="gcloud"):
        held.offers(wanted())
    (tmp_path / "gcloud").touch(mode=0o755)
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
