"""Packs that no version names go, after a while; no upload loses one, wherever the other stops for a moment."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from orchestrator.config import load
from orchestrator.datasets.packs import condemned
from orchestrator.datasets.packs.collect import Collected, collect
from orchestrator.errors import ConflictError, DataError, NotFoundError
from orchestrator.stores import open_store
from orchestrator.stores.base import FREE, Begun, Blob, Store, Way
from orchestrator.workflows.data.datasets import datasets, resolve
from orchestrator.workflows.data.diff import diff
from orchestrator.workflows.data.gc import gc
from orchestrator.workflows.data.remove import remove
from orchestrator.workflows.data.show import show
from orchestrator.workflows.data.upload import upload
from orchestrator.workflows.workspace import Workspace
from remote.contract import layout
from remote.contract.run_spec import StoreRef
from tests.orchestrator.pictures import fill

DAY_S = 24 * 3600.0
BUGS = {"train/ants": 3, "train/bees": 3, "val/ants": 1, "val/bees": 1}


class Paused:
    """A store that does something else once, before the request of a given number."""

    def __init__(self, store: Store, at: int, act: Callable[[], object]) -> None:
        self.url = store.url
        self._store = store
        self._left = at
        self._act = act
        self.requests = 0

    def _step(self) -> Store:
        self.requests += 1
        self._left -= 1
        if self._left == 0:
            self._act()
        return self._store

    def get(self, key: str) -> Blob | None:
        return self._step().get(key)

    def blobs(self, prefix: str, *, delimiter: str | None = None, match: str | None = None) -> Iterator[Blob]:
        return iter(list(self._step().blobs(prefix, delimiter=delimiter, match=match)))

    def folders(self, prefix: str) -> Iterator[str]:
        return iter(list(self._step().folders(prefix)))

    def upload(self, path: Path, key: str, *, if_generation: int | None = None, way: Way = FREE) -> Blob:
        return self._step().upload(path, key, if_generation=if_generation, way=way)

    def download(self, key: str, path: Path, *, start: int = 0, begun: Begun | None = None) -> None:
        self._step().download(key, path, start=start, begun=begun)

    def delete(self, key: str, *, if_generation: int | None = None) -> None:
        self._step().delete(key, if_generation=if_generation)


def place(tmp_path: Path, computer: str = "one") -> Workspace:
    workspace = Workspace(load({}, environ={"TLVM_DATA_DIR": str(tmp_path / computer)}, folder=tmp_path))
    workspace.store = open_store(StoreRef(str(tmp_path / "store")))
    return workspace


def abandoned(tmp_path: Path) -> tuple[Path, Workspace]:
    """A store whose only pack was condemned a day ago, since the dataset was removed; and the folder it came from."""
    folder = fill(tmp_path / "bugs", BUGS)
    workspace = place(tmp_path)
    upload(workspace, folder)
    remove(workspace, "bugs")
    assert len(collect(workspace.store, now=0).condemned) == 1
    return folder, place(tmp_path, "two")


def whole(workspace: Workspace, folder: Path, scratch: Path) -> None:
    """Every image of the newest version is in the store, byte for byte."""
    images = resolve(workspace, None)[2].images
    assert len(images) == sum(BUGS.values())
    for pack in {image.pack for image in images}:
        workspace.store.download(layout.pack_key(pack), scratch / pack)
    for image in images:
        data = (scratch / image.pack).read_bytes()[image.offset : image.offset + image.size]
        assert data == (folder / image.path).read_bytes()


def packs(store: Store) -> list[str]:
    return [blob.key for blob in store.blobs(layout.PACKS) if blob.key.endswith(".tar")]


@pytest.mark.parametrize("grace_hours", [24.0, 0.0])
def test_gc_at_every_step_of_an_upload(tmp_path: Path, grace_hours: float) -> None:
    at, more = 0, True
    while more:
        at += 1
        root = tmp_path / str(at)
        folder, workspace = abandoned(root)
        store = workspace.store
        paused = Paused(store, at, partial(collect, store, now=DAY_S + 1, grace_hours=grace_hours))
        workspace.store = paused
        upload(workspace, folder)
        workspace.store = store
        (root / "scratch").mkdir()
        whole(workspace, folder, root / "scratch")
        more = paused.requests >= at
    assert at > 8


def test_an_upload_at_every_step_of_gc(tmp_path: Path) -> None:
    at, more = 0, True
    while more:
        at += 1
        root = tmp_path / str(at)
        folder, workspace = abandoned(root)
        paused = Paused(workspace.store, at, partial(upload, workspace, folder))
        collect(paused, now=DAY_S + 1)
        more = paused.requests >= at
        if not more:
            break
        (root / "scratch").mkdir()
        whole(workspace, folder, root / "scratch")
        collect(workspace.store, now=3 * DAY_S)
        whole(workspace, folder, root / "scratch")
    assert at > 8


def test_a_pack_goes_only_when_it_was_unnamed_for_a_while(tmp_path: Path) -> None:
    folder = fill(tmp_path / "bugs", BUGS)
    workspace = place(tmp_path)
    upload(workspace, folder)
    store = workspace.store

    def counts(found: Collected) -> tuple[int, int]:
        return len(found.deleted), len(found.condemned)

    assert counts(collect(store, now=0)) == (0, 0)
    remove(workspace, "bugs")
    assert counts(collect(store, now=0, dry_run=True)) == (0, 1)
    assert condemned.load(store)[1] == 0  # a dry run writes nothing
    assert counts(collect(store, now=0)) == (0, 1)
    assert counts(collect(store, now=DAY_S - 1)) == (0, 1)
    assert counts(collect(store, now=DAY_S, dry_run=True)) == (1, 0)
    assert len(packs(store)) == 1
    assert counts(collect(store, now=DAY_S)) == (1, 0)
    assert packs(store) == []
    assert condemned.load(store)[0].packs == {}
    assert counts(collect(store, now=DAY_S)) == (0, 0)


def test_a_gc_that_was_killed_is_finished_by_the_next(tmp_path: Path) -> None:
    class Killed(Exception):
        pass

    def kill() -> None:
        raise Killed

    for at in range(1, 30):
        _, workspace = abandoned(tmp_path / str(at))
        try:
            collect(Paused(workspace.store, at, kill), now=DAY_S + 1)
        except Killed:
            collect(workspace.store, now=DAY_S + 2)
            assert packs(workspace.store) == []
        else:
            assert at > 8
            return


def test_nothing_is_deleted_when_a_version_can_not_be_read(tmp_path: Path) -> None:
    _, workspace = abandoned(tmp_path)
    (version,) = [result.version for result in upload(workspace, fill(tmp_path / "other", BUGS, start=100))]
    (tmp_path / "junk").write_bytes(b"junk")
    workspace.store.upload(tmp_path / "junk", layout.manifest_key("other", version))
    with pytest.raises(DataError, match="can't be read"):
        collect(workspace.store, now=DAY_S + 1)
    assert len(packs(workspace.store)) == 2


def test_versions_are_shown_compared_and_removed(tmp_path: Path) -> None:
    folder = fill(tmp_path / "bugs", BUGS)
    workspace = place(tmp_path)
    (first,) = upload(workspace, folder)
    fill(folder, {"train/ants": 2}, start=50)
    (folder / "train/bees/0003.png").rename(folder / "train/ants/0003.png")
    (folder / "val/ants/0006.png").unlink()
    fill(folder, {"val/ants": 1}, start=70)
    (second,) = upload(workspace, folder)
    found = diff(workspace, f"bugs@{first.version[:8]}", "bugs")
    assert found.added == ["train/ants/0050.png", "train/ants/0051.png", "val/ants/0070.png"]
    assert found.removed == ["val/ants/0006.png"]
    assert found.moved == [["train/bees/0003.png", "train/ants/0003.png"]]
    assert diff(workspace, "bugs", "bugs").new_bytes == 0
    backwards = diff(workspace, "bugs", first.version[:8])
    assert (backwards.removed, backwards.added) == (found.added, found.removed)
    shown = show(workspace, "bugs", first.version[:8])
    assert (shown.images, shown.newest, len(shown.versions)) == (8, False, 2)
    assert shown.longer_sides == {"up to 32": 8}
    with pytest.raises(ConflictError, match="is the newest version"):
        remove(workspace, "bugs", second.version)
    assert remove(workspace, "bugs", first.version[:8]).versions == [first.version]
    with pytest.raises(NotFoundError):
        show(workspace, "bugs", first.version)
    assert show(workspace, None).version == second.version
    assert gc(workspace).deleted == []
    assert remove(workspace, "bugs").all_of_it
    assert datasets(workspace) == []
    with pytest.raises(NotFoundError, match="no dataset bugs"):
        remove(workspace, "bugs")
