"""The fake Google Cloud Storage against clients that are not ours: Google's library, `gcloud storage`, and plain HTTP."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import requests
from google.api_core import exceptions as api
from google.auth.credentials import AnonymousCredentials
from google.cloud.storage import Bucket, Client

from orchestrator.errors import AuthError, ConfigError, NotFoundError, TransientError
from orchestrator.stores.faults import said
from remote import store as machine
from remote.contract.run_spec import StoreRef
from remote.contract.store import Store
from remote.storage import open_storage
from tests.fakes.gcs_server import GcsServer


def _store(url: str, endpoint: str | None = None, credentials_file: str | None = None) -> Store:
    return open_storage(StoreRef(url, endpoint, credentials_file), said)


@pytest.fixture
def server() -> Iterator[GcsServer]:
    with GcsServer(page_size=2) as server:
        server.create_bucket("trees")
        yield server


@pytest.fixture
def bucket(server: GcsServer) -> Bucket:
    client = Client(
        project="p", credentials=AnonymousCredentials(), client_options={"api_endpoint": server.endpoint}
    )
    return client.bucket("trees")


def test_buckets(server: GcsServer, bucket: Bucket) -> None:
    client = bucket.client
    made = client.create_bucket("new", location="us-central1")
    assert made.location == "US-CENTRAL1"
    made.add_lifecycle_delete_rule(age=7, matches_prefix=["checkpoints/"])
    made.patch()
    assert [rule["condition"]["age"] for rule in client.get_bucket("new").lifecycle_rules] == [7]
    assert [found.name for found in client.list_buckets()] == ["new", "trees"]
    with pytest.raises(api.Conflict):
        client.create_bucket("new")
    made.blob("a").upload_from_string("x")
    with pytest.raises(api.Conflict):
        made.delete(retry=None)
    made.blob("a").delete()
    made.delete()
    assert client.lookup_bucket("new") is None
    server.api.refused_permissions.add("storage.objects.delete")
    wanted = ["storage.objects.create", "storage.objects.delete"]
    assert bucket.test_iam_permissions(wanted) == ["storage.objects.create"]


def test_objects(server: GcsServer, bucket: Bucket) -> None:
    first, second = bucket.blob("parts/1"), bucket.blob("parts/2")
    first.upload_from_string(b"one ")
    second.upload_from_string(b"two")
    whole = bucket.blob("whole")
    whole.compose([first, second])
    assert whole.download_as_bytes() == b"one two"
    copied = bucket.blob("copied")
    copied.rewrite(whole, if_generation_match=0)
    assert copied.download_as_bytes(start=4, end=5) == b"tw"
    copied.metadata = {"colour": "green"}
    copied.patch()
    assert bucket.get_blob("copied").metadata == {"colour": "green"}
    with pytest.raises(api.PreconditionFailed):
        whole.delete(if_generation_match=1)
    with pytest.raises(api.PreconditionFailed):
        whole.download_as_bytes(if_generation_match=1)
    assert [blob.name for blob in bucket.list_blobs(page_size=1)] == ["copied", "parts/1", "parts/2", "whole"]
    listing = bucket.list_blobs(delimiter="/")
    assert [blob.name for blob in listing] == ["copied", "whole"]
    assert listing.prefixes == {"parts/"}
    assert [blob.name for blob in bucket.list_blobs(match_glob="parts/*")] == ["parts/1", "parts/2"]
    assert server.errors == []


def test_what_the_real_service_would_refuse(server: GcsServer) -> None:
    objects = f"{server.endpoint}/storage/v1/b/trees/o"
    upload = f"{server.endpoint}/upload/storage/v1/b/trees/o"
    with requests.Session() as session:
        assert session.get(objects, params={"maxResult": "1"}).status_code == 400
        assert session.get(objects, params={"maxResults": "many"}).status_code == 400
        assert session.get(f"{server.endpoint}/storage/v2/b").status_code == 404
        assert session.put(f"{objects}/a/b/c").status_code == 404
        assert session.patch(f"{objects}/a", json={"colour": "green"}).status_code == 400
        start = session.post(upload, params={"uploadType": "resumable"}, json={"name": "a"})
        chunk = session.put(
            start.headers["Location"], data=b"x" * 1000, headers={"Content-Range": "bytes 0-999/2000"}
        )
        assert (chunk.status_code, "256 KiB" in chunk.text) == (400, True)
        sent = session.post(upload, params={"uploadType": "media", "name": "a"}, data=b"hello")
        assert (sent.status_code, sent.json()["size"]) == (200, "5")
        answer = session.get(objects, params={"fields": "items(name,size)"})
        assert answer.json() == {"items": [{"name": "a", "size": "5"}]}
    assert len(server.errors) == 3  # what a client of ours must never send is kept for the test to see


def test_what_came_of_a_client_that_left_is_kept(server: GcsServer) -> None:
    """Resumable uploads keep whole units of 256 KiB, and tell a client that asks where to go on."""
    unit, size = 256 * 1024, 1_000_000
    start = requests.post(
        f"{server.endpoint}/upload/storage/v1/b/trees/o",
        params={"uploadType": "resumable"},
        json={"name": "a"},
        headers={"Connection": "close"},  # or we are a client that stays
        timeout=60,
    )
    address = start.headers["Location"]
    head = f"PUT {address.removeprefix(server.endpoint)} HTTP/1.1\r\nHost: {server.endpoint[7:]}\r\n"
    head += f"Content-Length: {size}\r\nContent-Range: bytes 0-{size - 1}/{size}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", urlsplit(server.endpoint).port or 0)) as client:
        client.sendall(head.encode() + bytes(2 * unit + 1000))
    server.wait_until_left()
    asked = requests.put(
        address, headers={"Content-Range": f"bytes */{size}"}, timeout=60, allow_redirects=False
    )
    assert (asked.status_code, asked.headers["Range"]) == (308, f"bytes=0-{2 * unit - 1}")
    assert server.received["objects.insert.chunk"] == 2 * unit + 1000
    rest = requests.put(
        address,
        bytes(size - 2 * unit),
        headers={"Content-Range": f"bytes {2 * unit}-{size - 1}/{size}"},
        timeout=60,
    )
    assert rest.json()["size"] == str(size)
    assert server.errors == []


def test_an_upload_whose_content_is_not_what_it_should_be_is_refused(
    server: GcsServer, bucket: Bucket
) -> None:
    for size in (5, 9 * 1024 * 1024):
        blob = bucket.blob("a")
        blob.crc32c = "AAAAAA=="
        with pytest.raises(api.BadRequest, match="CRC32C"):
            blob.upload_from_string(b"x" * size, checksum=None)
    assert bucket.get_blob("a") is None


def test_it_listens_on_several_addresses() -> None:
    with GcsServer(["127.0.0.1", "127.0.0.2"]) as server:
        server.create_bucket("trees")
        for address in ("127.0.0.1", "127.0.0.2"):
            assert _store("gs://trees", endpoint=server.endpoint_at(address)).get("a") is None


@pytest.mark.filterwarnings("error")
def test_a_credentials_file_opens_a_closed_service(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"hello")
    with GcsServer(is_open=False) as server:
        url = server.create_bucket("trees")
        key = str(server.credentials_file(tmp_path))
        _store(url, endpoint=server.endpoint, credentials_file=key).upload(file, "a")
        there = machine.open_store(StoreRef(url, endpoint=server.endpoint, credentials_file=key))
        there.download("a", tmp_path / "got")
        assert (tmp_path / "got").read_bytes() == b"hello"
        with pytest.raises(AuthError, match="Log in"):
            _store(url, endpoint=server.endpoint).get("a")
        with pytest.raises(machine.StoreError, match="no valid credentials"):
            machine.open_store(StoreRef(url, endpoint=server.endpoint)).get("a")
    with pytest.raises(TransientError, match="login service"):
        _store(url, endpoint=server.endpoint, credentials_file=key).get("a")


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("content", [None, "", "{}", '{"type": "service_account"}', "not json"])
def test_a_credentials_file_that_is_none(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "credentials.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(AuthError, match=r"credentials\.json can't be used"):
        _store("gs://trees", credentials_file=str(path))
    with pytest.raises(machine.StoreError, match=r"credentials\.json can't be used"):
        machine.open_store(StoreRef("gs://trees", credentials_file=str(path)))


def test_errors_name_the_way_out(server: GcsServer) -> None:
    store = _store("gs://elsewhere", endpoint=server.endpoint)
    with pytest.raises(NotFoundError, match="gcloud storage buckets create gs://elsewhere"):
        store.get("a")
    server.fail("403", on="objects.get")
    with pytest.raises(AuthError, match=r"add-iam-policy-binding gs://elsewhere .*roles/storage.objectUser"):
        store.get("a")
    with pytest.raises(ConfigError, match="gs://BUCKET"):
        _store("gs://Wrong_Name!")


def test_names_that_are_no_keys_are_left_out(server: GcsServer, bucket: Bucket) -> None:
    """The console makes "folders" that end with a slash; a hostile bucket may hold anything."""
    for name in ("runs/", "runs/x", "../../etc/passwd", "/absolute", "a//b", "back\\slash"):
        bucket.blob(name).upload_from_string(b"x")
    assert [blob.key for blob in _store("gs://trees", endpoint=server.endpoint).blobs("")] == ["runs/x"]
    there = machine.open_store(StoreRef("gs://trees", endpoint=server.endpoint))
    assert [blob.key for blob in there.blobs("")] == ["runs/x"]


def _gcloud(server: GcsServer, folder: Path, *arguments: str) -> str:
    environment = {
        **os.environ,
        "CLOUDSDK_CONFIG": str(folder / "gcloud"),
        "CLOUDSDK_API_ENDPOINT_OVERRIDES_STORAGE": f"{server.endpoint}/",
        "CLOUDSDK_AUTH_DISABLE_CREDENTIALS": "True",
        "CLOUDSDK_CORE_DISABLE_PROMPTS": "1",
        "CLOUDSDK_CORE_PROJECT": "p",
        "CLOUDSDK_COMPONENT_MANAGER_DISABLE_UPDATE_CHECK": "1",
    }
    done = subprocess.run(
        ["gcloud", "storage", *arguments], env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.needs("gcloud")
def test_gcloud_sees_what_we_sent_and_we_see_what_it_sent(server: GcsServer, tmp_path: Path) -> None:
    """Its bodies have bare LF line ends and a boundary in single quotes, its large ones go to /resumable/upload."""
    folder = tmp_path / "sent"
    folder.mkdir()
    (folder / "small ü").write_bytes(b"hello\r\n\n--x")
    (folder / "large").write_bytes(b"0123456789" * 900_000)
    store = _store("gs://trees", endpoint=server.endpoint)
    store.upload(folder / "large", "data/ours")
    _gcloud(server, tmp_path, "rsync", "-r", str(folder), "gs://trees/data")
    assert [blob.key for blob in store.blobs("")] == ["data/large", "data/ours", "data/small ü"]
    store.download("data/small ü", tmp_path / "small")
    assert (tmp_path / "small").read_bytes() == b"hello\r\n\n--x"
    _gcloud(server, tmp_path, "rsync", "-r", "gs://trees/data", str(tmp_path / "back"))
    assert (tmp_path / "back/ours").read_bytes() == (folder / "large").read_bytes()
    assert (tmp_path / "back/large").read_bytes() == (folder / "large").read_bytes()
    assert server.errors == []


@pytest.mark.soak
@pytest.mark.needs("gcloud")
def test_gcloud_lists_copies_and_removes(server: GcsServer, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"hello")
    store = _store("gs://trees", endpoint=server.endpoint)
    for key in ("data/a", "data/b/c", "data/b/d"):
        store.upload(file, key)
    listed = _gcloud(server, tmp_path, "ls", "gs://trees/**").split()
    assert listed == ["gs://trees/data/a", "gs://trees/data/b/c", "gs://trees/data/b/d"]
    _gcloud(server, tmp_path, "cp", "gs://trees/data/a", str(tmp_path / "copy"))
    assert (tmp_path / "copy").read_bytes() == b"hello"
    _gcloud(server, tmp_path, "rm", "-r", "gs://trees/data")
    assert list(store.blobs("")) == []
    assert server.errors == []
