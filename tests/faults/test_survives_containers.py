"""Faults of a machine that is a container: its SSH server, its disk; killed and started; killed for good."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docker_engine import engine
from tests.e2e.test_main_job import docker_bridge
from tests.faults.machines import DockerMachine
from tests.faults.survival import MACHINE, World, result_in, world
from tests.remote.machine import eventually

pytestmark = pytest.mark.docker


@pytest.fixture(scope="module")
def user(tmp_path_factory: pytest.TempPathFactory, code: Path) -> Iterator[World]:
    """Of the provider `docker`; each test leaves the machine working."""
    with world(tmp_path_factory.mktemp("docker"), code, "docker", epochs=6, address=docker_bridge()) as user:
        yield user


@pytest.fixture(scope="module")
def machine(user: World) -> Iterator[DockerMachine]:
    with engine() as client:
        yield DockerMachine(client, MACHINE)


def test_its_ssh_server_is_restarted(user: World, machine: DockerMachine) -> None:
    with machine.holding(3):
        follower = user.begin(*user.run("--json"))
        run_id = machine.next_run()
        machine.at_hold(3)
        eventually(lambda: "epoch 3 of" in follower.stderr, within_s=60)
        assert machine.shell("pkill -HUP -o sshd", user="root")[0] == 0
        # What it had begun for others stays, unless it is ended too.
        assert machine.shell("pkill sshd-session")[0] == 0
        eventually(lambda: "connecting again" in follower.stderr, within_s=60)
    answer = follower.answer(200)
    assert answer.exit_code == 0, answer.stderr
    assert user.epochs_in(answer.stderr) == [*range(1, user.epochs + 1)], "a line came twice, or never"
    assert user.pulled(run_id) == user.undisturbed


def test_it_is_killed_and_started_again(user: World, machine: DockerMachine) -> None:
    with machine.holding(3):
        run_id = user.started()
        machine.at_hold(3)
        machine.container.kill()
    assert user("attach", run_id, "--json").document["state"] == "SUCCEEDED"
    assert user.pulled(run_id) == user.undisturbed


def test_it_is_killed_and_another_one_made(user: World, machine: DockerMachine) -> None:
    with machine.holding(3):
        follower = user.begin(*user.run("--recover", "--json"))
        run_id = machine.next_run()
        machine.at_hold(3)
        user.checkpoints(run_id, 1)
        machine.container.remove(force=True)
        answer = follower.answer(200)
    assert answer.exit_code == 0, answer.stderr
    assert "goes on with another machine" in answer.stderr
    assert user.pulled(run_id) == user.undisturbed


def test_its_disk_is_full_while_it_trains_and_again_at_the_end(user: World) -> None:
    last = user.epochs - 1
    name = f"{MACHINE}-small"
    small = user.with_machine(name)
    small("up")
    try:
        with engine() as client:
            machine = DockerMachine(client, name)
            machine.with_a_small_disk(250)
            with machine.holding(2, 4, last):
                run_id = small.started()
                machine.at_hold(2)
                machine.fill()
                machine.release(2)
                machine.at_hold(4)
                machine.empty()
                machine.release(4)
                machine.at_hold(last)
                machine.fill()
            eventually(lambda: not machine.trains(run_id), within_s=200)
            machine.empty()
            small.published(run_id)
        folder = small.folder_of(run_id)
    finally:
        small("down", "--force", "--yes")
    assert result_in(folder) == user.undisturbed
    said = (folder / "events.jsonl").read_text()
    assert "events are missing here" in said or "No checkpoint could be written" in said
    assert "There is room again" in said
