"""An HTTP server on loopback for the fakes: one function answers, connections can be dropped, all ends with it."""

from __future__ import annotations

import socket
import struct
import sys
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, cast


@dataclass(frozen=True)
class Incoming:
    method: str
    path: str  # still encoded
    query: str
    headers: Mapping[str, str]  # names in lower case
    body: bytes


@dataclass(frozen=True)
class Answer:
    code: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


class Drop(Exception):
    """Raised instead of an answer: "reset" closes the connection with RST, "stall" keeps silent until somebody gives up."""


class HttpService:
    """Running while it is entered as a context; `errors` are the tracebacks of what the function raised."""

    def __init__(
        self, serve: Callable[[Incoming], Answer], addresses: Sequence[str] = ("127.0.0.1",)
    ) -> None:
        self.errors: list[str] = []
        self.stopping = threading.Event()
        self.serve = serve
        self._servers = [_Server((addresses[0], 0), self)]
        self.port = int(self._servers[0].server_address[1])
        self._servers += [_Server((address, self.port), self) for address in addresses[1:]]
        self._threads = [
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, name="fake-http")
            for server in self._servers
        ]

    def __enter__(self) -> HttpService:
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

    def url_at(self, address: str) -> str:
        return f"http://{address}:{self.port}"


class _Server(ThreadingHTTPServer):
    daemon_threads = False
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], service: HttpService) -> None:
        self.service = service
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
            self.service.errors.append(traceback.format_exc())


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
        service = cast(_Server, self.server).service
        path, _, query = self.path.partition("?")
        headers = {name.lower(): value for name, value in self.headers.items()}
        body = self.rfile.read(int(headers.get("content-length", 0)))
        try:
            answer = service.serve(Incoming(self.command, path, query, headers, body))
        except Drop as drop:
            return self._drop(str(drop), service.stopping)
        self.send_response(answer.code)
        for name, value in {**answer.headers, "Content-Length": str(len(answer.body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(answer.body)
        return None

    def _drop(self, how: str, stopping: threading.Event) -> None:
        if how == "stall":
            stopping.wait(60)
        else:  # as a connection ends that a machine in between has forgotten
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
        self.close_connection = True
