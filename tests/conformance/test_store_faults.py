"""What a store does when the service behind it stumbles, on both halves. Nothing waits: the clock is a list."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.errors import AuthError
from tests.conformance.stores import CASES, IMPATIENT_GCS, LAPTOP, RETRYING_GCS, Case, Place, place
from tests.fakes.gcs_faults import Kind
from tests.fakes.gcs_server import GcsServer

PAGE_SIZE = 2
UNREADY: list[Kind] = ["408", "429", "500", "503", "reset", "reset after", "503 after"]
UPLOADS = {"small": ("objects.insert", 100), "large": ("objects.insert.chunk", 9 * 1024 * 1024)}


@pytest.fixture(params=RETRYING_GCS, ids=lambda case: str(case.name))
def here(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    yield from _place(request.param, tmp_path)


@pytest.fixture(params=IMPATIENT_GCS, ids=lambda case: str(case.name))
def impatient(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    yield from _place(request.param, tmp_path)


def _place(case: Case, tmp_path: Path) -> Iterator[Place]:
    (tmp_path / "files").mkdir()
    with GcsServer(page_size=PAGE_SIZE) as server:
        yield place(case, tmp_path, server)
    assert server.errors == []
    assert server.faults.unused() == []
    assert list((tmp_path / "files").glob(".*")) == []  # no part of a download stays


def _server(place: Place) -> GcsServer:
    assert place.server
    return place.server


@pytest.mark.parametrize("kind", UNREADY)
def test_every_verb_gets_over_two_failures(here: Place, kind: Kind) -> None:
    server = _server(here)
    for on in ("objects.insert", "objects.get", "objects.list", "objects.download", "objects.delete"):
        server.fail(kind, on=on, times=2)
    blob = here.put("a", b"hello")
    assert here.store.get("a") == blob
    assert list(here.store.blobs("")) == [blob]
    assert here.read("a") == b"hello"
    here.store.delete("a")
    assert here.store.get("a") is None
    assert here.waits_s == [1.0, 2.0] * 5


@pytest.mark.parametrize("size", UPLOADS)
@pytest.mark.parametrize("kind", ["503", "503 after", "reset after"])
def test_an_upload_that_was_accepted_but_not_confirmed_is_a_success(
    here: Place, kind: Kind, size: str
) -> None:
    server = _server(here)
    on, length = UPLOADS[size]
    content = b"x" * length
    server.fail(kind, on=on)
    first = here.put("a", content, if_generation=0)
    assert here.store.get("a") == first
    server.fail(kind, on=on, times=2)
    second = here.put("a", content, if_generation=first.generation)
    assert second.generation != first.generation
    assert here.store.get("a") == second


@pytest.mark.parametrize("kind", ["503", "reset"])
def test_the_blob_of_somebody_else_is_a_conflict_even_after_a_failure(here: Place, kind: Kind) -> None:
    theirs = here.put("a", b"theirs")
    _server(here).fail(kind, on="objects.insert", times=2)
    with pytest.raises(here.case.half.changed):
        here.put("a", b"mine", if_generation=0)
    with pytest.raises(here.case.half.changed):
        here.put("a", b"mine", if_generation=theirs.generation - 1)
    assert here.read("a") == b"theirs"


def test_a_delete_that_was_done_but_not_confirmed_is_a_success(here: Place) -> None:
    blob = here.put("a")
    _server(here).fail("503 after", on="objects.delete")
    here.store.delete("a", if_generation=blob.generation)
    assert here.store.get("a") is None


def test_a_listing_goes_on_where_it_broke(here: Place) -> None:
    keys = [f"key-{number:02}" for number in range(9)]
    for key in keys:
        here.put(key)
    server = _server(here)
    found = []
    for blob in here.store.blobs(""):
        found.append(blob.key)
        if len(found) in {2, 4, 6, 8}:  # the next page breaks, more often than one listing may
            server.fail("503", on="objects.list", times=2)
    assert found == keys
    assert here.waits_s == [1.0, 2.0] * 4


def test_a_corrupted_download_is_noticed_and_fetched_again(here: Place) -> None:
    here.put("a", b"precious")
    _server(here).fail("corrupt", on="objects.download", times=2)
    assert here.read("a") == b"precious"
    assert here.waits_s == [1.0, 2.0]


def test_a_download_that_stays_corrupt_never_arrives(here: Place) -> None:
    here.put("a", b"precious")
    path = here.tmp_path / "kept"
    path.write_bytes(b"kept")
    _server(here).fail("corrupt", on="objects.download", times=4)
    with pytest.raises(here.case.half.transient):
        here.store.download("a", path)
    assert path.read_bytes() == b"kept"


def test_a_download_that_breaks_off_is_fetched_again(here: Place) -> None:
    here.put("a", b"0123456789")
    _server(here).fail("truncate", on="objects.download", times=2)
    assert here.read("a") == b"0123456789"
    _server(here).fail("truncate", on="objects.download")
    assert here.read("a", start=2) == b"23456789"


def test_a_silent_server_is_given_up_and_asked_again(impatient: Place) -> None:
    server = _server(impatient)
    blob = impatient.put("a", b"hello")
    server.fail("stall", on="objects.get")
    server.fail("stall", on="objects.download")
    assert impatient.store.get("a") == blob
    assert impatient.read("a") == b"hello"
    assert impatient.waits_s == [1.0, 1.0]


def test_waits_double_and_end(here: Place) -> None:
    _server(here).fail("503", on="objects.get", times=4)
    with pytest.raises(here.case.half.transient, match="503"):
        here.store.get("a")
    assert here.waits_s == [1.0, 2.0, 4.0]


@pytest.mark.parametrize("kind", ["401", "403"])
def test_a_refusal_is_not_tried_again(here: Place, kind: Kind) -> None:
    server = _server(here)
    here.put("a")
    for on in ("objects.get", "objects.list", "objects.download", "objects.delete"):
        server.fail(kind, on=on)
    path = here.tmp_path / "never"
    for act in (
        lambda: here.store.get("a"),
        here.keys,
        lambda: here.store.download("a", path),
        lambda: here.store.delete("a"),
    ):
        with pytest.raises(here.case.half.any) as caught:
            act()
        if here.case.half is LAPTOP:
            assert isinstance(caught.value, AuthError)
            assert {"401": "gcloud auth", "403": "roles/storage.objectUser"}[kind] in str(caught.value)
    assert here.waits_s == []
    assert not path.exists()


def test_no_service_at_all(tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    for case in RETRYING_GCS:
        with GcsServer() as server:
            here = place(case, tmp_path, server)
        with pytest.raises(case.half.transient):
            here.store.get("a")
        assert len(here.waits_s) == 3


@pytest.mark.parametrize("case", [case for case in CASES if case.is_bucket], ids=lambda case: str(case.name))
def test_without_the_wrapper_nothing_is_tried_twice(case: Case, tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    with GcsServer() as server:
        here = place(case, tmp_path, server, tries=1)
        server.fail("503", on="objects.*", times=100)
        file = here.file(b"x" * 9_000_000)
        for act in (
            lambda: here.store.get("a"),
            here.keys,
            lambda: here.store.upload(file, "a"),
            lambda: here.store.download("a", file),
            lambda: here.store.delete("a"),
        ):
            with pytest.raises(case.half.transient):
                act()
        assert sum(server.requests.values()) == 5
