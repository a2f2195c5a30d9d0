"""The ledger of looks: written by this computer when it pulls a verified result, once for each run and split."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.errors import AuthError
from orchestrator.progress import Silent
from orchestrator.stores.base import Blob, Store
from orchestrator.workflows.results.looks import keep_looks, looks
from orchestrator.workflows.results.pull import pull
from orchestrator.workflows.workspace import Workspace
from remote.contract.run_spec import DatasetRef
from tests.orchestrator.finished_runs import image, opened, put_dataset, put_run

IMAGES = [image(f"{number}.jpg", label) for number in range(4) for label in ("birch", "oak")]
SHARES = [[0.9, 0.1] if one.class_name == "birch" else [0.2, 0.8] for one in IMAGES]


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return opened(tmp_path)


@pytest.fixture
def trees(workspace: Workspace) -> DatasetRef:
    return put_dataset(workspace, IMAGES)


def test_a_pull_counts_the_look_once(workspace: Workspace, trees: DatasetRef) -> None:
    first = put_run(workspace, "aaaa", trees, IMAGES, SHARES, looked=False)
    assert len(looks(workspace.store, trees.name, trees.version, "test")) == 0
    pull(workspace, first)
    pull(workspace, first)
    second = put_run(workspace, "bbbb", trees, IMAGES, SHARES, looked=False)
    pull(workspace, second)
    seen = looks(workspace.store, trees.name, trees.version, "test")
    assert (seen.of(first), seen.of(second), len(seen)) == (1, 2, 2)


@pytest.mark.parametrize(
    "change",
    [
        ('"chose": "nothing"', '"chose": "the penalty"'),  # they steered the run
        ('"split": "test"', '"split": "../../HEAD"'),
        ('"run_id": "', '"run_id": "of-another-'),
    ],
)
def test_what_is_no_look_is_not_counted(
    workspace: Workspace, trees: DatasetRef, tmp_path: Path, change: tuple[str, str]
) -> None:
    run_id = put_run(workspace, "aaaa", trees, IMAGES, SHARES, looked=False)
    text = (pull(workspace, run_id).folder / "metrics.json").read_text()
    for blob in list(workspace.store.blobs("datasets/trees/looks/")):
        workspace.store.delete(blob.key)
    assert change[0] in text
    (tmp_path / "metrics.json").write_text(text.replace(*change))
    keep_looks(workspace.store, run_id, tmp_path / "metrics.json")
    assert not list(workspace.store.blobs("datasets/trees/looks/"))


def test_a_store_that_refuses_the_look_is_a_warning(workspace: Workspace, trees: DatasetRef) -> None:
    run_id = put_run(workspace, "aaaa", trees, IMAGES, SHARES, looked=False)
    progress = Warnings()
    refusing = Workspace(workspace.settings, progress)
    vars(refusing)["store"] = Refusing(workspace.store)
    assert (pull(refusing, run_id).folder / "metrics.json").is_file()
    (warning,) = progress.texts
    assert run_id in warning and "You may not" in warning


class Warnings(Silent):
    def __init__(self) -> None:
        self.texts: list[str] = []

    def warn(self, text: str) -> None:
        self.texts.append(text)


class Refusing:
    """A store that may be read only."""

    def __init__(self, store: Store) -> None:
        self.url = store.url
        self.get, self.blobs, self.download, self.delete = (
            store.get,
            store.blobs,
            store.download,
            store.delete,
        )

    def upload(self, path: Path, key: str, *, if_generation: int | None = None) -> Blob:
        raise AuthError(f"You may not write {key}")
