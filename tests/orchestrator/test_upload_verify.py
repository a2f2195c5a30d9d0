"""What was damaged in the store is found and sent again: by a computer that never saw it, and when it is asked for."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from orchestrator.datasets.publishing import versions
from orchestrator.errors import CloudError, DataError
from orchestrator.stores.base import Store
from orchestrator.workflows.data.datasets import resolve
from orchestrator.workflows.data.download import download
from remote.contract import layout
from remote.contract.dataset_manifest import encode
from tests.orchestrator.pictures import fill
from tests.orchestrator.uploading import BUGS, one, place


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return fill(tmp_path / "bugs", BUGS)


def only_pack(tmp_path: Path) -> str:
    (pack,) = resolve(place(tmp_path, "who looks")[0], None)[2].packs()
    return pack


def damage(store: Store, pack: str, tmp_path: Path) -> bytes:
    """Flip a bit in the middle; the size stays. The bytes as they should be."""
    path = tmp_path / "bent"
    store.download(layout.pack_key(pack), path)
    whole = path.read_bytes()
    path.write_bytes(whole[:700] + bytes([whole[700] ^ 1]) + whole[701:])
    store.upload(path, layout.pack_key(pack))
    return whole


def content(store: Store, pack: str, tmp_path: Path) -> bytes:
    store.download(layout.pack_key(pack), tmp_path / "content")
    return (tmp_path / "content").read_bytes()


def forget_sums(store: Store, tmp_path: Path) -> str:
    """Make the newest version one that was written before manifests held checksums. Its name."""
    head = versions.read_head(store, "bugs")
    manifest = versions.load_manifest(store, "bugs", head.version)
    plain = dataclasses.replace(manifest, pack_bytes={}, pack_crc32c={})
    version, _ = versions.put_manifest(store, plain)
    versions.move_head(store, "bugs", version, head=head)
    return version


def test_the_manifest_tells_size_and_checksum_of_every_pack(tmp_path: Path, folder: Path) -> None:
    workspace, store = place(tmp_path)
    one(workspace, folder)
    fill(folder, {"train/ants": 1}, start=500)
    one(workspace, folder)
    _, _, manifest = resolve(workspace, None)
    found = {pack: store.get(layout.pack_key(pack)) for pack in manifest.packs()}
    assert len(found) == 2
    assert manifest.sums() == {pack: (blob.size, blob.crc32c) for pack, blob in found.items() if blob}


def test_damage_at_equal_size_is_healed_by_a_computer_that_never_saw_the_pack(
    tmp_path: Path, folder: Path
) -> None:
    workspace, store = place(tmp_path)
    version = one(workspace, folder).version
    pack = only_pack(tmp_path)
    whole = damage(store, pack, tmp_path)
    result = one(place(tmp_path, "two")[0], folder)
    assert (result.version, result.packs_sent, result.unchanged) == (version, 1, False)
    assert content(store, pack, tmp_path) == whole


def test_an_unchanged_folder_is_not_looked_after_unless_asked(tmp_path: Path, folder: Path) -> None:
    workspace, store = place(tmp_path)
    version = one(workspace, folder).version
    pack = only_pack(tmp_path)
    whole = damage(store, pack, tmp_path)
    store.reads.clear()
    assert one(workspace, folder).unchanged
    assert store.reads == ["datasets/bugs/HEAD"]
    result = one(workspace, folder, verify=True)
    assert (result.version, result.packs_sent, result.packs_verified) == (version, 1, 0)
    assert content(store, pack, tmp_path) == whole
    store.uploads.clear()
    result = one(workspace, folder, verify=True)
    assert (result.unchanged, result.packs_sent, result.packs_verified) == (True, 0, 1)
    assert store.uploads == []


def test_verifying_repairs_a_manifest_too(tmp_path: Path, folder: Path) -> None:
    workspace, store = place(tmp_path)
    version = one(workspace, folder).version
    (tmp_path / "junk").write_bytes(b"junk")
    store.upload(tmp_path / "junk", layout.manifest_key("bugs", version))
    assert not one(workspace, folder, verify=True).unchanged
    assert resolve(place(tmp_path, "two")[0], None)[1] == version


@pytest.mark.parametrize("damaged", [False, True])
def test_packs_of_which_no_manifest_tells_the_checksum_are_read(
    tmp_path: Path, folder: Path, damaged: bool
) -> None:
    workspace, store = place(tmp_path)
    one(workspace, folder)
    version = forget_sums(store, tmp_path)
    pack = only_pack(tmp_path)
    whole = damage(store, pack, tmp_path) if damaged else content(store, pack, tmp_path)
    other, _ = place(tmp_path, "two")
    result = one(other, folder, verify=True)
    assert (result.packs_sent, result.packs_verified) == ((1, 0) if damaged else (0, 1))
    assert (result.version == version) is not damaged  # what was sent again is told from now on
    assert content(store, pack, tmp_path) == whole


def test_an_older_version_stays_what_it_is_while_nothing_changes(tmp_path: Path, folder: Path) -> None:
    workspace, store = place(tmp_path)
    one(workspace, folder)
    version = forget_sums(store, tmp_path)
    result = one(workspace, folder)
    assert (result.version, result.unchanged) == (version, True)
    data, again = encode(resolve(workspace, None)[2])
    assert again == version
    assert (
        versions.put_encoded(store, "bugs", version, data, versions.find_manifest(store, "bugs", version))
        == 0
    )


def test_a_damaged_pack_of_images_that_this_folder_lacks_says_whose(tmp_path: Path, folder: Path) -> None:
    workspace, store = place(tmp_path)
    one(workspace, folder)
    damage(store, only_pack(tmp_path), tmp_path)
    part = fill(tmp_path / "part/bugs", {"train/ants": 4, "train/bees": 3})
    with pytest.raises(CloudError, match="lost 4 images of bugs that this folder lacks"):
        one(place(tmp_path, "two")[0], part)


def test_a_download_that_meets_damage_names_the_way_out_and_it_works(tmp_path: Path, folder: Path) -> None:
    workspace, store = place(tmp_path)
    one(workspace, folder)
    damage(store, only_pack(tmp_path), tmp_path)
    with pytest.raises(DataError) as error:
        download(workspace, "bugs", tmp_path / "back")
    assert "tlvm upload --verify DIR" in error.value.next
    one(workspace, folder, verify=True)
    assert download(workspace, "bugs", tmp_path / "back").written == 11
