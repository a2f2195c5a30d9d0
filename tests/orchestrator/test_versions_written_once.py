"""Packs and manifests are written only where there are none, and replaced only where they are as they were seen."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.datasets.packs import condemned
from orchestrator.datasets.packs.condemned import Entry
from orchestrator.datasets.publishing import versions
from orchestrator.errors import DataError
from orchestrator.stores import checksum_of, open_store
from orchestrator.stores.base import FREE, Begun, Blob, Store, Way
from remote.contract import layout
from remote.contract.dataset_manifest import DatasetManifest, encode
from remote.contract.run_spec import StoreRef
from remote.storage import gcs
from tests.fakes.gcs_server import GcsServer

CONTENT = b"a pack"
PACK = hashlib.sha256(CONTENT).hexdigest()
MANIFEST = DatasetManifest("bugs", [], "folders", "none", None, [])


class Closed(Exception):
    """A gate."""


class Overtaken:
    """A store in which somebody else acts just before the next upload; what was uploaded, and on which condition."""

    def __init__(self, store: Store) -> None:
        self.url = store.url
        self.act: Callable[[], object] | None = None
        self.conditions: list[int | None] = []
        self._store = store

    def get(self, key: str) -> Blob | None:
        return self._store.get(key)

    def blobs(self, prefix: str, *, delimiter: str | None = None, match: str | None = None) -> Iterator[Blob]:
        return self._store.blobs(prefix, delimiter=delimiter, match=match)

    def folders(self, prefix: str) -> Iterator[str]:
        return self._store.folders(prefix)

    def upload(self, path: Path, key: str, *, if_generation: int | None = None, way: Way = FREE) -> Blob:
        def overtaken() -> None:
            way.gate()
            act, self.act = self.act, None
            if act is not None:
                act()
            self.conditions.append(if_generation)

        return self._store.upload(path, key, if_generation=if_generation, way=replace(way, gate=overtaken))

    def download(self, key: str, path: Path, *, start: int = 0, begun: Begun | None = None) -> None:
        self._store.download(key, path, start=start, begun=begun)

    def delete(self, key: str, *, if_generation: int | None = None) -> None:
        self._store.delete(key, if_generation=if_generation)


class Place:
    def __init__(self, tmp_path: Path, ref: StoreRef) -> None:
        self.plain = open_store(ref)
        self.store = Overtaken(self.plain)
        self._folder = tmp_path

    def put(self, key: str, content: bytes) -> Blob:
        return self.plain.upload(self.file(content), key)

    def file(self, content: bytes) -> Path:
        path = self._folder / hashlib.sha256(content).hexdigest()
        path.write_bytes(content)
        return path


@pytest.fixture(params=["folder", "bucket"])
def here(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    """In the bucket all is sent as large packs are: the service knows before the first byte whether it is wanted."""
    if request.param == "folder":
        yield Place(tmp_path, StoreRef(str(tmp_path / "store")))
        return
    monkeypatch.setattr(gcs, "AT_ONCE_BYTES", 1)
    with GcsServer() as server:
        yield Place(tmp_path, StoreRef(server.create_bucket("bugs"), server.endpoint))
    assert server.errors == []


def put(store: Store, version: str, data: bytes) -> int:
    """The manifest, as an upload writes it."""
    return versions.put_encoded(store, "bugs", version, data, versions.find_manifest(store, "bugs", version))


def test_a_pack_is_written_only_where_there_is_none(here: Place) -> None:
    key = layout.pack_key(PACK)
    theirs: list[Blob] = []
    here.store.act = lambda: theirs.append(here.put(key, CONTENT))
    _, was_sent = versions.put_pack(here.store, here.file(CONTENT), PACK)
    assert (was_sent, here.store.conditions) == (False, [0])
    assert here.plain.get(key) == theirs[0]  # with its generation: it was not written a second time


def test_a_damaged_pack_is_replaced_only_as_it_was_seen(here: Place) -> None:
    key = layout.pack_key(PACK)
    bent = here.put(key, b"a pacK")
    healed: list[Blob] = []
    here.store.act = lambda: healed.append(here.put(key, CONTENT))
    _, was_sent = versions.put_pack(here.store, here.file(CONTENT), PACK)
    assert (was_sent, here.store.conditions) == (False, [bent.generation])
    assert here.plain.get(key) == healed[0]


def test_a_pack_that_is_there_stays(here: Place) -> None:
    """`gc` was about to delete it."""
    there = here.put(layout.pack_key(PACK), CONTENT)
    entry = Entry(str(there.generation), 0.0)
    condemned.change(here.plain, lambda list_: replace(list_, packs={PACK: entry}))
    assert versions.put_pack(here.store, here.file(CONTENT), PACK) == (there, False)
    assert condemned.load(here.plain)[0].packs == {}


@pytest.mark.parametrize("content", [None, b"a pacK", CONTENT])
def test_no_byte_of_a_pack_travels_before_its_gate(here: Place, content: bytes | None) -> None:
    key = layout.pack_key(PACK)
    there = here.put(key, content) if content else None
    asked: list[str] = []

    def closed() -> None:
        asked.append("may it go?")
        raise Closed

    with pytest.raises(Closed):
        versions.put_pack(here.plain, here.file(CONTENT), PACK, Way(gate=closed))
    assert asked == ["may it go?"]
    assert here.plain.get(key) == there


def test_a_manifest_is_written_only_where_there_is_none(here: Place) -> None:
    data, version = encode(MANIFEST)
    key = layout.manifest_key("bugs", version)
    theirs: list[Blob] = []
    here.store.act = lambda: theirs.append(here.put(key, data))
    assert put(here.store, version, data) == 0
    assert here.store.conditions == [0]
    assert here.plain.get(key) == theirs[0]


def test_a_damaged_manifest_is_replaced_only_as_it_was_seen(here: Place) -> None:
    data, version = encode(MANIFEST)
    key = layout.manifest_key("bugs", version)
    bent = here.put(key, b"junk")
    here.store.act = lambda: here.put(key, b"other junk")
    with pytest.raises(DataError):
        put(here.store, version, data)
    assert here.store.conditions == [bent.generation]


def test_a_pack_of_another_size_or_checksum_is_a_lost_one(here: Place) -> None:
    blob = here.put(layout.pack_key(PACK), CONTENT)
    size, crc32c = checksum_of(here.file(CONTENT))
    assert (blob.size, blob.crc32c) == (size, crc32c)
    least = {PACK: size}
    assert versions.lost_packs(here.store, least, {PACK: (size, crc32c)}) == set()
    assert versions.lost_packs(here.store, least, {PACK: (size, "AAAAAA==")}) == {PACK}
    assert versions.lost_packs(here.store, least, {PACK: (size + 1, crc32c)}) == {PACK}
    assert versions.lost_packs(here.store, least, {}) == set()  # nobody knows better
    assert versions.lost_packs(here.store, {PACK: size + 1}, {}) == {PACK}
    assert versions.lost_packs(here.store, {"0" * 64: 0}, {}) == {"0" * 64}
