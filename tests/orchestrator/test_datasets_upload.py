"""Uploading: whole or not at all, and again without work."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import Image

from orchestrator.config import load
from orchestrator.errors import (
    ConfigError,
    ConflictError,
    DataError,
    NotFoundError,
    PartialError,
    TransientError,
)
from orchestrator.stores import open_store
from orchestrator.stores.base import Blob
from orchestrator.workflows.data.datasets import datasets, load_manifest, resolve
from orchestrator.workflows.data.upload import require_all, upload
from orchestrator.workflows.workspace import Workspace
from remote.contract import layout
from remote.contract.attempts import Attempts
from remote.contract.run_spec import StoreRef
from tests.fakes.gcs_faults import Fault, Kind
from tests.fakes.gcs_server import GcsServer
from tests.orchestrator.pictures import fill, picture
from tests.orchestrator.uploading import BUGS, Recorded, one, place
from tests.shared_data import shared


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return fill(tmp_path / "bugs", BUGS)


def test_every_image_lies_in_its_pack_where_the_manifest_says(tmp_path: Path, folder: Path) -> None:
    workspace, store = place(tmp_path)
    result = one(workspace, folder)
    name, version, manifest = resolve(workspace, None)
    assert (name, version) == ("bugs", result.version)
    assert result.counts == {"train": {"ants": 4, "bees": 3}, "val": {"ants": 2, "bees": 2}}
    assert manifest.classes == ["ants", "bees"]
    for image in manifest.images:
        store.download(layout.pack_key(image.pack), tmp_path / "pack", start=image.offset)
        assert (tmp_path / "pack").read_bytes()[: image.size] == (folder / image.path).read_bytes()
    assert [key.partition("/")[0] for key in store.uploads] == ["packs", "datasets", "datasets"]
    assert store.uploads[-1] == "datasets/bugs/HEAD"
    assert result.bytes_sent > 0


def test_again_with_nothing_new_writes_nothing(tmp_path: Path, folder: Path) -> None:
    workspace, store = place(tmp_path)
    first = one(workspace, folder)
    for path in folder.rglob("*.png"):
        path.touch()  # another time, the same content
    store.uploads.clear()
    store.reads.clear()
    again = one(workspace, folder)
    assert (again.version, again.unchanged, again.bytes_sent) == (first.version, True, 0)
    assert store.uploads == []
    assert store.reads == ["datasets/bugs/HEAD"]
    fresh = fill(tmp_path / "copy/bugs", BUGS)
    assert one(place(tmp_path, "two")[0], fresh).version == first.version


@pytest.mark.parametrize("damage", [b"", b"\0" * 40, b"changed"])
def test_the_version_before_is_read_from_here_and_where_that_is_damaged_from_the_store(
    tmp_path: Path, folder: Path, damage: bytes
) -> None:
    workspace, store = place(tmp_path)
    first = one(workspace, folder)
    (kept,) = (tmp_path / "one").rglob("*.rows")
    kept.write_bytes(kept.read_bytes()[:-7] + damage if damage == b"changed" else damage)
    (folder / "train/ants/more.png").write_bytes(picture(99))
    store.reads.clear()
    second = one(workspace, folder)
    assert layout.manifest_key("bugs", first.version) in store.reads
    (folder / "train/ants/more.png").unlink()
    store.reads.clear()
    result = one(workspace, folder)
    assert layout.manifest_key("bugs", second.version) not in store.reads
    assert (result.removed, result.version) == (1, first.version)


def test_one_image_more_is_one_small_pack(tmp_path: Path, folder: Path) -> None:
    workspace, store = place(tmp_path)
    first = one(workspace, folder)
    fill(folder, {"train/ants": 1}, start=500)
    result = one(workspace, folder)
    assert (result.added, result.packs_sent, result.packs_reused) == (1, 1, 1)
    assert result.bytes_sent < 5000
    assert len({load_manifest(store, "bugs", v).images[0].pack for v in (first.version, result.version)}) == 1
    (summary,) = datasets(workspace)
    assert (summary.versions, summary.images, summary.version) == (2, 12, result.version)


def test_a_moved_image_costs_no_pack_and_a_removed_one_goes(tmp_path: Path, folder: Path) -> None:
    workspace, _ = place(tmp_path)
    one(workspace, folder)
    (folder / "train/ants/0000.png").rename(folder / "train/bees/moved.png")
    (folder / "train/ants/0001.png").unlink()
    result = one(workspace, folder)
    assert (result.moved, result.removed, result.added, result.packs_sent) == (1, 1, 0, 0)
    assert result.counts["train"] == {"ants": 2, "bees": 4}


def test_a_file_edited_in_place_is_changed(tmp_path: Path, folder: Path) -> None:
    workspace, _ = place(tmp_path)
    one(workspace, folder)
    (folder / "train/ants/0000.png").write_bytes(picture(900))
    result = one(workspace, folder)
    assert (result.changed, result.packs_sent, result.images) == (1, 1, 11)


def test_the_same_image_is_stored_once(tmp_path: Path, folder: Path) -> None:
    workspace, _ = place(tmp_path)
    for number in range(3):
        (folder / f"train/ants/copy{number}.png").write_bytes(picture(0))
    one(workspace, folder)
    _, _, manifest = resolve(workspace, "bugs")
    assert (
        len({(i.pack, i.offset) for i in manifest.images}) == len({i.sha256 for i in manifest.images}) == 11
    )


def test_only_checking_asks_no_store(tmp_path: Path, folder: Path) -> None:
    workspace, store = place(tmp_path)
    result = one(workspace, folder, check_only=True)
    assert (result.checked_only, result.version, result.images) == (True, "", 11)
    assert store.uploads == store.reads == []


@pytest.mark.parametrize("broken", [0, 1, 2])
def test_interrupted_and_again_is_as_if_undisturbed(tmp_path: Path, folder: Path, broken: int) -> None:
    workspace, store = place(tmp_path)
    store.break_before = broken
    with pytest.raises(TransientError):
        upload(workspace, folder)
    assert datasets(workspace) == []
    store.break_before = None
    result = one(workspace, folder)
    assert sorted(store.uploads) == sorted(set(store.uploads))  # nothing was sent twice
    other = Workspace(load({}, environ={"TLVM_DATA_DIR": str(tmp_path / "else")}, folder=tmp_path))
    assert one(other, folder).version == result.version


def test_a_sudden_loss_needs_a_word(tmp_path: Path) -> None:
    folder = fill(tmp_path / "bugs", {"ants": 30, "bees": 30})
    workspace, _ = place(tmp_path)
    one(workspace, folder)
    for path in sorted(folder.rglob("*.png"))[:20]:
        path.unlink()
    with pytest.raises(ConflictError, match="20 of the 60 images"):
        one(workspace, folder)
    assert one(workspace, folder, allow_shrink=True).removed == 20


def test_a_flat_dataset_keeps_its_split_when_it_grows(tmp_path: Path) -> None:
    folder = fill(tmp_path / "bugs", {"ants": 20, "bees": 10})
    workspace, _ = place(tmp_path)
    first = one(workspace, folder)
    assert first.counts == {"train": {"ants": 16, "bees": 8}, "val": {"ants": 4, "bees": 2}}
    before = {image.sha256: image.split for image in resolve(workspace, None)[2].images}
    fill(folder, {"ants": 10, "bees": 5}, start=300)
    second = one(workspace, folder)
    assert second.counts == {"train": {"ants": 24, "bees": 12}, "val": {"ants": 6, "bees": 3}}
    after = {image.sha256: image.split for image in resolve(workspace, None)[2].images}
    assert {sha256: after[sha256] for sha256 in before} == before


def test_a_pack_that_vanished_or_was_damaged_is_sent_again(tmp_path: Path, folder: Path) -> None:
    workspace, store = place(tmp_path)
    one(workspace, folder)
    (pack,) = resolve(workspace, None)[2].packs()
    store.delete(layout.pack_key(pack))
    fill(folder, {"train/ants": 1}, start=950)
    result = one(workspace, folder)
    for image in resolve(workspace, None)[2].images:
        store.download(layout.pack_key(image.pack), tmp_path / "pack", start=image.offset)
        assert (tmp_path / "pack").read_bytes()[: image.size] == (folder / image.path).read_bytes()
    assert result.images == 12


def test_a_pack_that_was_cut_short_is_sent_again_by_a_computer_that_never_saw_it(
    tmp_path: Path, folder: Path
) -> None:
    workspace, store = place(tmp_path)
    one(workspace, folder)
    (pack,) = resolve(workspace, None)[2].packs()
    store.download(layout.pack_key(pack), tmp_path / "whole")
    (tmp_path / "cut").write_bytes((tmp_path / "whole").read_bytes()[:1000])
    store.upload(tmp_path / "cut", layout.pack_key(pack))
    assert one(place(tmp_path, "two")[0], folder).packs_sent == 1
    store.download(layout.pack_key(pack), tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == (tmp_path / "whole").read_bytes()


def test_a_damaged_version_is_named_and_replaced_on_request(tmp_path: Path, folder: Path) -> None:
    workspace, store = place(tmp_path)
    version = one(workspace, folder).version
    (tmp_path / "junk").write_bytes(b"junk")
    store.upload(tmp_path / "junk", layout.manifest_key("bugs", version))
    with pytest.raises(DataError, match=f"{version}.*can't be read"):
        one(place(tmp_path, "two")[0], folder)
    assert one(place(tmp_path, "two")[0], folder, replace=True).images == 11
    assert resolve(workspace, None)[1] == version


def test_files_that_go_while_it_runs_are_named_and_the_rest_is_done(tmp_path: Path, folder: Path) -> None:
    class Meanwhile(Recorded):
        def get(self, key: str) -> Blob | None:
            (folder / "train/ants/0000.png").unlink(missing_ok=True)
            return super().get(key)

    workspace, _ = place(tmp_path)
    workspace.store = Meanwhile(open_store(StoreRef(str(tmp_path / "store"))))
    results = upload(workspace, folder)
    assert [item.path for item in results[0].missed] == ["train/ants/0000.png"]
    assert results[0].images == 10
    with pytest.raises(PartialError, match="1 file vanished"):
        require_all(results)
    require_all(upload(workspace, folder))


def test_an_image_in_train_that_is_also_in_val_is_left_out_of_training(tmp_path: Path) -> None:
    workspace, _ = place(tmp_path)
    result = one(workspace, shared("data/wbc"))
    assert [(item.path, item.reason) for item in result.excluded] == [
        ("train/lymphocyte/d1_139.png", "equal to val/lymphocyte/d1_112.png")
    ]
    assert sum(result.counts["train"].values()) == 300
    assert sum(result.counts["val"].values()) == 99
    assert any("basophil (3)" in warning for warning in result.warnings)


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ({"ants": 3}, "one class only: ants"),
        (
            {"train/ants": 2, "train/bees": 2, "val/ants": 1, "val/wasps": 1},
            "no usable image in train of: wasps",
        ),
        ({"val/ants": 2, "val/bees": 2}, "no images to train on"),
    ],
)
def test_what_can_not_be_learnt_from_is_refused_and_nothing_is_written(
    tmp_path: Path, counts: dict[str, int], message: str
) -> None:
    workspace, store = place(tmp_path)
    with pytest.raises(DataError, match=message):
        upload(workspace, fill(tmp_path / "bugs", counts))
    assert store.uploads == []


def test_one_bad_dataset_among_several_stops_all(tmp_path: Path) -> None:
    workspace, store = place(tmp_path)
    fill(tmp_path / "all", {"good/a": 2, "good/b": 2, "poor/only": 2})
    with pytest.raises(DataError, match="poor has one class only"):
        upload(workspace, tmp_path / "all")
    assert store.uploads == []


def test_a_class_none_of_whose_files_can_be_used_is_refused(tmp_path: Path, folder: Path) -> None:
    (folder / "train/wasps").mkdir()
    (folder / "train/wasps/1.png").write_bytes(b"")
    with pytest.raises(DataError, match="in train of: wasps"):
        upload(place(tmp_path)[0], folder)


def test_digits_may_not_be_flipped_and_a_wish_is_kept(tmp_path: Path, folder: Path) -> None:
    workspace, _ = place(tmp_path)
    digits = fill(tmp_path / "digits", {"0": 3, "1": 3})
    assert one(workspace, digits).flips == "none"
    assert one(workspace, folder).flips == "horizontal"
    upload(workspace, folder, flips="all")
    assert one(workspace, folder).flips == "all"


def test_sixteen_bits_give_the_dataset_a_window(tmp_path: Path, folder: Path) -> None:
    out = io.BytesIO()
    Image.new("I;16", (8, 8), 1234).save(out, "PNG")
    (folder / "train/ants/deep.png").write_bytes(out.getvalue())
    result = one(place(tmp_path)[0], folder)
    assert result.intensity_window == [1234.0, 1235.0]
    assert result.modes == {"RGB": 11, "I;16": 1}


def test_the_dataset_that_is_meant(tmp_path: Path, folder: Path) -> None:
    workspace, _ = place(tmp_path)
    with pytest.raises(NotFoundError, match="no dataset in"):
        resolve(workspace, None)
    first = one(workspace, folder).version
    upload(workspace, folder, name="other")
    with pytest.raises(ConfigError, match="several datasets") as error:
        resolve(workspace, None)
    assert error.value.detail == "bugs, other"
    with pytest.raises(NotFoundError) as missing:
        resolve(workspace, "bug")
    assert "'bugs'" in missing.value.next
    with pytest.raises(ConfigError, match="not a dataset name"):
        resolve(workspace, "../bugs")
    assert resolve(workspace, "bugs", f"v{first[:6]}")[1] == first
    with pytest.raises(NotFoundError, match="no version"):
        resolve(workspace, "bugs", "f" * 64)
    with pytest.raises(ConfigError, match="not a dataset name"):
        upload(workspace, folder, name="../x")


def test_a_bucket_that_fails_now_and_then_gets_the_same_version(tmp_path: Path, folder: Path) -> None:
    expected = one(place(tmp_path)[0], folder).version
    with GcsServer() as server:
        url = server.create_bucket("bugs")
        faults: tuple[Kind, ...] = ("503", "503 after", "reset after")
        for kind in faults:
            server.faults.add(Fault(kind, "objects.insert", "*", 1))
        server.faults.add(Fault("corrupt", "objects.download", "*", 1))
        environ = {"TLVM_DATA_DIR": str(tmp_path / "cloud")}
        flags = {"store.url": url, "store.endpoint": server.endpoint}
        workspace = Workspace(load(flags, environ=environ, folder=tmp_path))
        workspace.store = open_store(workspace.settings.store_ref, attempts=Attempts(sleep=lambda _: None))
        assert one(workspace, folder).version == expected
        assert one(workspace, folder).unchanged
        workspace.records.cache.rename(tmp_path / "forgotten")
        assert one(workspace, folder).unchanged
        assert server.faults.unused() == []
        assert server.requests["objects.insert"] == 6  # a pack, a manifest, HEAD, and three of them again
    assert server.errors == []
