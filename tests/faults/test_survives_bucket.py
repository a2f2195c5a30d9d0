"""A bucket that fails while a run works: the run says so and goes on, and its result is there when the bucket is."""

from __future__ import annotations

from typing import Literal

import pytest

from orchestrator.providers import local_folder
from tests.faults.machines import LocalMachine
from tests.faults.survival import BUCKET, World
from tests.remote.machine import eventually

_REFUSED = "The store can't be written"


@pytest.mark.parametrize("kind", ["503", "stall"])
def test_it_fails_for_a_while(
    kind: Literal["503", "stall"], local: World, local_machine: LocalMachine
) -> None:
    with local_machine.holding(3):
        run_id = local.started()
        local_machine.at_hold(3)
        events = local_machine.run(run_id).events
        with local.bucket.failing(kind):
            local_machine.release(3)
            eventually(lambda: _REFUSED in events.read_text(), within_s=200)
    local.published(run_id)
    assert local.pulled(run_id) == local.undisturbed
    assert _REFUSED in local_machine.run(run_id).events.read_text()


def test_it_forbids_from_the_middle_on(local: World, local_machine: LocalMachine) -> None:
    with local_machine.holding(3):
        follower = local.begin(*local.run("--json"))
        run_id = local_machine.next_run()
        local_machine.at_hold(3)
        run = local_machine.run(run_id)
        with local.bucket.failing("403", on="objects.insert*"):
            local_machine.release(3)
            eventually(lambda: '"metrics"' in run.events.read_text(), within_s=200)
            tried = inserts(local)
            eventually(lambda: inserts(local) > tried + 2, within_s=200)
            assert (run.result / "model/model.safetensors").is_file()
            assert not follower.ended(0), follower.stderr
            assert local.stored(f"runs/{run_id}/MANIFEST.json") is None
    answer = follower.answer(200)
    assert answer.exit_code == 0, answer.stderr
    assert _REFUSED in answer.stderr
    assert local.pulled(run_id) == local.undisturbed


def inserts(user: World) -> int:
    return sum(count for call, count in user.bucket.requests.items() if call.startswith("objects.insert"))


def test_a_checkpoint_in_it_is_damaged(local: World, local_machine: LocalMachine) -> None:
    with local_machine.holding(2, 4):
        run_id = local.started("--recover")
        local_machine.at_hold(2)
        local.checkpoints(run_id, 1)
        local_machine.release(2)
        local_machine.at_hold(4)
        newest, older = local.checkpoints(run_id, 2)
        local_folder.remove(local_machine.folder)
    content = bytearray(local.stored(newest) or b"")
    content[len(content) // 2] ^= 1
    local.bucket.api.buckets.put(BUCKET, newest, bytes(content), {}, {})
    answer = local("attach", run_id, "--json")
    assert answer.document["state"] == "SUCCEEDED"
    assert local.pulled(run_id) == local.undisturbed
    said = (local.folder_of(run_id) / "events.jsonl").read_text()
    assert f"{newest.partition('/')[2].partition('/')[2]} of the store is refused" in said
    assert f"{older.partition('/')[2].partition('/')[2]} of the store is where it goes on from" in said
