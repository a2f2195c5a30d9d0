"""gce.os_login: the key of this computer goes into the account's profile, and a machine's metadata holds none."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.gce_world import world
from tests.e2e.test_gce_faults import User
from tests.fakes.cloud_services import Project
from tests.fakes.compute_cloud import items
from tests.faults.fork_server import Forked
from tests.faults.ready_machines import ReadyMachines
from tests.faults.standin import draw, furnished
from tests.needs import need


@pytest.fixture
def user(tmp_path: Path) -> Iterator[User]:
    """Logged in as a service account, whose name with OS Login is sa_4711."""
    need("loopback machines")
    bundles = furnished(tmp_path)
    projects: list[Project] = []

    def profiles() -> list[tuple[str, str]]:
        return [("sa_4711", str(entry["key"])) for entry in projects[0].public_keys.values()]

    machines = ReadyMachines(
        tmp_path / "machines", lambda home: (home / ".tlvm/bundles").symlink_to(bundles), profiles
    )
    with Forked(rate=50) as forked, world(tmp_path, machines) as there:
        projects.append(there.cloud.project)
        file = there.cloud.credentials_file(tmp_path)
        yield User(there, forked, {"TLVM_GCE_OS_LOGIN": "true", "TLVM_GCE_CREDENTIALS_FILE": str(file)})


def test_the_whole_way_through_os_login(user: User, tmp_path: Path) -> None:
    there = user.there
    request = user("up", "--dry-run", "--json").document["request"]
    assert there.cloud.project.public_keys == {}  # a dry run changes nothing
    draw(tmp_path / "photos")
    user("upload", tmp_path / "photos")
    user("up")
    told = items(there.inserts()[0]["metadata"])
    assert (told["enable-oslogin"], told["tlvm-user"]) == ("TRUE", "sa_4711")
    assert "ssh-keys" not in told and told.keys() == items(request["body"]["metadata"]).keys()
    (key,) = there.cloud.project.public_keys.values()
    (shown,) = user("status", "--json").document["machines"]
    ends_s = int(there.instances()[0]["labels"]["tlvm-expires"])
    assert abs(int(key["expirationTimeUsec"]) / 1e6 - ends_s) < 60  # the key ends with the machine
    assert shown["machine"]["ssh"]["user"] == "sa_4711"
    assert user("ssh", "--", "echo", "in").stdout == "in\n"
    assert user("run", "fixed-extractor", "--weights", "none", "--json").document["run_id"]
    user("down", "--yes")
    assert there.left_over() == []


def test_another_computer_of_the_account_comes_in_with_a_key_of_its_own(user: User) -> None:
    user("up")
    for folder in (user.there.tlvm.folder / ".tlvm").glob("keys/**/*"):
        if folder.is_file():
            folder.unlink()
    user("up")
    assert len(user.there.cloud.project.public_keys) == 2
    assert user("ssh", "--", "echo", "in").stdout == "in\n"
    user("down", "--yes")
