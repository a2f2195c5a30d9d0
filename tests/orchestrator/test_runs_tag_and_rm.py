"""Runs are tagged, sorted and removed; what is at work, wanted or somebody else's is not removed by a rule."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from pathlib import Path

import pytest

from orchestrator.errors import ConfigError, ConflictError, NotFoundError
from orchestrator.providers.base import MachineState
from orchestrator.stores.base import Store
from orchestrator.workflows.machines.down import down
from orchestrator.workflows.runs.documents import run_ids
from orchestrator.workflows.runs.notes import notes_of_all, was_removed
from orchestrator.workflows.runs.overview import runs
from orchestrator.workflows.runs.remove import RunsRemoved, remove
from orchestrator.workflows.runs.tag import tag
from orchestrator.workflows.workspace import Workspace
from remote.contract import document, layout
from remote.contract.run_spec import DatasetRef, RunSpec, WeightsRef
from remote.contract.run_status import RunStatus, State
from tests.orchestrator.finished_runs import image, opened, put, put_dataset, put_run
from tests.orchestrator.gce_workspace import Told
from tests.orchestrator.scripted_provider import Scripted, machine_of
from tests.orchestrator.test_datasets_rm import still_at_work

IMAGES = [image("1.jpg", "birch"), image("2.jpg", "oak")]
RIGHT, WRONG = [[0.9, 0.1], [0.2, 0.8]], [[0.1, 0.9], [0.8, 0.2]]
HALF = [[0.9, 0.1], [0.8, 0.2]]
A_MONTH_LATER = datetime(2026, 9, 7, tzinfo=UTC)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    found = opened(tmp_path)
    vars(found)["provider"] = Scripted([])
    return found


@pytest.fixture
def dataset(workspace: Workspace) -> DatasetRef:
    return put_dataset(workspace, IMAGES)


def ended(workspace: Workspace, run_id: str, state: State) -> None:
    status = RunStatus(run_id, state, updated="2026-08-07T14:30:00+00:00", published=True)
    put(workspace, layout.run_key(run_id, "status.json"), document.encode(status).encode())


def change_spec(workspace: Workspace, run_id: str, folder: Path, **fields: object) -> None:
    key, path = layout.run_key(run_id, "spec.json"), folder / "spec.json"
    workspace.store.download(key, path)
    spec = document.decode(RunSpec, path.read_bytes(), what=key)
    put(workspace, key, document.encode(dataclasses.replace(spec, **fields)).encode())  # type: ignore[arg-type]


def keys(store: Store) -> set[str]:
    return {blob.key for blob in store.blobs("")}


def test_tags_and_a_note_are_added_taken_away_and_listed(workspace: Workspace, dataset: DatasetRef) -> None:
    first = put_run(workspace, "k3qz", dataset, IMAGES, RIGHT)
    second = put_run(workspace, "9w2d", dataset, IMAGES, WRONG)
    tag(workspace, "k3qz", add=["paper", "best"], note=" the one of the talk ")
    assert tag(workspace, "k3qz", remove=["best"]).tags == ["paper"]
    assert tag(workspace, second).tags == []
    listed = runs(workspace, tag="paper").runs
    assert [(row.run_id, row.tags, row.note) for row in listed] == [(first, ["paper"], "the one of the talk")]
    assert len(runs(workspace).runs) == 2
    with pytest.raises(NotFoundError, match="No run has the tag 'papers'") as raised:
        runs(workspace, tag="papers")
    assert "'paper'" in raised.value.next
    assert tag(workspace, "k3qz", note="").note == ""


@pytest.mark.parametrize("bad", ["", "two words", "-x", "a/b", "x" * 41, "\x1b[31m"])
def test_what_can_be_no_tag_is_refused(workspace: Workspace, dataset: DatasetRef, bad: str) -> None:
    put_run(workspace, "k3qz", dataset, IMAGES, RIGHT)
    with pytest.raises(ConfigError, match="is not a tag"):
        tag(workspace, "k3qz", add=[bad])
    assert notes_of_all(workspace.store) == {}


def test_two_who_tag_at_once_both_succeed(
    workspace: Workspace, dataset: DatasetRef, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = put_run(workspace, "k3qz", dataset, IMAGES, RIGHT)
    store, between = workspace.store, iter(["other"])

    class Slow:
        """Somebody else writes between our look and our word."""

        def __getattr__(self, name: str) -> object:
            return getattr(store, name)

        def upload(self, path: Path, key: str, *, if_generation: int | None = None) -> object:
            for one in between:
                vars(workspace)["store"] = store
                tag(workspace, run_id, add=[one])
                vars(workspace)["store"] = self
            return store.upload(path, key, if_generation=if_generation)

    vars(workspace)["store"] = Slow()
    assert tag(workspace, run_id, add=["mine"]).tags == ["mine", "other"]


def test_notes_that_cannot_be_read_hide_no_run(workspace: Workspace, dataset: DatasetRef) -> None:
    run_id = put_run(workspace, "k3qz", dataset, IMAGES, RIGHT)
    put(workspace, layout.notes_key(run_id), b"{garbage")
    (row,) = runs(workspace).runs
    assert row.tags == []
    assert "not JSON" in row.note


def test_runs_are_sorted_by_what_is_asked_for(workspace: Workspace, dataset: DatasetRef) -> None:
    half = put_run(workspace, "aaaa", dataset, IMAGES, HALF)
    right = put_run(workspace, "bbbb", dataset, IMAGES, RIGHT)
    wrong = put_run(workspace, "cccc", dataset, IMAGES, WRONG)
    failed = put_run(workspace, "dddd", dataset, IMAGES, RIGHT)
    put(workspace, layout.run_key(failed, "metrics.json"), b"nothing that can be read")
    by_accuracy = runs(workspace, sort="accuracy").runs
    assert [row.run_id for row in by_accuracy] == [right, half, wrong, failed]
    assert [row.accuracy for row in by_accuracy] == [1.0, 0.5, 0.0, None]

    put(workspace, layout.checkpoints_prefix(half) + "1.safetensors", b"x" * 100_000)
    by_size = runs(workspace, sort="size").runs
    assert by_size[0].run_id == half
    taken = sum(blob.size for blob in workspace.store.blobs(layout.run_key(half))) + 100_000
    assert by_size[0].bytes == taken


def test_a_run_goes_with_everything_it_has_and_nothing_else(
    workspace: Workspace, dataset: DatasetRef
) -> None:
    stays = put_run(workspace, "k3qz", dataset, IMAGES, RIGHT)
    before = keys(workspace.store)
    goes = put_run(workspace, "9w2d", dataset, IMAGES, WRONG, looked=False)
    put(workspace, layout.checkpoints_prefix(goes) + "1.safetensors", b"weights")
    tag(workspace, goes, add=["old"])
    result = remove(workspace, ["9w2d"])
    assert result == RunsRemoved([goes], files=8, bytes=result.bytes)
    assert result.bytes > 0
    assert keys(workspace.store) == before
    assert run_ids(workspace.store) == [stays]


def test_a_removal_that_was_cut_off_is_completed_by_the_next(
    workspace: Workspace, dataset: DatasetRef
) -> None:
    run_id = put_run(workspace, "k3qz", dataset, IMAGES, RIGHT, looked=False)
    before = keys(workspace.store) - {blob.key for blob in workspace.store.blobs(layout.run_key(run_id))}
    deletions = len(keys(workspace.store)) - len(before)
    store = workspace.store
    for left in range(deletions):
        run_id = put_run(workspace, "k3qz", dataset, IMAGES, RIGHT, looked=False)

        class Cut:
            left_to_do = left

            def __getattr__(self, name: str) -> object:
                return getattr(store, name)

            def delete(self, key: str, *, if_generation: int | None = None) -> None:
                if self.left_to_do == 0:
                    raise KeyboardInterrupt
                self.left_to_do -= 1
                store.delete(key, if_generation=if_generation)

        vars(workspace)["store"] = Cut()
        with pytest.raises(KeyboardInterrupt):
            remove(workspace, [run_id])
        vars(workspace)["store"] = store
        remove(workspace, [run_id])
        assert keys(store) == before


def test_saying_no_and_a_dry_run_remove_nothing(workspace: Workspace, dataset: DatasetRef) -> None:
    put_run(workspace, "k3qz", dataset, IMAGES, RIGHT)
    before, asked = keys(workspace.store), []

    def no(question: str) -> bool:
        asked.append(question)
        return False

    assert not remove(workspace, ["k3qz"], confirm=no).removed
    assert asked == ["1 run: k3qz. Remove them from the store?"]
    assert not remove(workspace, ["k3qz"], dry_run=True).removed
    assert keys(workspace.store) == before


def test_runs_that_began_with_its_model_are_named(
    workspace: Workspace, dataset: DatasetRef, tmp_path: Path
) -> None:
    first = put_run(workspace, "k3qz", dataset, IMAGES, RIGHT)
    second = put_run(workspace, "9w2d", dataset, IMAGES, RIGHT)
    begins = WeightsRef(f"run {first}", "a" * 64, layout.run_key(first, "model/model.safetensors"))
    change_spec(workspace, second, tmp_path, weights=begins)
    assert remove(workspace, [first], dry_run=True).needed_by == [second]
    assert remove(workspace, [first, second], dry_run=True).needed_by == []


def test_by_age_and_state_only_what_is_over_mine_and_not_kept_goes(
    workspace: Workspace, dataset: DatasetRef, tmp_path: Path
) -> None:
    good = put_run(workspace, "good", dataset, IMAGES, RIGHT)
    kept = put_run(workspace, "kept", dataset, IMAGES, RIGHT)
    tag(workspace, kept, add=["keep"])
    bad = put_run(workspace, "badd", dataset, IMAGES, RIGHT)
    ended(workspace, bad, "FAILED")
    of_bob = put_run(workspace, "bobs", dataset, IMAGES, RIGHT)
    change_spec(workspace, of_bob, tmp_path, owner="bob")
    ended(workspace, of_bob, "FAILED")
    only_there = put_run(workspace, "only", dataset, IMAGES, RIGHT)
    status = RunStatus(only_there, "SUCCEEDED", updated="2026-08-07T14:30:00+00:00")
    put(workspace, layout.run_key(only_there, "status.json"), document.encode(status).encode())

    def meant(**rules: object) -> tuple[set[str], list[str]]:
        found = remove(workspace, [], dry_run=True, now=A_MONTH_LATER, **rules)  # type: ignore[arg-type]
        return set(found.run_ids), found.kept

    assert meant(older_than_days=30) == ({good, bad}, [kept])
    assert meant(older_than_days=32) == (set(), [])
    assert meant(failed=True) == ({bad}, [])


def test_what_is_at_work_is_cancelled_first(workspace: Workspace, dataset: DatasetRef) -> None:
    run_id = put_run(workspace, "k3qz", dataset, IMAGES, RIGHT)
    machine = still_at_work(workspace, run_id)
    assert machine.there
    with pytest.raises(ConflictError, match="running"):
        remove(workspace, [run_id])
    assert remove(workspace, [], older_than_days=0, now=A_MONTH_LATER).run_ids == []
    assert run_ids(workspace.store) == [run_id]


def test_a_run_of_somebody_else_needs_force(
    workspace: Workspace, dataset: DatasetRef, tmp_path: Path
) -> None:
    run_id = put_run(workspace, "k3qz", dataset, IMAGES, RIGHT)
    change_spec(workspace, run_id, tmp_path, owner="bob")
    with pytest.raises(ConflictError, match="belongs to bob"):
        remove(workspace, ["k3qz"])
    remove(workspace, ["k3qz"], force=True)
    assert run_ids(workspace.store) == []


def test_which_runs_must_be_said(workspace: Workspace) -> None:
    with pytest.raises(ConfigError, match="Which runs"):
        remove(workspace, [])
    with pytest.raises(ConfigError, match="not both"):
        remove(workspace, ["k3qz"], failed=True)


def test_a_machine_is_not_kept_for_a_run_that_was_removed(workspace: Workspace, dataset: DatasetRef) -> None:
    run_id = put_run(workspace, "k3qz", dataset, IMAGES, RIGHT)
    machine = machine_of("tlvm-ana-bees", state=MachineState.RUNNING, owner=workspace.settings.owner_label)
    provider = Scripted([])
    provider.there[machine.name] = machine
    vars(workspace)["provider"] = provider
    remove(workspace, [run_id])
    assert run_ids(workspace.store) == []
    assert was_removed(workspace.store, run_id)

    other = put_run(workspace, "9w2d", dataset, IMAGES, RIGHT)
    told = workspace.progress = Told()
    ended = down(workspace, also=[run_id, other])
    assert ended.deleted and ended.runs == [other]
    assert [line for line in told.lines if line.startswith("verify")] == [
        "verify runs of tlvm-ana-bees, file by file: 1"
    ], "as many as are said to be verified"
    with pytest.raises(ConflictError, match="a result is not in the store"):
        provider.there[machine.name] = machine
        down(workspace, also=["fixed-extractor-20260807-142530-p0ax"])
