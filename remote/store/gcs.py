"""Google Cloud Storage from the machine, through Google's own library with its retries switched off.

On Google Cloud the credentials are those of the machine's service account; nothing secret is stored on it.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

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
from remote.contract.keys import checked_key, fits, glob_of, is_key, pattern_of
from remote.contract.resumable import send
from remote.contract.run_spec import StoreRef

from .base import Begun, Blob, StoreChanged, StoreError, StoreMissing, StoreUnready
from .disk import checksum_of

CONNECTIONS = 32
TIMEOUT_S = 60.0  # of silence: for the connection, and for each block that is sent or received
AT_ONCE_BYTES = 1024 * 1024  # what is larger is sent as a stream that goes on where it broke

_SCOPES = ("https://www.googleapis.com/auth/devstorage.read_write",)
_CONTENT_TYPE = "application/octet-stream"
_LISTED = "items(name,size,crc32c,generation),nextPageToken"
_FOLDERS = "prefixes,nextPageToken"
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
        self._session = session = AuthorizedSession(credentials)
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

    def blobs(self, prefix: str, *, delimiter: str | None = None, match: str | None = None) -> Iterator[Blob]:
        with self._translated(prefix):
            found = self._client.list_blobs(
                self._bucket,
                prefix=self._prefix + prefix,
                delimiter=delimiter,
                match_glob=glob_of(self._prefix + prefix, match),
                fields=_LISTED,
                retry=None,
                timeout=self._timeout_s,
            )
            pattern = pattern_of(prefix, match) if match is not None else []
            for blob in found:
                key = blob.name[len(self._prefix) :]
                if is_key(key) and (not pattern or fits(key, pattern)):
                    yield _blob(blob, key)

    def folders(self, prefix: str) -> Iterator[str]:
        above = self._prefix + prefix
        with self._translated(prefix):
            found = self._client.list_blobs(
                self._bucket,
                prefix=above,
                delimiter="/",
                fields=_FOLDERS,
                retry=None,
                timeout=self._timeout_s,
            )
            for page in found.pages:
                names = (name[len(above) : -1] for name in sorted(page.prefixes))
                yield from (name for name in names if is_key(name))

    def upload(
        self, path: Path, key: str, *, if_generation: int | None = None, begun: Begun | None = None
    ) -> Blob:
        with self._translated(key), path.open("rb") as file:
            size, checksum = checksum_of(path)
            blob = self._bucket.blob(self._name(key))
            blob.crc32c = checksum  # sent along: the service refuses content that does not fit
            if size > AT_ONCE_BYTES:
                sent = self._stream(blob, file, key, size, if_generation, begun or Begun())
            else:
                blob.upload_from_file(
                    file,
                    size=size,
                    content_type=_CONTENT_TYPE,
                    if_generation_match=if_generation,
                    checksum=None,
                    retry=None,
                    timeout=self._timeout_s,
                )
                sent = _blob(blob, key)
        if (sent.size, sent.crc32c) != (size, checksum):
            raise StoreUnready(f"{key} arrived in {self.url} with another checksum")
        return sent

    def download(self, key: str, path: Path, *, start: int = 0, begun: Begun | None = None) -> None:
        with self._translated(key), replacing(path, begun) as file:
            blob = self._bucket.blob(self._name(key))
            came = 0 if start else file.tell()
            file.seek(file.truncate(came))
            if came:
                blob.reload(retry=None, timeout=self._timeout_s)
            expected = blob.crc32c
            try:
                blob.download_to_file(
                    file,
                    start=(start or came) or None,  # "from byte 0 on" is refused for an empty blob
                    raw_download=True,
                    checksum="crc32c",
                    retry=None,
                    timeout=self._timeout_s,
                )
            except api.RequestRangeNotSatisfiable:
                file.truncate(came)
            except DataCorruption:
                file.truncate(0)
                raise
            if came and _sum_of(file) != expected:
                file.truncate(0)
                raise StoreUnready(f"{key} came from {self.url} with another checksum")

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

    def _stream(
        self,
        blob: storage.Blob,
        file: BinaryIO,
        key: str,
        size: int,
        if_generation: int | None,
        begun: Begun,
    ) -> Blob:
        """Go on with the session that a try before has begun, else begin one."""
        fresh = not begun.session
        if fresh:
            session = blob.create_resumable_upload_session(
                content_type=_CONTENT_TYPE,
                size=size,
                if_generation_match=if_generation,
                checksum=None,
                retry=None,
                timeout=self._timeout_s,
            )
            begun.go_on_at(session)
        answer = send(self._session, begun, file, size, fresh=fresh, timeout_s=self._timeout_s)
        if not answer.ok:
            if answer.status_code < 500 and answer.status_code not in (408, 429):
                begun.go_on_at("")  # refused for good: content that does not fit, another generation
            raise api.from_http_response(answer)
        made = answer.json()
        return Blob(key, int(made["size"]), str(made["crc32c"]), int(made["generation"]))

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
        with warnings.catch_warnings():  # of files from strangers; this one is its user's own
            warnings.simplefilter("ignore", DeprecationWarning)
            credentials, _ = google.auth.load_credentials_from_file(ref.credentials_file, scopes=_SCOPES)
    elif ref.endpoint is not None and ref.endpoint.startswith("http://"):
        credentials = AnonymousCredentials()
    else:
        credentials, _ = google.auth.default(scopes=_SCOPES)
    return credentials


def _blob(blob: storage.Blob, key: str) -> Blob:
    return Blob(key, int(blob.size), str(blob.crc32c), int(blob.generation))


def _sum_of(file: BinaryIO) -> str:
    file.seek(0)
    return crc32c_of(file, google_crc32c.Checksum())


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
