"""Packs on a machine: fetched at once, verified, not fetched again, and making room for each other."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import os
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from remote.contract import document, layout
from remote.contract.attempts import Attempts
from remote.contract.dataset_manifest import DatasetManifest, Image, decode_manifest, encode
from remote.contract.document import ContractError
from remote.contract.layout import MachineHome
from remote.contract.run_spec import DatasetRef, RunSpec, StoreRef
from remote.contract.run_status import RunStatus, State
from remote.contract.store import FREE, Begun, Retrying, Way
from remote.errors import CannotRun
from remote.images.data import Packs
from remote.job.evict import make_room
from remote.job.fetch import fetch
from remote.storage.disk import checksum_of
from remote.storage.gcs import GcsStore
from remote.store import Blob, Store, StoreChanged, StoreError, open_store, said
from tests.documents import image, run_spec
from tests.fakes.gcs_server import GcsServer
from tests.hostile_tar import ENTRIES, PLACES, Entry, hostile_tar


class Counted:
    """A store that counts what is downloaded, and waits until so many do so at once."""

    def __init__(self, store: Store, at_once: int = 0) -> None:
        self.url = store.url
        self.downloads: list[str] = []
        self._store = store
        self._together = threading.Barrier(at_once, timeout=20) if at_once else None

    def get(self, key: str) -> Blob | None:
        return self._store.get(key)

    def blobs(self, prefix: str, *, delimiter: str | None = None, match: str | None = None) -> Iterator[Blob]:
        return self._store.blobs(prefix, delimiter=delimiter, match=match)

    def folders(self, prefix: str) -> Iterator[str]:
        return self._store.folders(prefix)

    def upload(self, path: Path, key: str, *, if_generation: int | None = None, way: Way = FREE) -> Blob:
        return self._store.upload(path, key, if_generation=if_generation, way=way)

    def download(self, key: str, path: Path, *, start: int = 0, begun: Begun | None = None) -> None:
        self.downloads.append(key)
        if self._together and key.startswith(layout.PACKS):
            self._together.wait()
        self._store.download(key, path, start=start, begun=begun)

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
        images.append(image(name, size=1000, sha256=digest, pack=digest))
    data, version = encode(DatasetManifest("bugs", ["a"], "folders", "none", None, images))
    (tmp_path / "manifest").write_bytes(data)
    store.upload(tmp_path / "manifest", layout.manifest_key("bugs", version))
    spec = run_spec(
        run_id=f"fixed-extractor-20260807-142530-{run}",
        dataset=DatasetRef("bugs", version),
        store=StoreRef(str(tmp_path / "store")),
    )
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
    with pytest.raises(ContractError, match=rf"packs/{digest}.tar .*was damaged.*--verify"):
        bring(spec, home)
    assert f"{digest}.tar" not in here(home)
    assert not [name for name in here(home) if name.startswith(".")]


def test_a_pack_that_is_missing_is_named_with_a_way_out(tmp_path: Path, home: MachineHome) -> None:
    spec = published(tmp_path, home, 2)
    digest = hashlib.sha256(content(1)).hexdigest()
    (tmp_path / "store/packs" / f"{digest}.tar").unlink()
    with pytest.raises(ContractError, match=rf"packs/{digest}.tar is missing.*--verify"):
        bring(spec, home)


def test_a_manifest_that_is_damaged_is_named_with_a_way_out(tmp_path: Path, home: MachineHome) -> None:
    spec = published(tmp_path, home, 1)
    key = layout.manifest_key(spec.dataset.name, spec.dataset.version)
    (tmp_path / "store" / key).write_bytes(b"junk")
    with pytest.raises(ContractError, match=r"manifest.*--replace"):
        bring(spec, home)
    assert not list(home.root.rglob("dataset.jsonl.gz"))


def test_a_fetch_goes_on_inside_a_pack_and_in_one_that_falls_silent(
    tmp_path: Path, home: MachineHome
) -> None:
    big = hashlib.shake_128(b"big").digest(3_000_000)
    digest = hashlib.sha256(big).hexdigest()
    one = image("train/a/1.png", size=9, sha256=digest, pack=digest)
    with GcsServer() as server:
        ref = StoreRef(server.create_bucket("bugs"), server.endpoint)
        spec = dataclasses.replace(
            hostile(tmp_path, home, published(tmp_path, home, 0), one, ref=ref), store=ref
        )
        (tmp_path / "pack").write_bytes(big)
        open_store(ref).upload(tmp_path / "pack", layout.pack_key(digest))
        server.fail("truncate", on="objects.download", path="*/packs/*", times=2)
        server.fail("stall halfway", on="objects.download", path="*/packs/*")
        attempts = Attempts(sleep=lambda _: None)
        store = Retrying(
            GcsStore(ref, said, timeout_s=0.5),
            attempts,
            changed=StoreChanged,
            checksum_of=functools.partial(checksum_of, say=said),
        )
        fetch(spec, home, store, lambda done, total: None)
        sent = server.sent["objects.download"] - (tmp_path / "manifest").stat().st_size
    assert home.pack(digest).read_bytes() == big
    assert sent <= len(big) + 3 * 64 * 1024


def used(home: MachineHome, spec: RunSpec, seconds: float) -> set[str]:
    """The packs of a run, as if they had been used then."""
    packs = {image.pack for image in _images(home, spec)}
    for pack in packs:
        os.utime(home.pack(pack), (seconds, seconds))
    return packs


def _images(home: MachineHome, spec: RunSpec, tmp_path: Path | None = None) -> list[Image]:
    """As they were fetched; or, before that, as they were written last."""
    data = (tmp_path / "manifest" if tmp_path else home.run(spec.run_id).manifest).read_bytes()
    return list(decode_manifest(data, version=spec.dataset.version).images)


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


STEPS = st.sampled_from(
    ["..", ".", "", "a", "link", "%2e%2e", "a\\b", "\n", "x" * 300, "/etc", "\udcff", "%00"]
)
NUMBERS = st.integers(-1, 2**70) | st.integers(0, 8000)


@settings(max_examples=60, deadline=None)
@given(st.lists(STEPS, min_size=1, max_size=4).map("/".join), STEPS, NUMBERS, NUMBERS, st.booleans())
def test_no_hostile_version_reaches_outside_of_the_home_or_drives_packs_out(
    path: str, pack: str, offset: int, size: int, names_a_pack: bool
) -> None:
    memory = "/dev/shm"  # where there is such a place: each of the examples flushes a dozen files to the disk
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as folder:
        tmp_path = Path(folder)
        home = MachineHome(tmp_path / "home/.tlvm")
        bring(published(tmp_path, home, 1), home)
        (kept,) = here(home)
        spec = published(tmp_path, home, 1, start=1, run="bbbb")
        (good,) = _images(home, spec, tmp_path)
        named = good.pack if names_a_pack else pack
        bad = dataclasses.replace(good, path=path, pack=named, offset=offset, size=size)
        spec = hostile(tmp_path, home, spec, bad)
        with contextlib.suppress(ContractError, StoreError):
            bring(spec, home)
            assert home.pack(good.pack).stat().st_size >= offset + size >= 0
        assert kept in here(home)
        assert {place.name for place in tmp_path.iterdir()} <= {"home", "store", "pack", "manifest"}
        assert {place.name for place in home.root.iterdir()} <= {"packs", "runs", "weights", "locks"}
        assert {place.suffix for place in (home.root / "packs").iterdir()} == {".tar"}
        inside = {
            str(place.relative_to(home.runs / spec.run_id)) for place in (home.runs / spec.run_id).rglob("*")
        }
        assert inside <= {"spec.json", "dataset.jsonl.gz"}


@settings(max_examples=40, deadline=None)
@given(ENTRIES, PLACES)
def test_no_hostile_pack_reaches_outside_of_the_home(
    entries: list[Entry], places: list[tuple[int, int]]
) -> None:
    memory = "/dev/shm"
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as folder:
        tmp_path = Path(folder)
        home = MachineHome(tmp_path / "home/.tlvm")
        (tmp_path / "outside").mkdir()
        data = hostile_tar(entries, tmp_path / "outside")
        digest = hashlib.sha256(data).hexdigest()
        images = [
            image(f"train/a/{number}.png", pack=digest, offset=offset, size=size)
            for number, (offset, size) in enumerate(places)
        ]
        spec = hostile(tmp_path, home, published(tmp_path, home, 0), *images)
        (tmp_path / "pack").write_bytes(data)
        open_store(spec.store).upload(tmp_path / "pack", layout.pack_key(digest))
        whole = all(offset + size <= len(data) for offset, size in places)
        with contextlib.nullcontext() if whole else pytest.raises(ContractError, match="ends before"):
            bring(spec, home)
        if whole:
            assert home.pack(digest).read_bytes() == data
        else:  # had it come by another version, which names less of it
            (home.root / "packs").mkdir(parents=True, exist_ok=True)
            home.pack(digest).write_bytes(data)
        packs = Packs(home.pack)
        for one in images:
            cut = data[one.offset :][: one.size]
            with contextlib.nullcontext() if len(cut) == one.size else pytest.raises(CannotRun):
                assert packs.read(one) == cut
        packs.close()
        assert {path.name for path in tmp_path.iterdir()} == {"home", "store", "pack", "manifest", "outside"}
        assert not list((tmp_path / "outside").iterdir())
        assert not any(path.is_symlink() or path.name == "out" for path in tmp_path.rglob("*"))
        assert [path.name for path in (home.root / "packs").iterdir()] == [f"{digest}.tar"]


def hostile(
    tmp_path: Path, home: MachineHome, spec: RunSpec, *bad: Image, ref: StoreRef | None = None
) -> RunSpec:
    """The same run, of a version that holds these images, as somebody may have written it past every check."""
    data, version = encode(DatasetManifest("bugs", ["a"], "folders", "none", None, list(bad)))
    (tmp_path / "manifest").write_bytes(data)
    open_store(ref or spec.store).upload(tmp_path / "manifest", layout.manifest_key("bugs", version))
    return dataclasses.replace(spec, dataset=DatasetRef("bugs", version))
