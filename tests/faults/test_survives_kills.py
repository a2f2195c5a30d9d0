"""What is killed on the machine, or on the laptop, goes on and ends with the same bits."""

from __future__ import annotations

import random

from tests.faults.machines import LocalMachine
from tests.faults.survival import World
from tests.remote.machine import eventually

_SEED = 20261122


def test_the_training_is_killed(local: World, local_machine: LocalMachine) -> None:
    with local_machine.holding(4):
        run_id = local.started()
        local_machine.at_hold(4)
        local_machine.strike(run_id, "training")
    local.published(run_id)
    assert local.pulled(run_id) == local.undisturbed


def test_the_supervisor_is_killed_while_somebody_follows(local: World, local_machine: LocalMachine) -> None:
    with local_machine.holding(3):
        follower = local.begin(*local.run("--json"))
        run_id = local_machine.next_run()
        local_machine.at_hold(3)
        local_machine.strike(run_id, "supervisor")
    answer = follower.answer(200)
    assert answer.exit_code == 0, answer.stderr
    assert local.epochs_in(answer.stderr) == [*range(1, local.epochs + 1)]
    assert local.pulled(run_id) == local.undisturbed


def test_both_are_killed_and_somebody_comes_back_later(local: World, local_machine: LocalMachine) -> None:
    with local_machine.holding(4):
        run_id = local.started()
        local_machine.at_hold(4)
        local_machine.strike(run_id, "supervisor", "training")
    eventually(lambda: not local_machine.is_active(run_id))
    answer = local("attach", run_id, "--json")
    assert answer.document["state"] == "SUCCEEDED"
    assert local.pulled(run_id) == local.undisturbed


def test_the_command_is_killed_at_random_moments(local: World, local_machine: LocalMachine) -> None:
    moments = sorted(random.Random(_SEED).sample(range(1, local.epochs), 3))
    with local_machine.holding(*moments):
        follower = local.begin(*local.run("--json"))
        run_id = local_machine.next_run()
        for epoch in moments:
            local_machine.at_hold(epoch)
            follower.kill()
            follower = local.begin("attach", run_id, "--json")
            local_machine.release(epoch)
    answer = follower.answer(200)
    assert answer.exit_code == 0, answer.stderr
    assert local.epochs_in(answer.stderr) == [*range(1, local.epochs + 1)]
    assert local.pulled(run_id) == local.undisturbed


def test_two_follow_and_one_cancels(local: World, local_machine: LocalMachine) -> None:
    with local_machine.holding(2):
        follower = local.begin(*local.run("--json"))
        run_id = local_machine.next_run()
        other = local.begin("attach", run_id)
        next_id = local.started()
        local_machine.at_hold(2)
        eventually(lambda: "epoch 2 of" in other.stderr, within_s=60)
        assert local("cancel", run_id, "--json").document["state"] == "CANCELLED"
    for job in (follower, other):
        answer = job.answer(200)
        assert answer.exit_code == 9 and "was cancelled" in answer.stderr, answer.stderr
    local.published(next_id)
    assert local.pulled(next_id) == local.undisturbed
