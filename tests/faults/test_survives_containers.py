"""Faults of a machine that is a container: its SSH server, its disk, its clock; killed and started; killed for good."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from remote.contract.document import decode
from remote.contract.layout import checkpoint_key, latest_checkpoints_key
from remote.contract.stored_checkpoints import LatestCheckpoints
from tests.docker_engine import engine
from tests.e2e.test_main_job import docker_bridge
from tests.faults.machines import DockerMachine
from tests.faults.survival import BUCKET, MACHINE, World, result_in, world
from tests.remote.machine import eventually

pytestmark = pytest.mark.docker

# Python's own clocks; those of the file system stay the kernel's, which no container can set.
_WRONG_CLOCK = """
import datetime, time

SHIFT_S = {hours} * 3600
right = time.time

class Shifted(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return cls.fromtimestamp(time.time(), tz)

    @classmethod
    def utcnow(cls):
        return cls.now(datetime.timezone.utc).replace(tzinfo=None)

time.time = lambda: right() + SHIFT_S
time.time_ns = lambda: int(time.time() * 1e9)
datetime.datetime = Shifted
"""

_WHILE_S = "1.2"  # so short that training does not end meanwhile: it can't write its result then
# Whatever becomes free is taken at once.
_FILLED = """
timeout "$1" sh -c 'while :; do cat /dev/zero >>~/fill; sleep 0.02; done' 2>/dev/null
rm ~/fill
"""


@pytest.fixture(scope="module")
def user(tmp_path_factory: pytest.TempPathFactory, code: Path) -> Iterator[World]:
    """Of the provider `docker`; each test leaves the machine working."""
    with world(tmp_path_factory.mktemp("docker"), code, "docker", epochs=8, address=docker_bridge()) as user:
        yield user


@pytest.fixture(scope="module")
def machine(user: World) -> Iterator[DockerMachine]:
    with engine() as client:
        yield DockerMachine(client, MACHINE)


def test_its_ssh_server_is_restarted(user: World, machine: DockerMachine) -> None:
    follower = user.begin(*user.run("--json"))
    run_id = machine.next_run()
    machine.at_epoch(run_id, 3)
    assert machine.shell("pkill -HUP -o sshd", user="root")[0] == 0
    assert (
        machine.shell("pkill sshd-session")[0] == 0
    )  # what it had begun for others stays, unless it is ended too
    answer = follower.answer(200)
    assert answer.exit_code == 0, answer.stderr
    assert "connecting again" in answer.stderr
    assert user.epochs_in(answer.stderr) == [*range(1, user.epochs + 1)], "a line came twice, or never"
    assert user.pulled(run_id) == user.undisturbed


def test_its_clock_is_an_hour_behind_and_then_ahead(user: World, machine: DockerMachine) -> None:
    machine.set_clock(_WRONG_CLOCK.format(hours=-1))
    run_id = user.started()
    machine.at_epoch(run_id, 3)
    machine.set_clock(_WRONG_CLOCK.format(hours=1))
    machine.strike(run_id, "training")
    user.published(run_id)
    machine.set_clock("")
    assert user.pulled(run_id) == user.undisturbed
    (row,) = [row for row in user("runs", "--json").document["runs"] if row["run_id"] == run_id]
    assert row["state"] == "SUCCEEDED"


def test_it_is_killed_and_started_again(user: World, machine: DockerMachine) -> None:
    run_id = user.started()
    machine.at_epoch(run_id, 3)
    machine.container.kill()
    assert user("attach", run_id, "--json").document["state"] == "SUCCEEDED"
    assert user.pulled(run_id) == user.undisturbed


def test_it_is_killed_and_another_one_made(user: World, machine: DockerMachine) -> None:
    follower = user.begin(*user.run("--recover", "--json"))
    run_id = machine.next_run()
    checkpoints(user, run_id, 3, 1)
    machine.container.remove(force=True)
    answer = follower.answer(200)
    assert answer.exit_code == 0, answer.stderr
    assert "goes on with another machine" in answer.stderr
    assert user.pulled(run_id) == user.undisturbed


def test_a_checkpoint_in_the_bucket_is_damaged(user: World, machine: DockerMachine) -> None:
    run_id = user.started("--recover")
    newest, older = checkpoints(user, run_id, 3, 2)
    machine.container.remove(force=True)
    content = bytearray(user.stored(newest) or b"")
    content[len(content) // 2] ^= 1
    user.bucket.api.buckets.put(BUCKET, newest, bytes(content), {}, {})
    answer = user("attach", run_id, "--json")
    assert answer.document["state"] == "SUCCEEDED"
    assert user.pulled(run_id) == user.undisturbed
    said = (user.folder_of(run_id) / "events.jsonl").read_text()
    assert f"{newest.partition('/')[2].partition('/')[2]} of the store is refused" in said
    assert f"{older.partition('/')[2].partition('/')[2]} of the store is where it goes on from" in said


def checkpoints(user: World, run_id: str, epoch: int, count: int) -> list[str]:
    """The keys of the newest ones in the bucket, as soon as there are so many, the newest of this epoch or a later one."""
    found: list[str] = []

    def came() -> bool:
        text = user.stored(latest_checkpoints_key(run_id))
        if text:
            files = decode(LatestCheckpoints, text, what="LATEST.json").files
            found[:] = [checkpoint_key(run_id, file.name) for file in files]
            return len(files) >= count and files[0].epoch >= epoch
        return False

    eventually(came, within_s=200)
    return found


def test_its_disk_is_full_for_a_while(user: World) -> None:
    small = user.with_machine("tlvm-faults-small")
    small("up")
    try:
        with engine() as client:
            machine = DockerMachine(client, "tlvm-faults-small")
            machine.with_a_small_disk(120)
            run_id = small.started()
            machine.at_epoch(run_id, 2)
            machine.shell(_FILLED, _WHILE_S)
            small.published(run_id)
        folder = small.folder_of(run_id)
    finally:
        small("down", "--force", "--yes")
    assert result_in(folder) == user.undisturbed
    said = (folder / "events.jsonl").read_text()
    assert "events are missing here" in said or "No checkpoint could be written" in said
