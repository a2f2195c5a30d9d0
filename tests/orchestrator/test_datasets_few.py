"""A few images of each class and split, out of as few packs as can be."""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path

import pytest

from orchestrator.datasets.few import few, put_few
from orchestrator.datasets.publishing.versions import load_manifest, read_head
from orchestrator.errors import DataError, NotFoundError
from orchestrator.workflows.data.upload import upload
from orchestrator.workflows.workspace import Workspace
from remote.contract import layout
from remote.contract.dataset_manifest import Image, Split
from tests.e2e.test_wheel import few_photos
from tests.orchestrator.finished_runs import image, opened

EACH: dict[Split, int] = {"train": 2, "val": 2, "test": 2}


def spread(*packs: str) -> list[Image]:
    """Two classes in two splits, six images of each, dealt out over the packs in turn."""
    found = []
    splits: tuple[Split, ...] = ("train", "val")
    for split in splits:
        for label in ("birch", "oak"):
            for number in range(6):
                one = image(f"{split}-{label}-{number}.jpg", label, split=split)
                found.append(dataclasses.replace(one, pack=packs[number % len(packs)]))
    return found


def test_two_of_each_class_and_split_out_of_one_pack() -> None:
    chosen = few(spread("a", "b", "c"), EACH)
    assert len({one.pack for one in chosen}) == 1
    cells = Counter((one.split, one.class_name) for one in chosen)
    assert set(cells.values()) == {2} and len(cells) == 4
    assert [one.path for one in chosen] == sorted(one.path for one in chosen)


def test_what_one_pack_lacks_comes_out_of_another_and_what_is_left_out_stays_so() -> None:
    images = spread("a")
    rare = dataclasses.replace(image("rare.jpg", "yew", split="train"), pack="z")
    out = dataclasses.replace(image("out.jpg", "yew", split="train"), pack="y", excluded="equal to it")
    twice = dataclasses.replace(rare, path="train/yew/twice.jpg", pack="x")
    chosen = few([*images, rare, out, twice], EACH)
    assert {one.pack for one in chosen} == {"a", "z"}
    assert [one.path for one in chosen if one.class_name == "yew"] == [rare.path]


def test_groups_are_kept_apart_or_left_out() -> None:
    def grouped(groups: list[str | None]) -> list[str | None]:
        images = [
            dataclasses.replace(image(f"{number}.jpg", "oak", group=group), pack="a")
            for number, group in enumerate(groups)
        ]
        return [one.group for one in few(images, EACH)]

    assert grouped(["p1", "p1", "p1", "p2"]) == ["p1", "p2"]
    assert grouped(["p1", "p1", "p1"]) == [None, None]
    assert grouped([None, None, "p1"]) == [None, None]


@pytest.fixture
def source(tmp_path: Path) -> Workspace:
    (tmp_path / "source").mkdir()
    workspace = opened(tmp_path / "source")
    few_photos(tmp_path / "photos")
    upload(workspace, tmp_path / "photos")
    return workspace


def test_they_are_a_version_of_their_own_elsewhere(source: Workspace, tmp_path: Path) -> None:
    (tmp_path / "target").mkdir()
    target = opened(tmp_path / "target").store
    version = read_head(source.store, "photos").version
    whole = load_manifest(source.store, "photos", version)
    found, images, packs = put_few(source.store, whole, target, each=EACH)
    small = load_manifest(target, "photos", found)
    assert read_head(target, "photos").version == found != version
    assert (images, packs) == (len(small.images), len({one.pack for one in small.images})) != (0, 0)
    assert (small.classes, small.flips) == (whole.classes, whole.flips)
    (pack,) = small.packs()
    target.download(layout.pack_key(pack), tmp_path / "pack")
    data = (tmp_path / "pack").read_bytes()
    before = {one.sha256 for one in whole.images}
    for one in small.images:
        assert one.sha256 in before and len(data[one.offset : one.offset + one.size]) == one.size


def test_a_pack_that_is_damaged_or_gone_is_said(source: Workspace, tmp_path: Path) -> None:
    (tmp_path / "target").mkdir()
    target = opened(tmp_path / "target").store
    whole = load_manifest(source.store, "photos", read_head(source.store, "photos").version)
    (key,) = (layout.pack_key(pack) for pack in whole.packs())
    source.store.download(key, tmp_path / "pack")
    data = bytearray((tmp_path / "pack").read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "pack").write_bytes(data)
    source.store.upload(tmp_path / "pack", key)
    with pytest.raises(DataError, match="is damaged"):
        put_few(source.store, whole, target, each=EACH)
    source.store.delete(key)
    with pytest.raises(NotFoundError):
        put_few(source.store, whole, target, each=EACH)
