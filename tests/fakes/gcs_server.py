"""A fake Google Cloud Storage on loopback, for Google's real client libraries and for `gcloud storage`.

Written for tests: standard library for the service, Google's discovery document to refuse what the real one would,
everything in memory. Faults are scripted, requests are counted, nothing is ever retried or forgiven.
"""

from __future__ import annotations

import dataclasses
import json
import socket
import struct
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, cast
from urllib.parse import parse_qs, unquote, urlsplit

from tests.fakes.discovery import Unexpected
from tests.fakes.gcs_api import Answer, Api, Request
from tests.fakes.gcs_buckets import Refused
from tests.fakes.gcs_faults import Fault, Faults, Kind, answer

TOKEN = "ya29.fake"
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
        self.requests: Counter[str] = Counter()
        self.received: Counter[str] = Counter()
        self.sent: Counter[str] = Counter()
        self.errors: list[str] = []
        self.faults = Faults()
        self.stopping = threading.Event()
        self._lock = threading.Lock()
        self._servers = [_Server((addresses[0], 0), self)]
        self.port = self._servers[0].server_address[1]
        self._servers += [_Server((address, self.port), self) for address in addresses[1:]]
        self._threads = [
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, name="fake-gcs")
            for server in self._servers
        ]
        self.endpoint = f"http://{addresses[0]}:{self.port}"

    def __enter__(self) -> GcsServer:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stopping.set()
        for server, thread in zip(self._servers, self._threads, strict=True):
            server.shutdown()
            thread.join()
            server.end_connections()
            server.server_close()

    def endpoint_at(self, address: str) -> str:
        """As seen from elsewhere: a container uses the address of the Docker bridge."""
        return f"http://{address}:{self.port}"

    def create_bucket(self, name: str) -> str:
        """Make a bucket; returns its URL."""
        self.api.buckets.create(name)
        return f"gs://{name}"

    def fail(self, kind: Kind, *, on: str = "*", path: str = "*", times: int = 1) -> None:
        """The next `times` requests whose call matches `on` ("objects.insert*") and whose decoded path matches `path`."""
        self.faults.add(Fault(kind, on, path, times))

    def credentials_file(self, folder: Path) -> Path:
        """A service account's key file, made for this server, whose token address is this server."""
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import rsa

        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        pem = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.TraditionalOpenSSL,
            serialization.NoEncryption(),
        )
        path = folder / "credentials.json"
        document = {
            "type": "service_account",
            "project_id": "trees-4711",
            "private_key_id": "1",
            "private_key": pem.decode(),
            "client_email": "tester@trees-4711.iam.example",
            "client_id": "1",
            "token_uri": f"{self.endpoint}/token",
        }
        path.write_text(json.dumps(document))
        path.chmod(0o600)
        return path

    def count(self, call: str) -> None:
        with self._lock:
            self.requests[call] += 1

    def weigh(self, call: str, *, received: int = 0, sent: int = 0) -> None:
        with self._lock:
            self.received[call] += received
            self.sent[call] += sent


class _Server(ThreadingHTTPServer):
    daemon_threads = False
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], fake: GcsServer) -> None:
        self.fake = fake
        self._connections: set[socket.socket] = set()
        self._lock = threading.Lock()
        super().__init__(address, _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._connections.discard(request)
        super().shutdown_request(request)

    def end_connections(self) -> None:
        with self._lock:
            for connection in self._connections:
                try:
                    connection.shutdown(socket.SHUT_RDWR)
                except OSError:  # the client was faster
                    continue

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], ConnectionError):
            self.fake.errors.append(traceback.format_exc())


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1

    def do_GET(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def do_PUT(self) -> None:
        self._serve()

    def do_PATCH(self) -> None:
        self._serve()

    def do_DELETE(self) -> None:
        self._serve()

    def log_message(self, format: str, *args: Any) -> None: ...

    def _serve(self) -> None:
        fake = cast(_Server, self.server).fake
        url = urlsplit(self.path)
        if url.path == "/token":
            return self._send(_token(self._body()))
        fault: Kind | None = None
        call_name = ""
        read = False
        try:
            request = self._request(url.path, url.query)
            call = fake.api.recognise(request)
            call_name = call.name
            fault = fake.faults.take(call_name, unquote(request.path))
            breaks = fault in ("cut", "stall halfway") and request.verb in ("POST", "PUT")
            body, read = self._body(share=0.5 if breaks else 1.0), True
            fake.weigh(call_name, received=len(body))
            if fake.latency_s:
                time.sleep(fake.latency_s)
            fake.count(call_name)
            if breaks:
                fake.api.keep(call, body)
            if fault == "reset" or (fault == "cut" and breaks):
                return self._reset()
            if fault == "stall" or (fault == "stall halfway" and breaks):
                return self._stall(fake.stopping)
            if fault and fault.isdecimal():
                raise answer(fault, call_name)
            if not fake.is_open and self.headers.get("Authorization") != f"Bearer {TOKEN}":
                raise answer("401", call_name)
            result = fake.api.perform(call, dataclasses.replace(request, body=body))
        except Refused as refused:
            result = _refusal(refused.code, refused.reason, refused.message, call_name)
        except Unexpected as unexpected:
            if unexpected.code != 404:
                fake.errors.append(str(unexpected))
            result = _refusal(unexpected.code, "invalid", str(unexpected), call_name)
        if not read:
            self._body()
        if fault == "reset after":
            return self._reset()
        if fault == "503 after":
            late = answer(fault, call_name)
            result = _refusal(late.code, late.reason, late.message, call_name)
        if fault == "corrupt" and result.body:
            result = Answer(result.code, result.headers, bytes([result.body[0] ^ 1]) + result.body[1:])
        halves = fault in ("truncate", "cut", "stall halfway")
        fake.weigh(call_name, sent=len(result.body) // (2 if halves else 1))
        self._send(result, truncated=halves)
        if fault == "cut":
            self._reset()
        if fault == "stall halfway":
            self._stall(fake.stopping)
        return None

    def _request(self, path: str, query: str) -> Request:
        for start, area in _AREAS.items():
            if path.startswith(start):
                return Request(
                    self.command,
                    area,
                    path[len(start) :],
                    parse_qs(query, keep_blank_values=True),
                    {name.lower(): value for name, value in self.headers.items()},
                    b"",
                    f"http://{self.headers['Host']}",
                )
        raise Unexpected(404, f"no such address: {path}")

    def _body(self, share: float = 1.0) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(int(self.headers.get("Content-Length", 0)) * share))
        body = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _send(self, result: Answer, *, truncated: bool = False) -> None:
        self.send_response(result.code)
        headers: Mapping[str, str] = {**result.headers, "Content-Length": str(len(result.body))}
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if truncated:
            self.wfile.write(result.body[: len(result.body) // 2])
            self.wfile.flush()
            self.close_connection = True
        else:
            self.wfile.write(result.body)

    def _reset(self) -> None:
        """Close with RST instead of FIN, as a connection ends that a machine in between has forgotten."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True

    def _stall(self, stopping: threading.Event) -> None:
        stopping.wait(60)
        self.close_connection = True


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


def _token(body: bytes) -> Answer:
    form = parse_qs(body.decode())
    if form.get("grant_type") != ["urn:ietf:params:oauth:grant-type:jwt-bearer"] or not form.get("assertion"):
        return Answer(400, {"Content-Type": "application/json"}, b'{"error": "invalid_grant"}')
    document = {"access_token": TOKEN, "expires_in": 3599, "token_type": "Bearer"}
    return Answer(200, {"Content-Type": "application/json"}, json.dumps(document).encode())
