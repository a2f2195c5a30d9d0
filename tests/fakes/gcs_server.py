"""A fake Google Cloud Storage on loopback, for Google's real client libraries and for `gcloud storage`.

Written for tests: standard library for the service, Google's discovery document to refuse what the real one would,
everything in memory. Faults are scripted, requests are counted, nothing is ever retried or forgiven.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Self
from urllib.parse import parse_qs, unquote, urlsplit

from tests.fakes.credentials import TOKEN, token_for, write_credentials
from tests.fakes.discovery import Unexpected
from tests.fakes.gcs_api import Api, Request
from tests.fakes.gcs_buckets import Refused
from tests.fakes.gcs_faults import Fault, Faults, Kind, answer, bent, misnamed
from tests.fakes.http_service import Answer, Connection, HttpService, Left

_AREAS = {
    "/storage/v1/": "json",
    "/download/storage/v1/": "download",
    "/upload/storage/v1/": "upload",
    "/resumable/upload/storage/v1/": "upload",  # gcloud
}


class GcsServer:
    """Running while it is entered as a context.

    addresses       to listen on, all with the same port; the first one is `endpoint`
    page_size       of listings; the real one gives 1,000
    latency_s       added to each request
    is_open         False: requests need the token that `credentials_file` leads to
    is_current      whether a request with this Authorization is served

    requests        how often each call was made: "objects.get", "objects.list", "objects.download", "objects.delete",
                    "objects.insert" (in one request), "objects.insert.start" and "objects.insert.chunk" (in several)
    received, sent  bytes of bodies, by call
    errors          tracebacks of the fake's own mistakes, and requests that the real service would not understand
    """

    def __init__(
        self,
        addresses: Sequence[str] = ("127.0.0.1",),
        *,
        page_size: int = 1000,
        latency_s: float = 0.0,
        is_open: bool = True,
    ) -> None:
        self.api = Api(page_size=page_size)
        self.latency_s = latency_s
        self.is_open = is_open
        self.is_current: Callable[[str], bool] = lambda header: True
        self.requests: Counter[str] = Counter()
        self.received: Counter[str] = Counter()
        self.sent: Counter[str] = Counter()
        self.faults = Faults()
        self._lock = threading.Lock()
        self._service = HttpService(self._serve, addresses)
        self.errors = self._service.errors
        self.endpoint = self._service.url_at(addresses[0])

    def __enter__(self) -> Self:
        self._service.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._service.stop()

    def endpoint_at(self, address: str) -> str:
        """As seen from elsewhere: a container uses the address of the Docker bridge."""
        return self._service.url_at(address)

    def create_bucket(self, name: str) -> str:
        """Make a bucket; returns its URL."""
        self.api.buckets.create(name)
        return f"gs://{name}"

    def wait_until_left(self) -> None:
        """Until every client has left and its requests have had their effect. For clients that were killed."""
        self._service.wait_until_left()

    def fail(self, kind: Kind, *, on: str = "*", path: str = "*", times: int = 1) -> None:
        """The next `times` requests whose call matches `on` ("objects.insert*") and whose decoded path matches `path`."""
        self.faults.add(Fault(kind, on, path, times))

    @contextmanager
    def failing(self, kind: Kind, *, on: str = "*", path: str = "*") -> Iterator[None]:
        """All such requests, as long as this context lasts."""
        fault = Fault(kind, on, path, sys.maxsize)
        self.faults.add(fault)
        try:
            yield
        finally:
            self.faults.remove(fault)

    def credentials_file(self, folder: Path) -> Path:
        """A service account's key file, made for this server, whose token address is this server."""
        return write_credentials(folder, self.endpoint)

    def count(self, call: str) -> None:
        with self._lock:
            self.requests[call] += 1

    def weigh(self, call: str, *, received: int = 0, sent: int = 0) -> None:
        with self._lock:
            self.received[call] += received
            self.sent[call] += sent

    def _serve(self, connection: Connection) -> None:
        url = urlsplit(connection.path)
        if url.path == "/token":
            return connection.send(token_for(connection.read_body()))
        fault: Kind | None = None
        call_name = ""
        read = False
        try:
            request = _request(connection, url.path, url.query)
            call = self.api.recognise(request)
            call_name = call.name
            fault = self.faults.take(call_name, unquote(request.path))
            breaks = fault in ("cut", "stall halfway") and request.verb in ("POST", "PUT")
            body, read = connection.read_body(share=0.5 if breaks else 1.0), True
            self.weigh(call_name, received=len(body))
            if fault == "corrupt sent":
                body = bent(body)
            if self.latency_s:
                time.sleep(self.latency_s)
            if breaks:
                self.api.keep(call, body)
            self.count(call_name)  # from here on it shows
            if fault == "reset" or (fault == "cut" and breaks):
                return connection.reset()
            if fault == "stall" or (fault == "stall halfway" and breaks):
                return connection.stall()
            if fault and fault.isdecimal():
                raise answer(fault, call_name)
            if not self.is_open and connection.headers.get("Authorization") != f"Bearer {TOKEN}":
                raise answer("401", call_name)
            if not self.is_current(connection.headers.get("Authorization", "")):
                raise answer("401", call_name)
            result = self.api.perform(call, dataclasses.replace(request, body=body))
        except Left as left:
            self.weigh(call_name, received=len(left.came))
            self.api.keep(call, left.came)
            raise
        except Refused as refused:
            result = _refusal(refused.code, refused.reason, refused.message, call_name)
        except Unexpected as unexpected:
            if unexpected.code != 404:
                self.errors.append(str(unexpected))
            result = _refusal(unexpected.code, "invalid", str(unexpected), call_name)
        if not read:
            connection.read_body()
        if fault == "reset after":
            return connection.reset()
        if fault == "503 after":
            late = answer(fault, call_name)
            result = _refusal(late.code, late.reason, late.message, call_name)
        if fault == "corrupt" and result.body:
            result = Answer(result.code, result.headers, bytes([result.body[0] ^ 1]) + result.body[1:])
        if fault == "other crc32c" and result.code == 200:
            result = Answer(result.code, result.headers, misnamed(result.body))
        halves = fault in ("truncate", "cut", "stall halfway")
        self.weigh(call_name, sent=len(result.body) // (2 if halves else 1))
        connection.send(result, truncated=halves)
        if fault == "cut":
            connection.reset()
        if fault == "stall halfway":
            connection.stall()
        return None


def _request(connection: Connection, path: str, query: str) -> Request:
    for start, area in _AREAS.items():
        if path.startswith(start):
            return Request(
                connection.command,
                area,
                path[len(start) :],
                parse_qs(query, keep_blank_values=True),
                {name.lower(): value for name, value in connection.headers.items()},
                b"",
                f"http://{connection.headers['Host']}",
            )
    raise Unexpected(404, f"no such address: {path}")


def _refusal(code: int, reason: str, message: str, call: str) -> Answer:
    if call == "objects.download":  # answers of media requests are plain text
        return Answer(code, {"Content-Type": "text/html; charset=UTF-8"}, message.encode())
    error = {
        "code": code,
        "message": message,
        "errors": [{"message": message, "domain": "global", "reason": reason}],
    }
    return Answer(
        code, {"Content-Type": "application/json; charset=UTF-8"}, json.dumps({"error": error}).encode()
    )
