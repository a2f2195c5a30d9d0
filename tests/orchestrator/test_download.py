"""What was uploaded comes back byte for byte, and no manifest or pack makes a file anywhere else."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.config import load
from orchestrator.datasets.folder import names
from orchestrator.datasets.packs import pack, unpack
from orchestrator.datasets.packs.member import Member
from orchestrator.errors import ConflictError, DataError
from orchestrator.workflows.data.download import download
from orchestrator.workflows.data.upload import upload
from orchestrator.workflows.workspace import Workspace
from remote.contract import layout
from remote.contract.dataset_manifest import DatasetManifest, Image, encode
from tests.hostile_tar import ENTRIES, PLACES, Entry, hostile_tar
from tests.orchestrator.pictures import picture

ODD = (
    "plain.png",
    "ümläut.png",
    "u\u0308.png",
    "new\nline.png",
    "quo\"te's.png",
    "per%41cent.png",
    "n" * 251 + ".png",
)


def workspace_of(tmp_path: Path) -> Workspace:
    return Workspace(load({}, environ={"TLVM_DATA_DIR": str(tmp_path / "data")}, folder=tmp_path))


def odd_dataset(root: Path) -> dict[str, tuple[bytes, int]]:
    """Files of all kinds of names: content and time by path."""
    number = 0
    for label in ("train/ants", "train/bees", "val/ants", "val/bees"):
        (root / label).mkdir(parents=True)
        for name in (*ODD, os.fsdecode(b"latin\xe9.png")):
            number += 1
            path = root / label / name
            path.write_bytes(picture(number * 17, size=(24, 24)))
            os.utime(path, ns=(0, 1_600_000_000_123_456_789 + number))
    return files(root)


def files(root: Path) -> dict[str, tuple[bytes, int]]:
    return {
        str(path.relative_to(root)): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in root.rglob("*")
        if path.is_file()
    }


def test_files_come_back_with_their_times(tmp_path: Path) -> None:
    before = odd_dataset(tmp_path / "bugs")
    workspace = workspace_of(tmp_path)
    upload(workspace, tmp_path / "bugs")
    result = download(workspace, "bugs", tmp_path / "back")
    assert files(tmp_path / "back") == before
    assert (result.images, result.written, result.packs) == (len(before), len(before), 1)
    gone = next(path for path in (tmp_path / "back").rglob("plain.png"))
    gone.unlink()
    again = download(workspace, "bugs", tmp_path / "back", version=result.version[:8])
    assert (again.written, again.packs) == (1, 1)
    assert files(tmp_path / "back") == before
    assert download(workspace, "bugs", tmp_path / "back").packs == 0


def test_other_files_are_never_replaced(tmp_path: Path) -> None:
    odd_dataset(tmp_path / "bugs")
    workspace = workspace_of(tmp_path)
    upload(workspace, tmp_path / "bugs")
    mine = tmp_path / "back/train/ants/plain.png"
    mine.parent.mkdir(parents=True)
    mine.write_bytes(b"mine")
    with pytest.raises(ConflictError, match="other files") as error:
        download(workspace, "bugs", tmp_path / "back")
    assert error.value.detail == "train/ants/plain.png"
    assert files(tmp_path / "back").keys() == {"train/ants/plain.png"}


def test_two_versions_are_never_mixed_in_one_folder(tmp_path: Path) -> None:
    odd_dataset(tmp_path / "bugs")
    workspace = workspace_of(tmp_path)
    (first,) = upload(workspace, tmp_path / "bugs")
    (tmp_path / "bugs/train/ants/plain.png").rename(tmp_path / "bugs/train/ants/other\n.PNG")
    (second,) = upload(workspace, tmp_path / "bugs")
    for here, there, only in ((first, second, "plain.png"), (second, first, "other%0A.PNG")):
        place = tmp_path / here.version[:8]
        download(workspace, "bugs", place, version=here.version)
        (place / "notes.txt").write_text("mine")
        (place / "train/.hidden.png").write_text("mine")
        before = files(place)
        download(workspace, "bugs", place, version=here.version)
        with pytest.raises(ConflictError, match="holds 1 image that this version") as error:
            download(workspace, "bugs", place, version=there.version)
        assert error.value.detail == f"train/ants/{only}"
        assert files(place) == before


def test_where_one_file_is_another_the_times_of_the_others_stay(tmp_path: Path) -> None:
    odd_dataset(tmp_path / "bugs")
    workspace = workspace_of(tmp_path)
    upload(workspace, tmp_path / "bugs")
    for path in (path for path in (tmp_path / "bugs").rglob("*") if path.is_file()):
        os.utime(path, (1_700_000_000, 1_700_000_000))
    (tmp_path / "bugs/val/bees/plain.png").write_bytes(b"mine")
    before = files(tmp_path / "bugs")
    with pytest.raises(ConflictError, match="other files"):
        download(workspace, "bugs", tmp_path / "bugs")
    assert files(tmp_path / "bugs") == before


def test_files_that_are_there_get_their_times_back(tmp_path: Path) -> None:
    before = odd_dataset(tmp_path / "bugs")
    workspace = workspace_of(tmp_path)
    upload(workspace, tmp_path / "bugs")
    os.utime(tmp_path / "bugs/train/ants/plain.png", (1_700_000_000, 1_700_000_000))
    assert download(workspace, "bugs", tmp_path / "bugs").written == 0
    assert files(tmp_path / "bugs") == before


def test_a_damaged_pack_is_named(tmp_path: Path) -> None:
    odd_dataset(tmp_path / "bugs")
    workspace = workspace_of(tmp_path)
    upload(workspace, tmp_path / "bugs")
    (stored,) = (tmp_path / "data/store/packs").glob("*.tar")
    content = bytearray(stored.read_bytes())
    content[700] ^= 1
    stored.write_bytes(content)
    with pytest.raises(DataError, match=f"Pack {stored.stem[:12]}"):
        download(workspace, "bugs", tmp_path / "back")
    assert files(tmp_path / "back") == {}
    upload(workspace, tmp_path / "bugs", replace=True)
    assert download(workspace, "bugs", tmp_path / "back").written > 0


IMAGE = Image("a/1.png", "train", "a", "folder", None, 3, "", 0, 1, 1, 1, 1, 0, "RGB", "", 512)
STEPS = st.sampled_from(
    ["..", ".", "", "a", "b", "link", "%2e%2e", "%2E.", "a%2Fb", "%00", "c\\d", "x" * 300, "/etc"]
)
PATHS = st.lists(STEPS, min_size=1, max_size=5).map("/".join)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(PATHS, min_size=1, max_size=4),
    st.integers(-(2**70), 2**70),
    st.integers(0, 2000),
    st.integers(0, 2**40),
)
def test_no_hostile_manifest_writes_outside(paths: list[str], mtime_ns: int, offset: int, size: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        top = Path(folder)
        (top / "outside").mkdir()
        (top / "in").mkdir()
        (top / "in/link").symlink_to(top / "outside")
        data = b"yes"
        member = Member(hashlib.sha256(data).hexdigest(), "png", data)
        written = pack.write_members([member], top / "outside")
        kept = written.path.read_bytes()
        images = [
            dataclasses.replace(
                IMAGE,
                path=path,
                sha256=member.sha256,
                pack=written.sha256,
                mtime_ns=mtime_ns,
                offset=place,
                size=length,
            )
            for path in paths
            for place, length in ((512, 3), (offset, size))
        ]
        try:
            unpack.require_safe(images)
            unpack.missing(images, top / "in")
            unpack.unpack(written.path, written.sha256, images, top / "in")
        except (DataError, ConflictError, OSError):
            pass
        assert {path.name for path in top.iterdir()} == {"outside", "in"}
        assert [path.name for path in (top / "outside").iterdir()] == [written.path.name]
        assert written.path.read_bytes() == kept
        assert (top / "in/link").is_symlink()
        for path in (top / "in").rglob("*"):
            assert path.is_dir() or path.is_symlink() or path.read_bytes() == data


@settings(max_examples=40, deadline=None)
@given(ENTRIES, PLACES)
def test_no_hostile_pack_writes_outside(entries: list[Entry], places: list[tuple[int, int]]) -> None:
    memory = "/dev/shm"  # where there is such a place: what is uploaded is flushed to the disk
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as folder:
        top = Path(folder)
        (top / "outside").mkdir()
        data = hostile_tar(entries, top / "outside")
        digest = hashlib.sha256(data).hexdigest()
        images = [
            dataclasses.replace(
                IMAGE,
                path=f"train/a/{number}.png",
                sha256=hashlib.sha256(data[offset : offset + size]).hexdigest(),
                pack=digest,
                offset=offset,
                size=size,
            )
            for number, (offset, size) in enumerate(places)
        ]
        manifest, version = encode(DatasetManifest("bugs", ["a"], "folders", "none", None, images))
        workspace = workspace_of(top)
        stored = {
            layout.pack_key(digest): data,
            layout.manifest_key("bugs", version): manifest,
            layout.head_key("bugs"): version.encode(),
        }
        for key, content in stored.items():
            (top / "blob").write_bytes(content)
            workspace.store.upload(top / "blob", key)
        held = {image.path: (data[image.offset :][: image.size], 0) for image in images}
        try:
            download(workspace, "bugs", top / "in")
            assert files(top / "in") == held
            assert all(len(data) >= image.offset + image.size for image in images)
        except DataError:
            assert files(top / "in").items() <= held.items()
            assert any(len(data) < image.offset + image.size for image in images)
        assert {path.name for path in top.iterdir()} == {"outside", "in", "data", "blob"}
        assert not list((top / "outside").iterdir())
        assert all(path.is_dir() or path.is_file() for path in (top / "in").rglob("*"))
        assert not any(path.is_symlink() or path.name == "out" for path in top.rglob("*"))


def test_a_hostile_version_in_the_store_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    workspace = workspace_of(tmp_path)
    digest = "a" * 64
    for path in ("train/%2e%2e/%2e%2e/out.png", "train/a%2F..%2Fb.png", "train/nul%00.png"):
        image = dataclasses.replace(IMAGE, path=path, sha256=digest, pack=digest)
        data, version = encode(DatasetManifest("bugs", ["a"], "folders", "none", None, [image]))
        for key, content in (
            (layout.manifest_key("bugs", version), data),
            (layout.head_key("bugs"), version.encode()),
        ):
            (tmp_path / "blob").write_bytes(content)
            workspace.store.upload(tmp_path / "blob", key)
        with pytest.raises(DataError, match="names a file that can"):
            download(workspace, "bugs", tmp_path / "back")
        assert not (tmp_path / "back").exists()


def test_an_empty_pack_is_a_damaged_one(tmp_path: Path) -> None:
    (tmp_path / "pack").write_bytes(b"")
    digest = hashlib.sha256(b"").hexdigest()
    with pytest.raises(DataError, match="it is empty"):
        unpack.unpack(
            tmp_path / "pack", digest, [dataclasses.replace(IMAGE, sha256=digest, size=0)], tmp_path
        )


def test_a_file_that_is_also_a_folder_is_refused() -> None:
    images = [dataclasses.replace(IMAGE, path=path) for path in ("train/a", "train/a/1.png")]
    with pytest.raises(DataError, match="train/a"):
        unpack.require_safe(images)


def test_names_are_spelt_in_one_way_only() -> None:
    for name in ODD:
        assert names.encode(names.decode(names.encode(name.encode()))) == names.encode(name.encode())
