"""What is killed on the machine goes on, and ends with the same bits."""

from __future__ import annotations

from tests.faults.machines import LocalMachine
from tests.faults.survival import World


def test_the_training_is_killed(local: World, local_machine: LocalMachine) -> None:
    run_id = local.started()
    local_machine.at_epoch(run_id, 12)
    local_machine.strike(run_id, "training")
    local.published(run_id)
    assert local.pulled(run_id) == local.undisturbed
