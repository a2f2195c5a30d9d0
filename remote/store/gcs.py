"""Google Cloud Storage from the machine, through Google's own library with its retries switched off.

On Google Cloud the credentials are those of the machine's service account; nothing secret is stored on it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import google.auth
import google_crc32c
import requests
import urllib3
from google.api_core import exceptions as api
from google.auth.credentials import AnonymousCredentials, Credentials
from google.auth.exceptions import GoogleAuthError, TransportError
from google.auth.transport.requests import AuthorizedSession
from google.cloud import storage
from google.cloud.storage.exceptions import DataCorruption
from requests.adapters import HTTPAdapter

from remote.contract.document import ContractError
from remote.contract.folder import crc32c_of, replacing
from remote.contract.keys import checked_key, is_key
from remote.contract.run_spec import StoreRef

from .base import Blob, StoreChanged, StoreError, StoreMissing, StoreUnready

CONNECTIONS = 32
TIMEOUT_S = 60.0  # for the connection, and for each wait of a request
CHUNK_BYTES = 8 * 1024 * 1024  # of an upload in several requests; a smaller file is sent in one
SLOWEST_BYTES_PER_S = 32 * 1024  # of an upload

_SCOPES = ("https://www.googleapis.com/auth/devstorage.read_write",)
_LISTED = "items(name,size,crc32c,generation),nextPageToken"
_TRANSIENT = {408, 429, 500, 502, 503, 504}
_NETWORK_ERRORS = (
    requests.RequestException,
    urllib3.exceptions.HTTPError,
    ConnectionError,
    TimeoutError,
    DataCorruption,
    TransportError,
)


class GcsStore:
    """A bucket, or what lies below a prefix of it. An endpoint that begins with http:// needs no credentials."""

    def __init__(
        self, ref: StoreRef, *, connections: int = CONNECTIONS, timeout_s: float = TIMEOUT_S
    ) -> None:
        self.url = ref.url.rstrip("/")
        bucket, _, prefix = self.url.removeprefix("gs://").partition("/")
        if not bucket or (prefix and not is_key(prefix)):
            raise StoreError(f"{ref.url!r} is not the address of a bucket")
        self._prefix = f"{prefix}/" if prefix else ""
        self._timeout_s = timeout_s
        try:
            credentials = _credentials(ref)
        except (GoogleAuthError, OSError, ValueError) as error:
            raise StoreError(f"no credentials for {self.url}: {error}") from error
        # Without this the library asks for the bucket from a thread of its own, with retries of its own, for tracing
        # that nobody has switched on. There is no other public switch.
        os.environ.setdefault("DISABLE_GCS_PYTHON_CLIENT_OTEL_BUCKET_METADATA", "true")
        session = AuthorizedSession(credentials)
        for scheme in ("https://", "http://"):
            session.mount(scheme, HTTPAdapter(pool_connections=4, pool_maxsize=connections))
        self._client = storage.Client(
            project=None,
            credentials=credentials,
            _http=session,
            client_options={"api_endpoint": ref.endpoint.rstrip("/")} if ref.endpoint else None,
        )
        self._bucket = self._client.bucket(bucket)

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
        with self._translated(key), path.open("rb") as file:
            checksum = crc32c_of(file, google_crc32c.Checksum())
            size = file.tell()
            file.seek(0)
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
            raise StoreUnready(f"{key} arrived in {self.url} with another checksum")
        return sent

    def download(self, key: str, path: Path, *, start: int = 0) -> None:
        with self._translated(key), replacing(path) as file:
            try:
                self._bucket.blob(self._name(key)).download_to_file(
                    file,
                    start=start or None,  # "from byte 0 on" is refused for an empty blob
                    raw_download=True,
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
        """How long sending one request may take: requests takes the timeout of the connection for the whole body."""
        return max(self._timeout_s, min(size, CHUNK_BYTES) / SLOWEST_BYTES_PER_S)

    @contextmanager
    def _translated(self, key: str) -> Iterator[None]:
        try:
            yield
        except ContractError as error:
            raise StoreError(f"the store {self.url} takes no such key: {error}") from None
        except api.PreconditionFailed:
            raise StoreChanged(f"{key} in {self.url} was written by somebody else meanwhile") from None
        except api.GoogleAPICallError as error:
            raise _refused(error, key, self.url) from error
        except _NETWORK_ERRORS as error:
            raise StoreUnready(f"the connection to {self.url} broke at {key}: {error}") from error
        except GoogleAuthError as error:
            kind = StoreUnready if error.retryable else StoreError
            raise kind(f"no valid credentials for {self.url}: {error}") from error
        except OSError as error:
            raise StoreError(f"{key}, store {self.url}: {error}") from error
        except ValueError as error:  # the file has fewer bytes than it had a moment ago
            raise StoreUnready(f"the file changed while it was sent as {key}: {error}") from error


def _credentials(ref: StoreRef) -> Credentials:
    credentials: Credentials
    if ref.credentials_file is not None:
        credentials, _ = google.auth.load_credentials_from_file(ref.credentials_file, scopes=_SCOPES)
    elif ref.endpoint is not None and ref.endpoint.startswith("http://"):
        credentials = AnonymousCredentials()
    else:
        credentials, _ = google.auth.default(scopes=_SCOPES)
    return credentials


def _blob(blob: storage.Blob, key: str) -> Blob:
    return Blob(key, int(blob.size), str(blob.crc32c), int(blob.generation))


def _no_bucket(error: api.NotFound) -> bool:
    return "bucket does not exist" in str(error)


def _refused(error: api.GoogleAPICallError, key: str, url: str) -> StoreError:
    code, detail = int(error.code or 0), str(error.message)[:1000]
    if (
        code in _TRANSIENT
        or "rateLimitExceeded" in str(error.errors)
        or (code == 400 and "crc32c" in detail.lower())
    ):
        return StoreUnready(f"{url} did not take the request for {key} ({code}): {detail}")
    if code == 404:
        return StoreMissing(f"there is no {key} in {url}: {detail}")
    return StoreError(f"{url} refused the request for {key} ({code}): {detail}")
