"""What a store does when the service behind it stumbles, on both halves. Nothing waits: the clock is a list."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.errors import AuthError
from remote.contract.attempts import Attempts
from remote.contract.store import Way
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


BUCKETS = [case for case in CASES if case.is_bucket and "retrying" not in case.name]


@pytest.mark.parametrize("size", UPLOADS)
def test_what_is_bent_on_its_way_up_never_lies_in_the_bucket(here: Place, size: str) -> None:
    server = _server(here)
    on, length = UPLOADS[size]
    content = hashlib.shake_128(b"content").digest(length)
    server.fail("corrupt sent", on=on)
    first = here.put("a", content, if_generation=0)  # one that lay there for a moment would be a conflict now
    assert here.read("a") == content
    assert here.waits_s == [1.0]
    server.fail("corrupt sent", on=on)
    assert here.put("a", content, if_generation=first.generation).generation != first.generation


@pytest.mark.parametrize("size", UPLOADS)
@pytest.mark.parametrize("case", BUCKETS, ids=lambda case: str(case.name))
def test_an_answer_with_another_checksum_is_no_success(case: Case, tmp_path: Path, size: str) -> None:
    (tmp_path / "files").mkdir()
    on, length = UPLOADS[size]
    with GcsServer() as server:
        here = place(case, tmp_path, server)
        server.fail("other crc32c", on=on)
        with pytest.raises(case.half.transient, match="another checksum"):
            here.put("a", b"x" * length)


@pytest.mark.parametrize("size", UPLOADS)
def test_an_answer_with_another_checksum_is_asked_again(here: Place, size: str) -> None:
    on, length = UPLOADS[size]
    _server(here).fail("other crc32c", on=on)
    assert here.store.get("a") is None
    assert here.put("a", b"x" * length, if_generation=0) == here.store.get("a")


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


UNIT = 256 * 1024  # of what the service keeps of an upload that broke off


@pytest.mark.parametrize("kind", ["cut", "503", "503 after", "reset", "reset after"])
def test_a_large_upload_goes_on_where_it_broke(here: Place, kind: Kind) -> None:
    server = _server(here)
    content = hashlib.shake_128(b"large").digest(9_000_000)
    server.fail(kind, on="objects.insert.chunk", times=2)
    blob = here.put("a", content, if_generation=0)
    assert here.store.get("a") == blob
    assert server.api.buckets.get("trees", f"{here.case.folder}/a".lstrip("/"), {}).content == content
    assert server.requests["objects.insert.start"] == 1
    # What a cut does not lose is not sent again; where nothing is kept, as after a refusal, there is no other way.
    twice = {"cut": 2 * UNIT, "503": 2 * len(content), "reset": 2 * len(content)}.get(kind, 0)
    assert len(content) <= server.received["objects.insert.chunk"] <= len(content) + twice


def test_a_large_upload_tells_how_far_it_is(here: Place) -> None:
    content = hashlib.shake_128(b"large").digest(9_000_000)
    _server(here).fail("cut", on="objects.insert.chunk")
    tries: list[list[int]] = []

    def passed(count: int) -> None:
        tries[-1].append(count)

    way = Way(gate=lambda: tries.append([]), passed=passed)
    here.store.upload(here.file(content), "a", way=way)
    assert here.read("a") == content
    first, second = tries
    assert 1 < len(first) < len(second) + len(first)
    assert all(told == sorted(set(told)) for told in tries)
    assert second[-1] == len(content)


def test_an_upload_that_the_service_has_forgotten_begins_anew(here: Place) -> None:
    server = _server(here)
    content = hashlib.shake_128(b"large").digest(5_000_000)
    server.fail("cut", on="objects.insert.chunk")
    server.fail("410", on="objects.insert.chunk")
    here.put("a", content)
    assert here.read("a") == content
    assert server.requests["objects.insert.start"] == 2


def test_what_is_sent_in_a_stream_is_as_long_as_it_was(here: Place) -> None:
    def shrink(_: float) -> None:
        path.write_bytes(b"less")

    path = here.file(b"x" * 5_000_000)
    _server(here).fail("cut", on="objects.insert.chunk")
    blob = here.case.open(here.ref, Attempts(count=4, sleep=shrink)).upload(path, "a")
    assert blob.size == 4
    assert here.read("a") == b"less"


@pytest.mark.parametrize("kind", ["truncate", "cut"])
def test_a_large_download_goes_on_where_it_broke(here: Place, kind: Kind) -> None:
    server = _server(here)
    content = hashlib.shake_128(b"large").digest(5_000_000)
    here.put("a", content)
    server.fail(kind, on="objects.download", times=3)
    assert here.read("a") == content
    assert len(here.waits_s) == 3
    if kind == "truncate":  # a reset throws away what is in the air
        assert server.sent["objects.download"] <= len(content) + 3 * 64 * 1024


def test_a_blob_that_changes_during_its_download_comes_as_one_of_both(here: Place) -> None:
    server = _server(here)
    old, new = (hashlib.shake_128(name).digest(5_000_000) for name in (b"old", b"new"))
    here.put("a", old)

    def replace(_: float) -> None:
        here.put("a", new)

    server.fail("truncate", on="objects.download")
    here.case.open(here.ref, Attempts(count=4, sleep=replace)).download("a", here.tmp_path / "read")
    assert (here.tmp_path / "read").read_bytes() == new


def test_silence_in_the_middle_is_given_up_in_time_and_the_rest_follows(impatient: Place) -> None:
    server = _server(impatient)
    content = hashlib.shake_128(b"large").digest(16_000_000)  # more than the buffers of a connection
    server.fail("stall halfway", on="objects.insert.chunk")
    began = time.monotonic()
    impatient.put("a", content)
    server.fail("stall halfway", on="objects.download")
    assert impatient.read("a") == content
    assert impatient.waits_s == [1.0, 1.0]
    assert time.monotonic() - began < 30  # the server is silent for 60 s each time
    assert server.received["objects.insert.chunk"] <= len(content) + UNIT
    assert server.sent["objects.download"] <= len(content) + 64 * 1024


def test_each_wait_is_told(here: Place) -> None:
    told: list[str] = []
    attempts = Attempts(
        sleep=lambda _: None,
        random=lambda: 0.0,
        tell=lambda error, wait_s: told.append(f"{error} ({wait_s:g})"),
    )
    store = here.case.open(here.ref, attempts)
    here.put("a")
    _server(here).fail("503", on="objects.get")
    _server(here).fail("429", on="objects.list")
    store.get("a")
    list(store.blobs(""))
    assert [line[-4:] for line in told] == [" (1)"] * 2
    assert "503" in told[0]
    assert "429" in told[1]


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
