"""Google Cloud Storage, through Google's own library with its retries switched off: ours are in `Retrying`.

Permissions needed on the bucket: storage.objects.create, .get, .list and .delete, which roles/storage.objectUser has.
On a machine of Google Cloud the credentials are those of its service account; nothing secret is stored on it.
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import google.auth
import google_crc32c
from google.api_core import exceptions as api
from google.auth.credentials import AnonymousCredentials, Credentials
from google.auth.exceptions import GoogleAuthError
from google.auth.transport.requests import AuthorizedSession
from google.cloud.storage import Blob as GcsBlob
from google.cloud.storage import Client
from google.cloud.storage.exceptions import DataCorruption
from requests.adapters import HTTPAdapter

from remote.contract.document import ContractError
from remote.contract.folder import crc32c_of, replacing
from remote.contract.keys import checked_key, fits, glob_of, is_key, pattern_of
from remote.contract.resumable import send
from remote.contract.run_spec import StoreRef
from remote.contract.store import FREE, Begun, Blob, Way

from .disk import checksum_of, opened, refused
from .faults import Fault, Kind, Say, no_key
from .gcs_faults import NETWORK_ERRORS, from_api, from_auth, from_network, is_no_bucket

# As many as the largest thread pool that uses a store has threads: with fewer, each request is a new handshake.
CONNECTIONS = 32
TIMEOUT_S = 60.0  # of silence: for the connection, and for each block that is sent or received
AT_ONCE_BYTES = 4 * 1024 * 1024  # what is larger is sent as a stream that goes on where it broke

_SCOPES = ("https://www.googleapis.com/auth/devstorage.read_write",)
_URL = re.compile(r"gs://([a-z0-9][a-z0-9._-]{1,220}[a-z0-9])(?:/(.*))?")
_CONTENT_TYPE = "application/octet-stream"
_LISTED = "items(name,size,crc32c,generation),nextPageToken"
_FOLDERS = "prefixes,nextPageToken"


class GcsStore:
    """A bucket, or what lies below a prefix of it. May be used by up to `connections` threads at once.

    ref.url                 "gs://bucket" or "gs://bucket/prefix"
    ref.endpoint            another address of the service; one that begins with http:// needs no credentials
    ref.credentials_file    instead of the application default credentials
    """

    def __init__(
        self, ref: StoreRef, say: Say, *, connections: int = CONNECTIONS, timeout_s: float = TIMEOUT_S
    ) -> None:
        self.url = ref.url.rstrip("/")
        address = _URL.fullmatch(self.url)
        if address is None or (address[2] and not is_key(address[2])):
            raise say(Fault(Kind.NO_ADDRESS, f"{self.url!r} is not the address of a bucket"))
        self._bucket_name, self._prefix = address[1], f"{address[2]}/" if address[2] else ""
        self._say = say
        self._timeout_s = timeout_s
        try:
            credentials = _credentials(ref)
        except (GoogleAuthError, OSError, ValueError) as error:
            raise say(from_auth(error, self.url, ref.credentials_file)) from error
        # Without this the library asks for the bucket from a thread of its own, with retries of its own, for tracing
        # that nobody has switched on. There is no other public switch.
        os.environ.setdefault("DISABLE_GCS_PYTHON_CLIENT_OTEL_BUCKET_METADATA", "true")
        self._session = session = AuthorizedSession(credentials)
        for scheme in ("https://", "http://"):
            session.mount(scheme, HTTPAdapter(pool_connections=4, pool_maxsize=connections))
        self._client = Client(
            project=None,  # nothing here belongs to a project
            credentials=credentials,
            _http=session,
            client_options={"api_endpoint": ref.endpoint.rstrip("/")} if ref.endpoint else None,
        )
        self._bucket = self._client.bucket(self._bucket_name)

    def get(self, key: str) -> Blob | None:
        with self._told(key):
            blob = self._bucket.blob(self._name(key))
            try:
                blob.reload(retry=None, timeout=self._timeout_s)
            except api.NotFound as error:
                if is_no_bucket(error):
                    raise
                return None
            return _blob(blob, key)

    def blobs(self, prefix: str, *, delimiter: str | None = None, match: str | None = None) -> Iterator[Blob]:
        """Objects whose names are no keys (the "folders" that the console makes end with a slash) are left out."""
        with self._told(prefix):
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
        with self._told(prefix):
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
        self,
        path: Path,
        key: str,
        *,
        if_generation: int | None = None,
        way: Way = FREE,
        begun: Begun | None = None,
    ) -> Blob:
        size, checksum = checksum_of(path, self._say)
        with opened(path, self._say) as file, self._told(key, path.parent):
            blob = self._bucket.blob(self._name(key))
            blob.crc32c = checksum  # sent along: the service refuses content that does not fit
            if size > AT_ONCE_BYTES:
                sent = self._stream(blob, file, key, size, if_generation, way, begun or Begun())
            else:
                way.gate()
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
            raise self._say(Fault(Kind.UNREADY, f"{key} arrived in {self.url} with another checksum"))
        return sent

    def download(self, key: str, path: Path, *, start: int = 0, begun: Begun | None = None) -> None:
        with self._told(key, path.parent), replacing(path, begun) as file:
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
                    raw_download=True,  # what is stored, even if somebody marked it as gzip
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
                raise self._say(Fault(Kind.UNREADY, f"{key} came from {self.url} with another checksum"))

    def delete(self, key: str, *, if_generation: int | None = None) -> None:
        with self._told(key):
            try:
                self._bucket.blob(self._name(key)).delete(
                    if_generation_match=if_generation, retry=None, timeout=self._timeout_s
                )
            except api.NotFound as error:
                if is_no_bucket(error):
                    raise
            except api.PreconditionFailed:
                if self.get(key) is not None:
                    raise

    def _name(self, key: str) -> str:
        return self._prefix + checked_key(key)

    def _stream(
        self,
        blob: GcsBlob,
        file: BinaryIO,
        key: str,
        size: int,
        if_generation: int | None,
        way: Way,
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
        try:
            way.gate()
        except BaseException:
            if fresh:
                begun.go_on_at("")  # nobody will
            raise
        answer = send(self._session, begun, file, size, way.passed, fresh=fresh, timeout_s=self._timeout_s)
        if not answer.ok:
            if answer.status_code < 500 and answer.status_code not in (408, 429):
                begun.go_on_at("")  # refused for good: content that does not fit, another generation
            raise api.from_http_response(answer)
        made = answer.json()
        return Blob(key, int(made["size"]), str(made["crc32c"]), int(made["generation"]))

    @contextmanager
    def _told(self, key: str, folder: Path | None = None) -> Iterator[None]:
        """`folder` is the one of this computer that is read or written, where there is one."""
        try:
            yield
        except ContractError as error:
            raise self._say(no_key(error, self.url)) from None
        except api.GoogleAPICallError as error:
            raise self._say(from_api(error, key, self.url, self._bucket_name)) from error
        except GoogleAuthError as error:
            raise self._say(from_auth(error, self.url, None)) from error
        except NETWORK_ERRORS as error:
            raise self._say(from_network(error, key, self.url)) from error
        except ValueError as error:  # the file has fewer bytes than it had a moment ago
            fault = Fault(Kind.UNREADY, f"The file changed while it was sent as {key}", str(error))
            raise self._say(fault) from error
        except OSError as error:
            if folder is not None:
                raise self._say(refused(error, key, folder)) from error
            fault = Fault(Kind.REFUSED, f"This computer could not ask {self.url} for {key}", str(error))
            raise self._say(fault) from error


def _credentials(ref: StoreRef) -> Credentials:
    credentials: Credentials
    if ref.credentials_file is None and ref.endpoint is not None and ref.endpoint.startswith("http://"):
        return AnonymousCredentials()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of files from strangers; this is its user's own
        warnings.filterwarnings("ignore", "Your application has authenticated")  # tlvm doctor tells it
        if ref.credentials_file is not None:
            credentials, _ = google.auth.load_credentials_from_file(ref.credentials_file, scopes=_SCOPES)
        else:
            credentials, _ = google.auth.default(scopes=_SCOPES)
    return credentials


def _blob(blob: GcsBlob, key: str) -> Blob:
    return Blob(key, int(blob.size), str(blob.crc32c), int(blob.generation))


def _sum_of(file: BinaryIO) -> str:
    file.seek(0)
    return crc32c_of(file, google_crc32c.Checksum())
