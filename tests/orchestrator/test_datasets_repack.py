"""Packs that are mostly dead, or small and many, are packed anew by `gc`; every image stays where a version says."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from orchestrator.datasets.packs.collect import GRACE_HOURS, Collected, collect
from orchestrator.datasets.packs.small import SMALL_MAX
from orchestrator.errors import DataError, NotFoundError
from orchestrator.stores.base import Store
from orchestrator.workflows.data.datasets import resolve
from orchestrator.workflows.data.diff import diff
from orchestrator.workflows.data.gc import gc
from orchestrator.workflows.data.remove import remove
from orchestrator.workflows.data.show import show
from orchestrator.workflows.data.upload import UploadResult, upload
from orchestrator.workflows.results.looks import looks
from orchestrator.workflows.workspace import Workspace
from remote.contract import document, layout
from remote.contract.run_spec import DatasetRef
from tests.documents import run_spec
from tests.orchestrator.pictures import fill
from tests.orchestrator.test_datasets_gc import DAY_S, Paused, packs, place

BUGS = {"train/ants": 9, "train/bees": 9, "val/ants": 2, "val/bees": 2}
LEFT = 8


def no_runs() -> set[tuple[str, str]]:
    return set()


def collected(
    store: Store, *, now: float = DAY_S, grace_hours: float = GRACE_HOURS, dry_run: bool = False
) -> Collected:
    return collect(store, now=now, grace_hours=grace_hours, dry_run=dry_run, named_by_runs=no_runs)


@pytest.fixture
def tmp_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """In memory where there is such a place: each of some hundred steps flushes dozens of files to the disk."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else tmp_path) as folder:
        (Path(folder) / "scratch").mkdir()
        monkeypatch.setattr(tempfile, "tempdir", f"{folder}/scratch")
        yield Path(folder)


def sent(workspace: Workspace, folder: Path) -> UploadResult:
    (result,) = upload(workspace, folder, allow_shrink=True, processes=0)
    return result


def steps(tmp_path: Path) -> Iterator[tuple[int, Path, Workspace]]:
    """`wasted`, as it was, for each step anew: the step, the folder and the workspace."""
    made, root = tmp_path / "made", tmp_path / "now"
    wasted(root)
    root.rename(made)
    for at in range(1, 200):
        shutil.rmtree(root, ignore_errors=True)
        shutil.copytree(made, root)
        yield at, root / "bugs", place(root)


def wasted(tmp_path: Path) -> tuple[Path, Workspace]:
    """A dataset whose only version names less than half of its only pack, and its folder."""
    folder = fill(tmp_path / "bugs", BUGS)
    workspace = place(tmp_path)
    first = sent(workspace, folder)
    for label in ("ants", "bees"):
        for path in sorted((folder / "train" / label).iterdir())[2:]:
            path.unlink()
    sent(workspace, folder)
    remove(workspace, "bugs", first.version)
    return folder, workspace


def whole(workspace: Workspace, folder: Path, scratch: Path, version: str | None = None) -> int:
    """Every image of a version is in the store, byte for byte; how many."""
    scratch.mkdir(parents=True, exist_ok=True)
    images = resolve(workspace, "bugs", version)[2].images
    for pack in {image.pack for image in images}:
        workspace.store.download(layout.pack_key(pack), scratch / pack)
    for image in images:
        data = (scratch / image.pack).read_bytes()[image.offset : image.offset + image.size]
        assert data == (folder / image.path).read_bytes()
    return len(images)


def run_of(workspace: Workspace, version: str, scratch: Path) -> None:
    """A run in the store that names a version."""
    spec = run_spec(dataset=DatasetRef("bugs", version), store=workspace.settings.store_ref)
    document.write(scratch / "spec.json", spec)
    workspace.store.upload(scratch / "spec.json", layout.run_key(spec.run_id, "spec.json"))


def test_a_pack_that_is_mostly_dead_is_packed_anew_and_goes_in_three_days(tmp_path: Path) -> None:
    folder, workspace = wasted(tmp_path)
    store = workspace.store
    before = resolve(workspace, "bugs")[1]
    (old,) = packs(store)
    (planned,) = collected(store, dry_run=True).repacked
    assert (planned.before, planned.version, len(packs(store))) == (before, "", 1)
    (done,) = collected(store).repacked
    assert [use.pack for use in done.packs] == [old[len(layout.PACKS) : -4]]
    assert resolve(workspace, "bugs")[1] == done.version != before
    assert (
        whole(workspace, folder, tmp_path / "new")
        == whole(workspace, folder, tmp_path / "old", before)
        == LEFT
    )
    found = diff(workspace, f"bugs@{before}", "bugs")
    assert not (found.added or found.removed or found.changed or found.moved)
    again = collected(store, now=DAY_S + 1)
    assert (again.repacked, len(again.wasteful), again.replaced, again.deleted) == ([], 1, [], [])
    day_two = collected(store, now=2 * DAY_S)
    assert (day_two.replaced, len(day_two.condemned)) == ([f"bugs@{before}"], 1)
    with pytest.raises(NotFoundError):
        show(workspace, "bugs", before)
    day_three = collected(store, now=3 * DAY_S)
    assert f"packs/{day_three.deleted[0].pack}.tar" == old
    assert old not in packs(store)
    assert whole(workspace, folder, tmp_path / "after") == LEFT


def test_an_upload_after_it_sends_nothing_and_may_remove_an_image(tmp_path: Path) -> None:
    folder, workspace = wasted(tmp_path)
    collected(workspace.store)
    same = sent(workspace, folder)
    assert (same.version, same.packs_sent) == (resolve(workspace, "bugs")[1], 0)
    fresh = fill(folder, {"train/ants": 1}, start=300)
    collected(workspace.store, now=2 * DAY_S)
    next(iter(sorted((fresh / "train/bees").iterdir()))).unlink()
    after = sent(workspace, folder)  # no conflict: who packed anew changed no image
    assert (after.added, after.removed, after.images) == (1, 1, LEFT)


def test_a_version_that_a_run_names_stays(tmp_path: Path) -> None:
    folder, workspace = wasted(tmp_path)
    before = resolve(workspace, "bugs")[1]
    run_of(workspace, before, tmp_path)
    found = gc(workspace, grace_hours=0)
    assert (found.repacked, len(found.wasteful)) == ([], 1)
    workspace.store.delete(layout.run_key("fixed-extractor-20260807-142530-k3qz", "spec.json"))
    assert len(gc(workspace, grace_hours=0).repacked) == 1
    run_of(workspace, before, tmp_path)  # it began just before
    assert gc(workspace, grace_hours=0).replaced == []
    assert whole(workspace, folder, tmp_path / "old", before) == LEFT
    (tmp_path / "spec.json").write_text("junk")
    key = layout.run_key("fixed-extractor-20260807-142530-k3qz", "spec.json")
    workspace.store.upload(tmp_path / "spec.json", key)
    assert gc(workspace, grace_hours=0).replaced == []  # nobody knows what it names


def test_packs_of_old_versions_are_no_waste_that_can_be_saved(tmp_path: Path) -> None:
    folder = fill(tmp_path / "bugs", BUGS)
    workspace = place(tmp_path)
    sent(workspace, folder)
    for path in sorted(folder.glob("train/*/*"))[2:-2]:
        path.unlink()
    sent(workspace, folder)
    found = collected(workspace.store)
    assert (found.repacked, found.wasteful, found.condemned) == ([], [], [])


def test_many_small_packs_become_one(tmp_path: Path) -> None:
    folder = fill(tmp_path / "bugs", BUGS)
    workspace = place(tmp_path)
    sent(workspace, folder)
    for number in range(1, SMALL_MAX):
        fill(folder, {"train/ants": 1}, start=100 + number)
        last = sent(workspace, folder)
    assert len(packs(workspace.store)) == SMALL_MAX
    (done,) = collected(workspace.store).repacked
    assert len(done.packs) == SMALL_MAX
    assert show(workspace, "bugs").packs == 1
    assert whole(workspace, folder, tmp_path / "new") == last.images
    assert whole(workspace, folder, tmp_path / "old", last.version) == last.images
    assert collected(workspace.store).repacked == []


def test_looks_at_the_same_images_go_on(tmp_path: Path) -> None:
    _, workspace = wasted(tmp_path)
    before = resolve(workspace, "bugs")[1]
    run_id = "fixed-extractor-20260807-142530-k3qz"
    (tmp_path / "look").write_text("{}")
    workspace.store.upload(tmp_path / "look", layout.looks_prefix("bugs", before, "val") + run_id)
    (done,) = collected(workspace.store).repacked
    assert looks(workspace.store, "bugs", done.version, "val").runs == [run_id]


def test_a_damaged_pack_is_named_and_no_version_published(tmp_path: Path) -> None:
    _, workspace = wasted(tmp_path)
    before = resolve(workspace, "bugs")[1]
    (stored,) = (tmp_path / "store/packs").glob("*.tar")
    content = bytearray(stored.read_bytes())
    content[700] ^= 1
    stored.write_bytes(content)
    with pytest.raises(DataError, match=f"Pack {stored.stem[:12]}"):
        collected(workspace.store)
    assert resolve(workspace, "bugs")[1] == before


@pytest.mark.parametrize("grace_hours", [24.0, 0.0])
def test_gc_at_every_step_of_an_upload(tmp_path: Path, grace_hours: float) -> None:
    for at, folder, workspace in steps(tmp_path):
        fill(folder, {"train/ants": 1}, start=500)
        store = workspace.store
        workspace.store = paused = Paused(store, at, partial(twice, store, grace_hours))
        assert sent(workspace, folder).images == LEFT + 1
        workspace.store = store
        whole_for_ever(workspace, folder, LEFT + 1)
        if paused.requests < at:
            break
    assert at > 8


@pytest.mark.parametrize("grace_hours", [24.0, 0.0])
def test_an_upload_at_every_step_of_gc(tmp_path: Path, grace_hours: float) -> None:
    for at, folder, workspace in steps(tmp_path):
        fill(folder, {"train/ants": 1}, start=500)
        paused = Paused(workspace.store, at, partial(sent, workspace, folder))
        twice(paused, grace_hours)
        if paused.requests < at:
            break
        whole_for_ever(workspace, folder, LEFT + 1)
    assert at > 20


def test_two_gcs_at_every_step_of_each_other(tmp_path: Path) -> None:
    for at, folder, workspace in steps(tmp_path):
        paused = Paused(workspace.store, at, partial(twice, workspace.store, 0.0))
        twice(paused, 0.0)
        whole_for_ever(workspace, folder, LEFT)
        if paused.requests < at:
            break
    assert at > 20


def test_a_gc_that_was_killed_at_any_step_harms_nothing_and_is_finished(tmp_path: Path) -> None:
    class Killed(Exception):
        pass

    def kill() -> None:
        raise Killed

    for at, folder, workspace in steps(tmp_path):
        try:
            collected(Paused(workspace.store, at, kill))
        except Killed:
            whole_for_ever(workspace, folder, LEFT)
            assert len(packs(workspace.store)) == 1
            assert collected(workspace.store).wasteful == []
        else:
            break
    assert at > 20


def whole_for_ever(workspace: Workspace, folder: Path, images: int) -> None:
    """Now, and after what was condemned has gone."""
    assert whole(workspace, folder, folder.parent / "scratch") == images
    for day in range(9, 12):
        collected(workspace.store, now=day * DAY_S)
    assert whole(workspace, folder, folder.parent / "scratch") == images


def twice(store: Store, grace_hours: float) -> None:
    """Two days of collecting: what is packed anew on the first may be deleted on the second."""
    collected(store, grace_hours=grace_hours)
    collected(store, now=2 * DAY_S, grace_hours=grace_hours)
