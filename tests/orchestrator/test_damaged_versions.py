"""HEAD or a manifest is damaged: it is named, the way out that the error names works, and other datasets are not hit."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from orchestrator.cli.app import main
from orchestrator.datasets.publishing import versions
from orchestrator.errors import DataError, NotFoundError
from orchestrator.render.console import Screen
from orchestrator.render.datasets import listed
from orchestrator.stores.base import Store
from orchestrator.workflows.data.datasets import datasets, resolve
from orchestrator.workflows.data.download import download
from orchestrator.workflows.data.gc import gc
from orchestrator.workflows.data.remove import remove
from orchestrator.workflows.data.show import show
from orchestrator.workflows.data.upload import upload
from remote.contract import layout
from tests.orchestrator.pictures import fill
from tests.orchestrator.uploading import BUGS, one, place

HEAD = layout.head_key("bugs")
JUNK = [b"", b"junk\n", b"\xff\xfe", b"0" * 64 + b"x", b"a" * 5000]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return fill(tmp_path / "bugs", BUGS)


def put(store: Store, key: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / "blob").write_bytes(content)
    store.upload(tmp_path / "blob", key)


@pytest.mark.parametrize("junk", JUNK)
@pytest.mark.parametrize("computer", ["one", "two"])
def test_a_damaged_head_is_named_and_replaced_on_request(
    tmp_path: Path, folder: Path, junk: bytes, computer: str
) -> None:
    version = one(place(tmp_path)[0], folder).version
    workspace, store = place(tmp_path, computer)
    put(store, HEAD, junk, tmp_path)
    with pytest.raises(DataError, match=r"bugs/HEAD .* can't be read") as error:
        one(workspace, folder)
    assert "tlvm upload DIR --replace" in error.value.next
    store.uploads.clear()
    assert one(workspace, folder, replace=True).version == version
    assert store.uploads == [HEAD]
    assert resolve(workspace, "bugs")[1] == version
    assert one(workspace, folder).unchanged


def test_a_head_that_somebody_mends_meanwhile_is_not_overwritten(tmp_path: Path, folder: Path) -> None:
    one(place(tmp_path)[0], folder)
    _, store = place(tmp_path)
    put(store, HEAD, b"junk", tmp_path)
    head = versions.read_head(store, "bugs", may_be_damaged=True)
    assert head.is_damaged
    fill(folder, {"train/ants": 1}, start=700)
    one(place(tmp_path)[0], folder, replace=True)
    with pytest.raises(Exception, match="written by somebody else"):
        versions.move_head(store, "bugs", "0" * 64, head=head)


def test_a_head_that_names_a_version_that_is_gone_says_the_way_out(tmp_path: Path, folder: Path) -> None:
    workspace, store = place(tmp_path)
    version = one(workspace, folder).version
    store.delete(layout.manifest_key("bugs", version))
    with pytest.raises(NotFoundError, match=f"no version {version[:12]} of bugs") as error:
        resolve(workspace, "bugs")
    assert "--replace" in error.value.next
    assert one(place(tmp_path, "two")[0], folder, replace=True).version == version
    assert resolve(workspace, "bugs")[1] == version


def test_while_head_is_damaged_a_version_can_be_shown_and_downloaded_by_its_name(
    tmp_path: Path, folder: Path
) -> None:
    workspace, store = place(tmp_path)
    version = one(workspace, folder).version
    put(store, HEAD, b"junk", tmp_path)
    assert show(workspace, "bugs", version[:8]).images == 11
    assert download(workspace, "bugs", tmp_path / "back", version=version[:8]).written == 11


def test_a_dataset_whose_head_is_damaged_can_be_removed(tmp_path: Path, folder: Path) -> None:
    workspace, store = place(tmp_path)
    one(workspace, folder)
    put(store, HEAD, b"junk", tmp_path)
    assert remove(workspace, "bugs").removed
    assert [blob.key for blob in store.blobs(layout.DATASETS)] == []
    put(store, HEAD, b"junk", tmp_path)  # and nothing else
    assert remove(workspace, "bugs").removed


@pytest.mark.parametrize("damaged", ["HEAD", "manifest", "manifest gone"])
def test_the_other_datasets_are_listed_beside_a_damaged_one(
    tmp_path: Path, damaged: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace, store = place(tmp_path)
    fill(tmp_path / "all/bugs", BUGS)
    fill(tmp_path / "all/trees", BUGS, start=100)
    version = upload(workspace, tmp_path / "all")[0].version
    manifest = layout.manifest_key("bugs", version)
    if damaged == "manifest gone":
        store.delete(manifest)
    else:
        put(store, HEAD if damaged == "HEAD" else manifest, b"junk", tmp_path)
    bugs, trees = datasets(workspace)
    assert (bugs.name, bugs.images, trees.images, trees.problem) == ("bugs", 0, 11, "")
    assert bugs.problem
    out = io.StringIO()
    listed(Screen(out, io.StringIO()), [bugs, trees])
    assert "trees" in out.getvalue()
    assert "damaged bugs: " in out.getvalue()
    assert "--replace --dataset bugs" in out.getvalue()
    monkeypatch.setenv("TLVM_DATA_DIR", str(tmp_path / "one"))
    monkeypatch.setenv("TLVM_STORE_URL", str(tmp_path / "store"))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as left:
        main(["datasets", "--json"])
    assert left.value.code == 3
    rows = json.loads(capsys.readouterr().out)["items"]
    assert [bool(row["problem"]) for row in rows] == [True, False]


def test_a_damaged_old_version_stops_gc_until_it_is_removed_as_the_error_says(
    tmp_path: Path, folder: Path
) -> None:
    workspace, store = place(tmp_path)
    old = one(workspace, folder).version
    fill(folder, {"train/ants": 1}, start=700)
    one(workspace, folder)
    put(store, layout.manifest_key("bugs", old), b"junk", tmp_path)
    with pytest.raises(DataError, match="none is deleted") as error:
        gc(workspace)
    assert error.value.next == f"Remove it: tlvm datasets rm bugs@{old[:12]}"
    assert remove(workspace, "bugs", old[:12]).versions == [old]
    assert gc(workspace).deleted == []


def test_a_damaged_newest_version_stops_gc_until_it_is_repaired_as_the_error_says(
    tmp_path: Path, folder: Path
) -> None:
    workspace, store = place(tmp_path)
    newest = one(workspace, folder).version
    put(store, layout.manifest_key("bugs", newest), b"junk", tmp_path)
    with pytest.raises(DataError, match="none is deleted") as error:
        gc(workspace)
    assert "tlvm upload DIR --replace" in error.value.next
    assert upload(workspace, folder, replace=True)[0].version == newest
    assert gc(workspace).deleted == []


def test_gc_does_its_work_while_a_head_is_damaged(tmp_path: Path, folder: Path) -> None:
    workspace, store = place(tmp_path)
    one(workspace, folder)
    put(store, HEAD, b"junk", tmp_path)
    found = gc(workspace)
    assert (found.packs, found.deleted, found.condemned) == (1, [], [])
