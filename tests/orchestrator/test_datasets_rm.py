"""Removing a version says which runs name it; a run that is not finished keeps its images."""

from __future__ import annotations

import io
from datetime import UTC, datetime
from pathlib import Path

import pytest

from orchestrator.errors import ConflictError
from orchestrator.providers.base import MachineState
from orchestrator.render.console import Screen
from orchestrator.render.dataset_versions import removed
from orchestrator.workflows.data.datasets import datasets, resolve, versions_of
from orchestrator.workflows.data.remove import remove
from orchestrator.workflows.workspace import Workspace
from remote.contract import document, layout
from remote.contract.run_spec import DatasetRef
from remote.contract.run_status import RunStatus
from tests.orchestrator.finished_runs import image, opened, put, put_dataset, put_run
from tests.orchestrator.scripted_provider import Scripted, machine_of

_BEFORE = datetime(2026, 8, 7, tzinfo=UTC)  # their runs are of a day in August
SHARES = [[0.9, 0.1], [0.2, 0.8]]


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return opened(tmp_path)


def two_versions(workspace: Workspace) -> tuple[DatasetRef, DatasetRef]:
    images = [image("1.jpg", "birch"), image("2.jpg", "oak")]
    return put_dataset(workspace, images), put_dataset(workspace, [*images, image("3.jpg", "oak")])


def run_on(workspace: Workspace, dataset: DatasetRef, tail: str) -> str:
    return put_run(workspace, tail, dataset, [image("1.jpg", "birch"), image("2.jpg", "oak")], SHARES)


def still_at_work(workspace: Workspace, run_id: str) -> Scripted:
    status = RunStatus(run_id, "RUNNING", updated="2026-08-07T14:30:00+00:00")
    put(workspace, layout.run_key(run_id, "status.json"), document.encode(status).encode())
    provider = Scripted([])
    provider.there["tlvm-ana-bees"] = machine_of(
        "tlvm-ana-bees", state=MachineState.RUNNING, owner="bob", created=_BEFORE
    )
    vars(workspace)["provider"] = provider
    return provider


def test_finished_runs_are_named_in_the_question_and_the_result(workspace: Workspace) -> None:
    old, new = two_versions(workspace)
    runs = [run_on(workspace, old, "k3qz"), run_on(workspace, old, "9w2d"), run_on(workspace, new, "p0ax")]
    asked: list[str] = []

    def no(question: str) -> bool:
        asked.append(question)
        return False

    assert not remove(workspace, "trees", old.version, confirm=no).removed
    assert asked == [
        "2 runs name it and can't be repeated then: 9w2d, k3qz. "
        f"Remove version {old.version[:12]} of the dataset trees?"
    ]
    assert sorted(versions_of(workspace, "trees")[0]) == sorted([old.version, new.version])
    result = remove(workspace, "trees", old.version)
    assert sorted(result.named_by) == sorted(runs[:2])
    out = io.StringIO()
    removed(Screen(out, io.StringIO()), result)
    assert "runs    that name it can't be repeated: 9w2d, k3qz\n" in out.getvalue()
    assert (
        len(resolve(workspace, "trees", new.version)[2].images) == 3
    )  # what the third run names stays readable


def test_a_run_that_is_not_finished_keeps_its_version(workspace: Workspace) -> None:
    old, new = two_versions(workspace)
    run_id = run_on(workspace, old, "k3qz")
    provider = still_at_work(workspace, run_id)
    for version in (old.version, None):
        with pytest.raises(ConflictError, match="1 run on it is not finished") as raised:
            remove(workspace, "trees", version)
        assert raised.value.detail == f"{run_id}: running"
        assert "tlvm logs -f k3qz" in raised.value.next and "--force" in raised.value.next
    assert sorted(versions_of(workspace, "trees")[0]) == sorted([old.version, new.version])
    provider.there.clear()  # a run that is lost waits for nothing
    assert remove(workspace, "trees", old.version).named_by == [run_id]


def test_force_removes_it_all_the_same(workspace: Workspace) -> None:
    old, _ = two_versions(workspace)
    run_id = run_on(workspace, old, "k3qz")
    still_at_work(workspace, run_id)
    assert remove(workspace, "trees", force=True).named_by == [run_id]
    assert datasets(workspace) == []
