"""Several who upload into one dataset: never mixed, nothing of anybody lost, and a conflict where both can't be had."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

import pytest

from orchestrator.errors import ConflictError
from orchestrator.stores import open_store
from orchestrator.stores.base import FREE, Blob, Store, Way
from orchestrator.workflows.data.datasets import resolve, versions_of
from orchestrator.workflows.data.gc import gc
from orchestrator.workflows.data.upload import UploadResult, upload
from orchestrator.workflows.workspace import Workspace
from remote.contract import layout
from remote.contract.run_spec import StoreRef
from tests.orchestrator.pictures import fill, picture
from tests.orchestrator.uploading import BUGS, Recorded, one, place


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return fill(tmp_path / "bugs", BUGS)


def test_two_uploads_at_once_publish_one_whole_version(tmp_path: Path, folder: Path) -> None:
    more = fill(tmp_path / "second/bugs", BUGS)
    fill(more, {"train/ants": 2}, start=700)
    outcomes: list[object] = []

    def run(computer: str, source: Path) -> None:
        try:
            outcomes.append(one(place(tmp_path, computer)[0], source))
        except ConflictError as error:
            outcomes.append(error)

    threads = [threading.Thread(target=run, args=args) for args in (("one", folder), ("two", more))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    done = [outcome for outcome in outcomes if isinstance(outcome, UploadResult)]
    assert done
    _, version, manifest = resolve(place(tmp_path)[0], "bugs")
    assert version in {result.version for result in done}
    if len(done) == 2:  # both succeeded: whoever came second kept the other's
        assert len(manifest.images) == 13


class Overtaken(Recorded):
    """Somebody else publishes just before this one moves HEAD."""

    def __init__(self, store: Store, workspace: Workspace, folder: Path) -> None:
        super().__init__(store)
        self._others: list[tuple[Workspace, Path]] = [(workspace, folder)]

    def upload(self, path: Path, key: str, *, if_generation: int | None = None, way: Way = FREE) -> Blob:
        if key.endswith("HEAD") and self._others:
            workspace, folder = self._others.pop()
            upload(workspace, folder)
        return super().upload(path, key, if_generation=if_generation, way=way)


def overtaken(tmp_path: Path, theirs: Path) -> Workspace:
    workspace, _ = place(tmp_path)
    workspace.store = Overtaken(
        open_store(StoreRef(str(tmp_path / "store"))), place(tmp_path, "two")[0], theirs
    )
    return workspace


def test_overtaken_by_an_addition_it_plans_again_and_keeps_it(tmp_path: Path, folder: Path) -> None:
    theirs = fill(fill(tmp_path / "two/bugs", BUGS), {"train/bees": 1}, start=800)
    fill(folder, {"train/ants": 1}, start=900)
    result = one(overtaken(tmp_path, theirs), folder)
    assert (result.images, result.kept) == (13, 1)


def test_overtaken_by_the_same_it_changed_nothing(tmp_path: Path, folder: Path) -> None:
    theirs = fill(tmp_path / "two/bugs", BUGS)
    result = one(overtaken(tmp_path, theirs), folder)
    assert (result.unchanged, result.images) == (True, 11)


def test_a_version_that_was_overtaken_goes_with_gc(tmp_path: Path, folder: Path) -> None:
    theirs = fill(fill(tmp_path / "two/bugs", BUGS), {"train/bees": 1}, start=800)
    fill(folder, {"train/ants": 1}, start=900)
    workspace = overtaken(tmp_path, theirs)
    newest = one(workspace, folder).version
    (before,) = {layout.manifest_of(key)[1] for key in uploaded_manifests(workspace)} - {newest}
    assert len(versions_of(workspace, "bugs")[0]) == 3  # theirs, ours before we knew of it, and both together
    assert gc(workspace, grace_hours=0).replaced == [f"bugs@{before}"]
    assert len(versions_of(workspace, "bugs")[0]) == 2
    assert one(workspace, folder).version == newest


def test_what_was_published_by_somebody_else_meanwhile_stays_a_version(tmp_path: Path, folder: Path) -> None:
    workspace = overtaken(tmp_path, shutil.copytree(folder, tmp_path / "two/bugs"))
    same = one(workspace, folder).version
    fill(folder, {"train/ants": 1}, start=900)
    newest = one(workspace, folder).version
    assert gc(workspace, grace_hours=0).replaced == []
    assert sorted(versions_of(workspace, "bugs")[0]) == sorted([same, newest])


def uploaded_manifests(workspace: Workspace) -> list[str]:
    assert isinstance(workspace.store, Overtaken)
    return [key for key in workspace.store.uploads if layout.is_manifest_key(key)]


def test_overtaken_by_another_dataset_of_that_name_it_is_a_conflict(tmp_path: Path, folder: Path) -> None:
    theirs = fill(tmp_path / "two/bugs", BUGS, start=5000)
    with pytest.raises(ConflictError, match="shares no image"):
        one(overtaken(tmp_path, theirs), folder)
    assert one(place(tmp_path)[0], folder, replace=True, allow_shrink=True).images == 11


def test_what_others_published_is_kept_and_removals_against_it_need_replace(
    tmp_path: Path, folder: Path
) -> None:
    mine, _ = place(tmp_path)
    one(mine, folder)
    theirs = fill(fill(tmp_path / "two/bugs", BUGS), {"train/bees": 1}, start=800)
    one(place(tmp_path, "two")[0], theirs)
    fill(folder, {"train/ants": 1}, start=900)
    assert one(mine, folder).images == 13
    again = one(mine, folder)
    assert (again.unchanged, again.kept) == (True, 1)  # what others added does not go the next time either
    fill(theirs, {"train/bees": 1}, start=801)
    (folder / "train/ants/0000.png").unlink()
    one(place(tmp_path, "two")[0], theirs)
    with pytest.raises(ConflictError, match="Somebody else published") as error:
        one(mine, folder)
    assert error.value.detail == "gone from this folder: train/ants/0000.png"
    assert one(mine, folder, replace=True).images == 11


def test_a_change_here_and_another_there_is_a_conflict(tmp_path: Path, folder: Path) -> None:
    mine, _ = place(tmp_path)
    one(mine, folder)
    theirs = fill(tmp_path / "two/bugs", BUGS)
    other, _ = place(tmp_path, "two")
    one(other, theirs)
    (theirs / "train/ants/0000.png").write_bytes(picture(901))
    one(other, theirs)
    (folder / "train/ants/0001.png").write_bytes(picture(902))
    assert one(mine, folder).kept == 1
    (theirs / "train/ants/0002.png").write_bytes(picture(903))
    one(other, theirs)
    (folder / "train/ants/0002.png").write_bytes(picture(904))
    with pytest.raises(ConflictError) as error:
        one(mine, folder)
    assert error.value.detail == "changed here and there: train/ants/0002.png"
