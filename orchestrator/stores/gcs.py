"""Google Cloud Storage, through Google's own library with its retries switched off: ours are in `retrying`.

Permissions needed on the bucket: storage.objects.create, .get, .list and .delete, which roles/storage.objectUser has.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import google.auth
from google.api_core import exceptions as api
from google.auth.credentials import AnonymousCredentials, Credentials
from google.auth.exceptions import GoogleAuthError
from google.auth.transport.requests import AuthorizedSession
from google.cloud import storage
from requests.adapters import HTTPAdapter

from orchestrator.errors import ConfigError, ConflictError, TransientError
from orchestrator.stores.base import Blob
from orchestrator.stores.disk import checksum_of, opened, refused
from orchestrator.stores.gcs_errors import NETWORK_ERRORS, from_api, from_auth, from_network
from remote.contract.document import ContractError
from remote.contract.folder import replacing
from remote.contract.keys import checked_key, is_key

CONNECTIONS = (
    32  # as many as the largest thread pool that uses a store; with fewer, each request is a new handshake
)
TIMEOUT_S = 60.0  # for the connection, and for each wait of a request
CHUNK_BYTES = 8 * 1024 * 1024  # of an upload in several requests; a smaller file is sent in one
SLOWEST_BYTES_PER_S = 32 * 1024  # of an upload

_SCOPES = ("https://www.googleapis.com/auth/devstorage.read_write",)
_URL = re.compile(r"gs://([a-z0-9][a-z0-9._-]{1,220}[a-z0-9])(?:/(.*))?")
_LISTED = "items(name,size,crc32c,generation),nextPageToken"


class GcsStore:
    """A bucket, or what lies below a prefix of it. May be used by up to `connections` threads at once.

    url                 "gs://bucket" or "gs://bucket/prefix"
    endpoint            another address of the service; one that begins with http:// needs no credentials
    credentials_file    instead of the application default credentials
    AuthError           when there are no credentials
    """

    def __init__(
        self,
        url: str,
        *,
        endpoint: str | None = None,
        credentials_file: str | None = None,
        connections: int = CONNECTIONS,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        self.url = url.rstrip("/")
        self._bucket_name, self._prefix = _parse(self.url)
        self._timeout_s = timeout_s
        try:
            credentials = _credentials(endpoint, credentials_file)
        except (GoogleAuthError, OSError, ValueError) as error:
            raise from_auth(error, credentials_file) from error
        # Without this the library asks for the bucket from a thread of its own, with retries of its own, for tracing
        # that nobody has switched on. There is no other public switch.
        os.environ.setdefault("DISABLE_GCS_PYTHON_CLIENT_OTEL_BUCKET_METADATA", "true")
        session = AuthorizedSession(credentials)
        for scheme in ("https://", "http://"):
            session.mount(scheme, HTTPAdapter(pool_connections=4, pool_maxsize=connections))
        self._client = storage.Client(
            project=None,  # nothing here belongs to a project
            credentials=credentials,
            _http=session,
            client_options={"api_endpoint": endpoint.rstrip("/")} if endpoint else None,
        )
        self._bucket = self._client.bucket(self._bucket_name)

    def get(self, key: str) -> Blob | None:
        with self._translated(key):
            blob = self._bucket.blob(self._name(key))
            try:
                blob.reload(retry=None, timeout=self._timeout_s)
            except api.NotFound as error:
                if _no_bucket(error):
                    raise
                return None
            return _blob(blob, key)

    def blobs(self, prefix: str, *, delimiter: str | None = None) -> Iterator[Blob]:
        """Objects whose names are no keys (the "folders" that the console makes end with a slash) are left out."""
        with self._translated(prefix):
            found = self._client.list_blobs(
                self._bucket,
                prefix=self._prefix + prefix,
                delimiter=delimiter,
                fields=_LISTED,
                retry=None,
                timeout=self._timeout_s,
            )
            for blob in found:
                key = blob.name[len(self._prefix) :]
                if is_key(key):
                    yield _blob(blob, key)

    def upload(self, path: Path, key: str, *, if_generation: int | None = None) -> Blob:
        size, checksum = checksum_of(path)
        with opened(path) as file, self._translated(key):
            blob = self._bucket.blob(self._name(key), chunk_size=CHUNK_BYTES)
            blob.crc32c = checksum  # sent along: the service refuses content that does not fit
            blob.upload_from_file(
                file,
                size=size,
                content_type="application/octet-stream",
                if_generation_match=if_generation,
                checksum=None,
                retry=None,
                timeout=(self._sending_s(size), self._timeout_s),
            )
            sent = _blob(blob, key)
        if (sent.size, sent.crc32c) != (size, checksum):
            raise TransientError(f"{key} arrived in {self.url} with another checksum")
        return sent

    def download(self, key: str, path: Path, *, start: int = 0) -> None:
        with self._translated(key, full=path.parent), replacing(path) as file:
            try:
                self._bucket.blob(self._name(key)).download_to_file(
                    file,
                    start=start or None,  # "from byte 0 on" is refused for an empty blob
                    raw_download=True,  # what is stored, even if somebody marked it as gzip
                    checksum="crc32c",
                    retry=None,
                    timeout=self._timeout_s,
                )
            except api.RequestRangeNotSatisfiable:
                file.truncate(0)

    def delete(self, key: str, *, if_generation: int | None = None) -> None:
        with self._translated(key):
            try:
                self._bucket.blob(self._name(key)).delete(
                    if_generation_match=if_generation, retry=None, timeout=self._timeout_s
                )
            except api.NotFound as error:
                if _no_bucket(error):
                    raise
            except api.PreconditionFailed:
                if self.get(key) is not None:
                    raise

    def _name(self, key: str) -> str:
        return self._prefix + checked_key(key)

    def _sending_s(self, size: int) -> float:
        """How long sending one request may take.

        requests has no timeout of its own for that: the one of the connection holds, and for the whole body, not
        for each packet. A timeout that is right for a connection would cut every slow line off.
        """
        return max(self._timeout_s, min(size, CHUNK_BYTES) / SLOWEST_BYTES_PER_S)

    @contextmanager
    def _translated(self, key: str, *, full: Path | None = None) -> Iterator[None]:
        """`full` is the folder of this computer that is written to, where there is one."""
        try:
            yield
        except ContractError as error:
            raise ConfigError(f"The store {self.url} takes no such key: {error}") from None
        except api.PreconditionFailed:
            raise ConflictError(
                f"{key} in {self.url} was written by somebody else meanwhile",
                next="Run the same command again.",
            ) from None
        except api.GoogleAPICallError as error:
            raise from_api(error, key, self.url, self._bucket_name) from error
        except GoogleAuthError as error:
            raise from_auth(error, None) from error
        except NETWORK_ERRORS as error:
            raise from_network(error, key, self.url) from error
        except ValueError as error:  # the file has fewer bytes than it had a moment ago
            raise TransientError(f"The file changed while it was sent as {key}", detail=str(error)) from error
        except OSError as error:
            raise refused(error, key, full or Path.cwd()) from error


def _parse(url: str) -> tuple[str, str]:
    match = _URL.fullmatch(url)
    if match is None or (match[2] and not is_key(match[2])):
        raise ConfigError(
            f"{url!r} is not the address of a bucket",
            next='It looks like "gs://BUCKET" or "gs://BUCKET/FOLDER".',
        )
    return match[1], f"{match[2]}/" if match[2] else ""


def _credentials(endpoint: str | None, credentials_file: str | None) -> Credentials:
    credentials: Credentials
    if credentials_file is not None:
        credentials, _ = google.auth.load_credentials_from_file(credentials_file, scopes=_SCOPES)
    elif endpoint is not None and endpoint.startswith("http://"):
        credentials = AnonymousCredentials()
    else:
        credentials, _ = google.auth.default(scopes=_SCOPES)
    return credentials


def _blob(blob: storage.Blob, key: str) -> Blob:
    return Blob(key, int(blob.size), str(blob.crc32c), int(blob.generation))


def _no_bucket(error: api.NotFound) -> bool:
    return "bucket does not exist" in str(error)
