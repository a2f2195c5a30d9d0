"""A file that can't be read just now stays in the dataset as it was; what can't be decoded any more is named."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
from PIL import Image

from orchestrator.errors import CloudError, ConflictError, PartialError
from orchestrator.render.console import Screen
from orchestrator.render.datasets import uploaded
from orchestrator.stores import open_store
from orchestrator.stores.base import Blob
from orchestrator.workflows.data.datasets import resolve
from orchestrator.workflows.data.upload import UploadResult, require_all, upload
from orchestrator.workflows.workspace import Workspace
from remote.contract import layout
from remote.contract.dataset_manifest import Image as Listed
from remote.contract.run_spec import StoreRef
from tests.orchestrator.pictures import fill, picture
from tests.orchestrator.uploading import BUGS, Recorded, one, place

CLOSED = "train/ants/0000.png"
STAYS = "it can't be read: Input/output error; kept as it was in the version before"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return fill(tmp_path / "bugs", BUGS)


@contextmanager
def unread(*files: Path) -> Iterator[None]:
    """Files that can't be read, not by root either: a link to one that gives an I/O error."""
    for file in files:
        file.rename(file.parent.parent.parent.with_name(f"aside-{file.name}"))
        file.symlink_to("/proc/self/mem")
    try:
        yield
    finally:
        for file in files:
            file.unlink()
            file.parent.parent.parent.with_name(f"aside-{file.name}").rename(file)


def listed(workspace: Workspace) -> Mapping[str, Listed]:
    return {image.path: image for image in resolve(workspace, "bugs")[2].images}


def drawn(result: UploadResult) -> str:
    out = io.StringIO()
    uploaded(Screen(out, io.StringIO()), [result])
    return out.getvalue()


@pytest.mark.parametrize("replace", [False, True])
def test_it_stays_as_it_was_and_nothing_is_sent_for_it(tmp_path: Path, folder: Path, replace: bool) -> None:
    workspace, store = place(tmp_path)
    first = one(workspace, folder)
    before = listed(workspace)
    with unread(folder / CLOSED):
        store.uploads.clear()
        for _ in range(2):  # nor is it forgotten that it was not seen
            closed = one(workspace, folder, replace=replace)
            assert (closed.version, closed.unchanged, closed.removed) == (first.version, True, 0)
            assert [(item.path, item.reason) for item in closed.missed] == [(CLOSED, STAYS)]
        assert store.uploads == []
        with pytest.raises(PartialError, match="can't be read") as error:
            require_all([closed])
        assert error.value.detail == f"bugs: {CLOSED}: {STAYS}"
        fill(folder, {"train/bees": 1}, start=900)
        more = one(workspace, folder, replace=replace)
        assert (more.added, more.removed, more.images) == (1, 0, 12)
        assert {path: image for path, image in listed(workspace).items() if path in before} == before
    (folder / CLOSED).write_bytes((folder / CLOSED).read_bytes())  # another time
    open_again = one(workspace, folder)
    assert (open_again.version, open_again.missed, open_again.packs_sent) == (more.version, [], 0)


def test_a_class_all_of_which_can_not_be_read_stays(tmp_path: Path) -> None:
    folder = fill(tmp_path / "bugs", {"train/ants": 3, "train/bees": 1, "val/ants": 1, "val/bees": 1})
    workspace, _ = place(tmp_path)
    first = one(workspace, folder)
    with unread(*(folder / "train/bees").iterdir()):
        assert one(workspace, folder).version == first.version


def test_the_other_images_stay_on_their_side_and_a_group_on_one(tmp_path: Path) -> None:
    """Without it, its class would have none in `val`, and an image of `train` would go there for good."""
    folder = fill(tmp_path / "x/bugs", {"ants": 5, "bees": 5})
    workspace, _ = place(tmp_path)
    upload(workspace, folder, group_by=r"/(\d+)\.")
    sides = {path: image.split for path, image in listed(workspace).items()}
    groups = {path: image.group for path, image in listed(workspace).items()}
    measured = next(path for path, side in sides.items() if side == "val")
    with unread(folder / measured):
        (folder / measured.replace(".", ".again.")).write_bytes(picture(800))
        upload(workspace, folder, group_by=r"/(\d+)\.")
    after = listed(workspace)
    assert {path: after[path].split for path in sides} == sides
    assert after[measured.replace(".", ".again.")].split == "val"
    assert {path: after[path].group for path in groups if path != measured} == {
        path: group for path, group in groups.items() if path != measured
    }


@pytest.mark.parametrize("closed", ["train/ants/photo.png", "val/ants/copy.jpg"])
def test_a_near_copy_stays_out_of_training(tmp_path: Path, folder: Path, closed: str) -> None:
    photo = Image.open(io.BytesIO(picture(77))).resize((160, 120), Image.Resampling.BICUBIC)
    photo.save(folder / "train/ants/photo.png")
    photo.save(folder / "val/ants/copy.jpg", quality=93)
    workspace, _ = place(tmp_path)
    first = one(workspace, folder)
    assert [item.path for item in first.excluded] == ["train/ants/photo.png"]
    with unread(folder / closed):
        assert one(workspace, folder).version == first.version


def test_what_others_changed_or_added_there_is_kept(tmp_path: Path, folder: Path) -> None:
    mine, _ = place(tmp_path)
    one(mine, folder)
    theirs = fill(tmp_path / "two/bugs", BUGS)
    other, _ = place(tmp_path, "two")
    one(other, theirs)
    (theirs / CLOSED).write_bytes(picture(901))
    fill(theirs, {"train/bees": 1}, start=950)
    published = one(other, theirs).version
    with unread(folder / CLOSED):
        for _ in range(2):
            closed = one(mine, folder)
            assert (closed.version, closed.kept, closed.removed) == (published, 2, 0)
    assert one(mine, folder).version == published  # it holds what it held: that is no change against theirs
    (folder / CLOSED).write_bytes(picture(902))
    with pytest.raises(ConflictError) as error:
        one(mine, folder)
    assert error.value.detail == f"changed here and there: {CLOSED}"


def test_what_vanishes_while_it_runs_goes_with_the_next_upload(tmp_path: Path, folder: Path) -> None:
    class Meanwhile(Recorded):
        def get(self, key: str) -> Blob | None:
            (folder / CLOSED).unlink(missing_ok=True)
            return super().get(key)

    workspace, store = place(tmp_path)
    one(workspace, folder)
    (folder / "train/bees/0004.png").write_bytes(picture(70))
    (folder / CLOSED).touch()
    workspace.records.cache.rename(tmp_path / "forgotten")
    workspace.store = Meanwhile(open_store(StoreRef(str(tmp_path / "store"))))
    vanished = one(workspace, folder)
    assert [item.reason for item in vanished.missed] == [
        "it vanished meanwhile; kept as it was in the version before"
    ]
    assert (vanished.changed, vanished.removed) == (1, 0)
    workspace.store = store
    after = one(workspace, folder)
    assert (after.missed, after.removed) == ([], 1)


def test_what_the_store_has_lost_and_can_not_be_read_here_is_said(tmp_path: Path, folder: Path) -> None:
    workspace, store = place(tmp_path)
    one(workspace, folder)
    (pack,) = resolve(workspace, None)[2].packs()
    store.delete(layout.pack_key(pack))
    fill(folder, {"train/ants": 1}, start=950)
    with unread(folder / CLOSED):
        with pytest.raises(CloudError, match="has lost 1 image of bugs") as error:
            one(workspace, folder)
        assert error.value.detail == CLOSED
        replaced = one(workspace, folder, replace=True)
        assert (replaced.images, replaced.removed) == (11, 1)
        assert [item.reason for item in replaced.missed] == ["it can't be read: Input/output error"]


def test_the_window_of_deep_images_stays(tmp_path: Path, folder: Path) -> None:
    for number, level in enumerate((10, 4000)):
        Image.new("I;16", (8, 8), level).save(folder / f"train/ants/deep{number}.png")
    workspace, _ = place(tmp_path)
    first = one(workspace, folder)
    with unread(folder / "train/ants/deep1.png"):
        closed = one(workspace, folder)
    assert (closed.version, closed.intensity_window) == (first.version, [10.0, 4000.0])


def test_images_that_can_not_be_decoded_any_more_are_named_as_lost(tmp_path: Path, folder: Path) -> None:
    workspace, _ = place(tmp_path)
    (folder / "train/ants/never.png").write_bytes(b"no image")
    first = one(workspace, folder)
    assert (first.spoiled, [item.path for item in first.unusable]) == ([], ["train/ants/never.png"])
    (folder / CLOSED).write_bytes((folder / CLOSED).read_bytes()[:60])
    result = one(workspace, folder)
    assert [item.path for item in result.spoiled] == [CLOSED]
    assert result.removed == 1
    lines = drawn(result).splitlines()
    at = lines.index("lost    1 image of the version before can't be used any more, and is not in this one")
    assert lines[at + 1].startswith(f"        {CLOSED}: can't be decoded")
    assert sum(CLOSED in line for line in lines) == 1
    assert one(workspace, folder).spoiled == []
