"""The contract of a store, line by line, on every store of both halves. `stores.py` says which."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.conformance.stores import CASES, Case, Place, place
from tests.fakes.gcs_buckets import crc32c
from tests.fakes.gcs_server import GcsServer

PAGE_SIZE = 3
AWKWARD_KEYS = [
    "a b/c d",
    "ümläut/日本語/🌲",
    "percent%20/100%",
    "question?/hash#/plus+/and&equals=",
    "'quotes\"/<angle>/[square]/{curly}",
    "~tilde/.hidden/..dots/trailing.",
    "deep/" * 20 + "end",
    "x" * 200,
]
BAD_KEYS = [
    "", ".", "..", "/", "/etc/passwd", "../outside", "a/../b", "a/./b", "a//b", "a/", "./a",
    "nul\0", "line\nfeed", "carriage\rreturn", "back\\slash", "not utf-8 \udcff", ".tmp/lock", ".tmp", "x" * 1100,
]  # fmt: skip


@pytest.fixture(params=CASES, ids=lambda case: str(case.name))
def here(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    case: Case = request.param
    (tmp_path / "files").mkdir()
    with GcsServer(page_size=PAGE_SIZE) as server:
        yield place(case, tmp_path, server)
    assert server.errors == []
    assert {left.name for left in tmp_path.glob("store/**/.tmp/*")} <= {"lock"}


def test_a_blob_that_is_not_there_is_none(here: Place) -> None:
    assert here.store.get("a/b") is None
    assert here.keys() == []


def test_an_uploaded_blob_is_known_by_size_checksum_and_generation(here: Place) -> None:
    blob = here.put("a/b", b"hello")
    assert (blob.key, blob.size) == ("a/b", 5)
    assert blob.crc32c == crc32c(b"hello")
    assert blob.generation > 0
    assert here.store.get("a/b") == blob
    assert list(here.store.blobs("a/")) == [blob]
    assert here.read("a/b") == b"hello"


def test_an_empty_blob(here: Place) -> None:
    assert here.put("empty", b"").size == 0
    assert here.read("empty") == b""
    assert here.read("empty", start=0) == b""
    assert here.read("empty", start=1) == b""
    assert here.keys() == ["empty"]


def test_a_large_blob(here: Place) -> None:
    content = hashlib.shake_128(b"large").digest(20_000_000)
    blob = here.put("large", content)
    assert blob == here.store.get("large")
    assert blob.crc32c == crc32c(content)
    assert here.read("large") == content
    assert here.read("large", start=19_999_000) == content[19_999_000:]
    if here.server:
        assert here.server.requests["objects.insert.chunk"] == 1


def test_awkward_keys(here: Place) -> None:
    for key in AWKWARD_KEYS:
        here.put(key, key.encode())
    assert here.keys() == sorted(AWKWARD_KEYS)
    for key in AWKWARD_KEYS:
        assert here.read(key) == key.encode()
        here.store.delete(key)
    assert here.keys() == []


def test_what_is_no_key_is_refused(here: Place) -> None:
    file = here.file(b"content")
    for key in BAD_KEYS:
        with pytest.raises(here.case.half.refused, match="takes no such key"):
            here.store.get(key)
        with pytest.raises(here.case.half.refused, match="takes no such key"):
            here.store.upload(file, key)
        with pytest.raises(here.case.half.refused, match="takes no such key"):
            here.store.download(key, file)
        with pytest.raises(here.case.half.refused, match="takes no such key"):
            here.store.delete(key)
    assert here.keys() == []
    assert file.read_bytes() == b"content"


def test_each_replacement_has_another_generation(here: Place) -> None:
    generations = [here.put("a", b"same").generation for _ in range(5)]
    assert len(set(generations)) == 5
    first = here.put("b")
    here.store.delete("b")
    assert here.put("b").generation != first.generation


def test_only_if_absent(here: Place) -> None:
    here.put("a", b"first", if_generation=0)
    with pytest.raises(here.case.half.changed, match="written by somebody else"):
        here.put("a", b"second", if_generation=0)
    with pytest.raises(here.case.half.changed):  # the same content is a conflict too: somebody else's
        here.put("a", b"first", if_generation=0)
    assert here.read("a") == b"first"


def test_only_if_still_that_generation(here: Place) -> None:
    with pytest.raises(here.case.half.changed):
        here.put("a", b"nothing there", if_generation=7)
    assert here.store.get("a") is None
    old = here.put("a", b"old")
    new = here.put("a", b"new", if_generation=old.generation)
    with pytest.raises(here.case.half.changed):
        here.put("a", b"newer", if_generation=old.generation)
    assert here.store.get("a") == new
    assert here.read("a") == b"new"


def test_delete(here: Place) -> None:
    here.store.delete("a/b")
    here.put("a/b")
    here.put("a/c")
    here.store.delete("a/b")
    here.store.delete("a/b")
    assert here.keys() == ["a/c"]
    here.store.delete("a/c")
    assert here.keys() == []


def test_delete_only_that_generation(here: Place) -> None:
    old = here.put("a", b"old")
    new = here.put("a", b"new")
    with pytest.raises(here.case.half.changed):
        here.store.delete("a", if_generation=old.generation)
    with pytest.raises(here.case.half.changed):
        here.store.delete("a", if_generation=0)
    assert here.store.get("a") == new
    here.store.delete("a", if_generation=new.generation)
    here.store.delete("a", if_generation=new.generation)  # missing is success
    assert here.store.get("a") is None


def test_a_download_replaces_the_file_and_makes_its_folder(here: Place) -> None:
    here.put("a", b"fresh")
    path = here.tmp_path / "new folder" / "file"
    here.store.download("a", path)
    assert path.read_bytes() == b"fresh"
    here.put("a", b"fresher")
    here.store.download("a", path)
    assert path.read_bytes() == b"fresher"
    assert [found.name for found in path.parent.iterdir()] == ["file"]


def test_a_download_from_a_byte_on(here: Place) -> None:
    here.put("a", b"0123456789")
    assert here.read("a", start=0) == b"0123456789"
    assert here.read("a", start=4) == b"456789"
    assert here.read("a", start=10) == b""
    assert here.read("a", start=1000) == b""


def test_a_download_of_nothing_leaves_the_file_alone(here: Place) -> None:
    path = here.tmp_path / "kept"
    path.write_bytes(b"kept")
    with pytest.raises(here.case.half.missing, match="a/b"):
        here.store.download("a/b", path)
    with pytest.raises(here.case.half.missing):
        here.store.download("a/b", path, start=3)
    assert path.read_bytes() == b"kept"
    assert [found.name for found in path.parent.iterdir()] == ["kept"]


def test_a_download_that_cannot_take_its_place_leaves_nothing(here: Place) -> None:
    here.put("a")
    folder = here.tmp_path / "folder" / "in the way"
    folder.mkdir(parents=True)
    with pytest.raises(here.case.half.any):
        here.store.download("a", folder)
    assert list(folder.parent.iterdir()) == [folder]


def test_a_file_that_is_not_there_is_not_uploaded(here: Place) -> None:
    with pytest.raises(here.case.half.any, match="vanished"):
        here.store.upload(here.tmp_path / "vanished", "a")
    with pytest.raises(here.case.half.any):
        here.store.upload(here.tmp_path, "a")  # a folder
    assert here.keys() == []


def test_listing_in_key_order_over_many_pages(here: Place) -> None:
    keys = ["a", "a-b", "a.txt", "a0/b", "a0/c/d", "aa", "b/1", "b/10", "b/2", "b/2/3", "ü", "日"]
    keys.remove("b/2")  # a folder cannot hold b/2 beside b/2/3
    for key in reversed(keys):
        here.put(key)
    assert here.keys() == sorted(keys)
    assert here.keys("b/") == ["b/1", "b/10", "b/2/3"]
    assert here.keys("b/1") == ["b/1", "b/10"]
    assert here.keys("a0/c") == ["a0/c/d"]
    assert here.keys("a") == ["a", "a-b", "a.txt", "a0/b", "a0/c/d", "aa"]
    for nothing in ("c", "a/", "b/1/", "../", "/", "b//"):
        assert here.keys(nothing) == []
    if here.server:
        assert here.server.requests["objects.list"] > 8


def test_listing_down_to_a_delimiter(here: Place) -> None:
    for key in ("top", "runs/x/spec.json", "runs/x/model/a", "runs/x/z", "runs/y/spec.json", "runs-old"):
        here.put(key)
    assert here.keys(delimiter="/") == ["runs-old", "top"]
    assert here.keys("runs", delimiter="/") == ["runs-old"]
    assert here.keys("runs/", delimiter="/") == []
    assert here.keys("runs/x/", delimiter="/") == ["runs/x/spec.json", "runs/x/z"]
    assert here.keys("runs/x/", delimiter=".") == ["runs/x/model/a", "runs/x/z"]


def test_listing_folders(here: Place) -> None:
    for key in (
        "top",
        "runs/x/spec.json",
        "runs/x/model/a",
        "runs/y-1/spec.json",
        "runs/y/spec.json",
        "runs-old",
    ):
        here.put(key)
    assert list(here.store.folders("runs/")) == ["x", "y-1", "y"]
    assert list(here.store.folders("")) == ["runs"]
    assert list(here.store.folders("runs/x/")) == ["model"]
    for nothing in ("none/", "runs/x/model/", "../", "runs//"):
        assert list(here.store.folders(nothing)) == []


def test_listing_what_matches(here: Place) -> None:
    for run in ("x", "y-1", "y", "z*"):
        for name in ("spec.json", "log/0", "log/1", "log/2", "model/spec.json", "spec.json.old"):
            here.put(f"runs/{run}/{name}")
    here.put("runs/spec.json")
    here.put("runs-old/x/spec.json")

    def keys(prefix: str, match: str) -> list[str]:
        return [blob.key for blob in here.store.blobs(prefix, match=match)]

    asked = here.server.requests["objects.list"] if here.server else 0
    specs = [f"runs/{run}/spec.json" for run in ("x", "y-1", "y", "z*")]
    assert keys("runs/", "*/spec.json") == specs
    if here.server:
        assert (
            here.server.requests["objects.list"] - asked == 2
        )  # pages of three: what does not match fills none
    assert keys("runs/y", "*/spec.json") == ["runs/y-1/spec.json", "runs/y/spec.json"]
    assert keys("runs/", "*/log/*")[:4] == ["runs/x/log/0", "runs/x/log/1", "runs/x/log/2", "runs/y-1/log/0"]
    assert keys("runs/z*/", "*.json") == ["runs/z*/spec.json"]
    assert keys("runs/x/spec", ".json") == ["runs/x/spec.json"]
    assert keys("runs/", "*") == ["runs/spec.json"]
    for nothing in ("*/none", "spec", "[xy]/spec.json", ""):
        assert keys("runs/", nothing) == []


def test_one_of_many_threads_creates(here: Place) -> None:
    def create(number: int) -> bool:
        file = here.file(str(number).encode(), f"file-{number}")
        try:
            here.store.upload(file, "lock", if_generation=0)
        except here.case.half.changed:
            return False
        return True

    with ThreadPoolExecutor(16) as pool:
        winners = [number for number, won in enumerate(pool.map(create, range(16))) if won]
    assert len(winners) == 1
    assert here.read("lock") == str(winners[0]).encode()


def test_no_update_of_many_threads_is_lost(here: Place) -> None:
    """Read, add one, write back if nobody else did: the way HEAD of a dataset is replaced."""
    here.put("count", b"0")

    def add(number: int) -> None:
        path = here.tmp_path / f"count-{number}"
        while True:
            blob = here.store.get("count")
            assert blob is not None
            here.store.download("count", path)
            path.write_text(str(int(path.read_text()) + 1))
            try:
                here.store.upload(path, "count", if_generation=blob.generation)
            except here.case.half.changed:
                continue
            return

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(add, range(6)))
    assert here.read("count") == b"6"


def test_many_threads_share_a_store(here: Place) -> None:
    def both_ways(number: int) -> bytes:
        path = here.file(str(number).encode() * 1000, f"file-{number}")
        here.store.upload(path, f"many/{number:03}")
        here.store.download(f"many/{number:03}", path)
        return path.read_bytes()

    with ThreadPoolExecutor(32) as pool:
        results = list(pool.map(both_ways, range(64)))
    assert results == [str(number).encode() * 1000 for number in range(64)]
    assert len(here.keys("many/")) == 64


def test_a_bucket_that_is_not_there(here: Place) -> None:
    if here.server is None:
        return
    here.server.api.buckets.drop("trees")
    file = here.file(b"content")
    for act in (
        lambda: here.store.get("a"),
        here.keys,
        lambda: here.store.upload(file, "a"),
        lambda: here.store.download("a", file),
        lambda: here.store.delete("a"),
    ):
        with pytest.raises(here.case.half.missing, match="bucket"):
            act()
    assert file.read_bytes() == b"content"
