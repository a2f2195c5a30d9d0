"""Packs on a machine: fetched at once, verified, not fetched again, and making room for each other."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from remote.contract import document, layout
from remote.contract.dataset_manifest import DatasetManifest, Image, decode_manifest, encode
from remote.contract.document import ContractError
from remote.contract.layout import MachineHome
from remote.contract.run_spec import DatasetRef, RunSpec, StoreRef, WeightsRef
from remote.contract.run_status import RunStatus, State
from remote.job.evict import make_room
from remote.job.fetch import MANIFEST_FILE, fetch
from remote.store import Blob, Store, open_store


class Counted:
    """A store that counts what is downloaded, and waits until so many do so at once."""

    def __init__(self, store: Store, at_once: int = 0) -> None:
        self.url = store.url
        self.downloads: list[str] = []
        self._store = store
        self._together = threading.Barrier(at_once, timeout=20) if at_once else None

    def get(self, key: str) -> Blob | None:
        return self._store.get(key)

    def blobs(self, prefix: str, *, delimiter: str | None = None) -> Iterator[Blob]:
        return self._store.blobs(prefix, delimiter=delimiter)

    def upload(self, path: Path, key: str, *, if_generation: int | None = None) -> Blob:
        return self._store.upload(path, key, if_generation=if_generation)

    def download(self, key: str, path: Path, *, start: int = 0) -> None:
        self.downloads.append(key)
        if self._together and key.startswith(layout.PACKS):
            self._together.wait()
        self._store.download(key, path, start=start)

    def delete(self, key: str, *, if_generation: int | None = None) -> None:
        self._store.delete(key, if_generation=if_generation)


@pytest.fixture
def home(tmp_path: Path) -> MachineHome:
    return MachineHome(tmp_path / "home/.tlvm")


def content(number: int) -> bytes:
    return b"pack %d " % number * 1000


def published(tmp_path: Path, home: MachineHome, packs: int, *, start: int = 0, run: str = "aaaa") -> RunSpec:
    """A dataset of so many packs in the store, and a run of it in its folder."""
    store = open_store(StoreRef(str(tmp_path / "store")))
    images = []
    for number in range(start, start + packs):
        (tmp_path / "pack").write_bytes(content(number))
        digest = hashlib.sha256(content(number)).hexdigest()
        store.upload(tmp_path / "pack", layout.pack_key(digest))
        name = f"train/a/{number}.png"
        images.append(
            Image(name, "train", "a", "folder", None, 1000, digest, 0, 1, 1, 1, 1, 0, "RGB", digest, 512)
        )
    data, version = encode(DatasetManifest("bugs", ["a"], "folders", "none", None, images))
    (tmp_path / "manifest").write_bytes(data)
    store.upload(tmp_path / "manifest", layout.manifest_key("bugs", version))
    spec = RunSpec(
        run_id=f"fixed-extractor-20260807-142530-{run}", scenario="fixed-extractor",
        dataset=DatasetRef("bugs", version), model="resnet18", weights=WeightsRef("none"),
        store=StoreRef(str(tmp_path / "store")), bundle="0" * 64, parameters={}, seed=0, owner="ana", project="bees",
        machine="m", created="2026-08-07T14:25:30+00:00", max_hours=1.0, tlvm_version="0",
    )  # fmt: skip
    folder = home.run(spec.run_id)
    folder.root.mkdir(parents=True)
    document.write(folder.spec, spec)
    return spec


def bring(spec: RunSpec, home: MachineHome, *, at_once: int = 0) -> list[str]:
    store = Counted(open_store(spec.store), at_once)
    fetch(spec, home, store, lambda done, total: None)
    return store.downloads


def here(home: MachineHome) -> set[str]:
    return {path.name for path in (home.root / "packs").iterdir()}


def test_packs_come_at_once_and_only_once(tmp_path: Path, home: MachineHome) -> None:
    spec = published(tmp_path, home, 4)
    assert (
        len(bring(spec, home, at_once=4)) == 5
    )  # and the manifest; one after the other the barrier would break
    assert {(home.root / "packs" / name).read_bytes() for name in here(home)} == {
        content(n) for n in range(4)
    }
    assert bring(published(tmp_path, home, 4, run="bbbb"), home) == [
        layout.manifest_key("bugs", spec.dataset.version)
    ]


def test_what_is_missing_or_cut_short_is_fetched_again(tmp_path: Path, home: MachineHome) -> None:
    spec = published(tmp_path, home, 3)
    bring(spec, home)
    first, second, _ = sorted((home.root / "packs").iterdir())
    first.unlink()
    second.write_bytes(second.read_bytes()[:100])
    assert sorted(bring(spec, home)) == [f"packs/{first.name}", f"packs/{second.name}"]


def test_a_damaged_pack_is_named_and_does_not_stay(tmp_path: Path, home: MachineHome) -> None:
    spec = published(tmp_path, home, 2)
    digest = hashlib.sha256(content(1)).hexdigest()
    (tmp_path / "store/packs" / f"{digest}.tar").write_bytes(content(7))
    with pytest.raises(ContractError, match=rf"packs/{digest}.tar .*was damaged.*--replace"):
        bring(spec, home)
    assert f"{digest}.tar" not in here(home)
    assert not [name for name in here(home) if name.startswith(".")]


def used(home: MachineHome, spec: RunSpec, seconds: float) -> set[str]:
    """The packs of a run, as if they had been used then."""
    packs = {image.pack for image in _images(home, spec)}
    for pack in packs:
        os.utime(home.pack(pack), (seconds, seconds))
    return packs


def _images(home: MachineHome, spec: RunSpec) -> list[Image]:
    data = (home.run(spec.run_id).root / MANIFEST_FILE).read_bytes()
    return decode_manifest(data, version=spec.dataset.version).images


def say(home: MachineHome, spec: RunSpec, state: State) -> None:
    document.write(home.run(spec.run_id).status, RunStatus(spec.run_id, state, "2026-08-07T14:25:30+00:00"))


def test_what_was_used_longest_ago_makes_room(tmp_path: Path, home: MachineHome) -> None:
    specs = [published(tmp_path, home, 2, start=10 * n, run=f"aaa{n}") for n in range(3)]
    packs = []
    for number, spec in enumerate(specs):
        bring(spec, home)
        packs.append(used(home, spec, 1000.0 * (number + 1)))
        say(home, spec, "SUCCEEDED")
    size = sum(path.stat().st_size for path in (home.root / "packs").iterdir())
    bring(specs[0], home)  # used again: now the second one is the oldest
    assert make_room(home, 0, keep=set(), limit_bytes=size) == []
    assert set(make_room(home, 15000, keep=set(), limit_bytes=size)) == packs[1]
    assert here(home) == {f"{pack}.tar" for pack in packs[0] | packs[2]}


def test_no_pack_of_an_unfinished_run_goes(tmp_path: Path, home: MachineHome) -> None:
    specs = [published(tmp_path, home, 2, start=10 * n, run=f"aaa{n}") for n in range(3)]
    packs = []
    states: tuple[State, ...] = ("RUNNING", "INTERRUPTED", "FAILED")
    for spec, state in zip(specs, states, strict=True):
        bring(spec, home)
        packs.append(used(home, spec, 1000.0))
        say(home, spec, state)
    assert set(make_room(home, 0, keep=set(), limit_bytes=0)) == packs[2]
    assert make_room(home, 0, keep=set(), limit_bytes=0) == []
