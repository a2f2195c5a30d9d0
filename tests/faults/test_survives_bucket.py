"""A bucket that fails while a run works: the run says so and goes on, and its result is there when the bucket is."""

from __future__ import annotations

import time
from typing import Literal

import pytest

from tests.faults.machines import LocalMachine
from tests.faults.scaled import MINUTE_S
from tests.faults.survival import World
from tests.remote.machine import eventually

_REFUSED = "The store can't be written"


@pytest.mark.parametrize("kind", ["503", "stall"])
def test_it_fails_for_a_minute(
    kind: Literal["503", "stall"], local: World, local_machine: LocalMachine
) -> None:
    run_id = local.started()
    local_machine.at_epoch(run_id, 6)
    with local.bucket.failing(kind):
        time.sleep(MINUTE_S)
    local.published(run_id)
    assert local.pulled(run_id) == local.undisturbed
    assert _REFUSED in local_machine.run(run_id).events.read_text()


def test_it_forbids_from_the_middle_on(local: World, local_machine: LocalMachine) -> None:
    follower = local.begin(*local.run("--json"))
    run_id = local_machine.next_run()
    local_machine.at_epoch(run_id, 6)
    run = local_machine.run(run_id)
    with local.bucket.failing("403", on="objects.insert*"):
        eventually(lambda: '"metrics"' in run.events.read_text(), within_s=200)
        time.sleep(MINUTE_S / 6)  # tried again and again
        assert (run.result / "model/model.safetensors").is_file()
        assert not follower.ended(0), follower.stderr
        assert local.stored(f"runs/{run_id}/MANIFEST.json") is None
    answer = follower.answer(200)
    assert answer.exit_code == 0, answer.stderr
    assert _REFUSED in answer.stderr
    assert local.pulled(run_id) == local.undisturbed
