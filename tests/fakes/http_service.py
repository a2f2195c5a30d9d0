"""An HTTP server on loopback for the fakes: one function serves, connections can be cut, all of it ends together."""

from __future__ import annotations

import socket
import struct
import sys
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
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
    code: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


class Drop(Exception):
    """Raised instead of an answer: "reset", or "stall" to keep silent until somebody gives up."""


class Left(Exception):
    """The client went away in the middle of its request, of whose body `came` has arrived."""

    def __init__(self, came: bytes) -> None:
        super().__init__(f"the client left after {len(came)} bytes of a body")
        self.came = came


class HttpService:
    """Running while it is entered as a context.

    serve       serves one request on its connection, in a thread of its own
    addresses   to listen on, all with the same port
    errors      tracebacks of what `serve` raised
    """

    def __init__(
        self, serve: Callable[[Connection], None], addresses: Sequence[str] = ("127.0.0.1",)
    ) -> None:
        self.serve = serve
        self.errors: list[str] = []
        self.stopping = threading.Event()
        self._servers = [_Server((addresses[0], 0), self)]
        self.port = int(self._servers[0].server_address[1])
        self._servers += [_Server((address, self.port), self) for address in addresses[1:]]
        self._threads = [
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, name="fake-http")
            for server in self._servers
        ]

    def __enter__(self) -> HttpService:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self.stopping.set()
        for server, thread in zip(self._servers, self._threads, strict=True):
            server.shutdown()
            thread.join()
            server.end_connections()
            server.server_close()

    def url_at(self, address: str) -> str:
        return f"http://{address}:{self.port}"

    def wait_until_left(self, *, timeout_s: float = 60.0) -> None:
        """Until every client has left and its requests have had their effect. For clients that were killed."""
        for server in self._servers:
            server.wait_until_left(timeout_s)


class _Server(ThreadingHTTPServer):
    daemon_threads = False
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], service: HttpService) -> None:
        self.service = service
        self._connections: dict[socket.socket, Any] = {}  # and the addresses of their clients
        self._changed = threading.Condition()
        super().__init__(address, Connection)

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._changed:
            self._connections[request] = client_address
            self._changed.notify_all()
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._changed:
            self._connections.pop(request, None)
            self._changed.notify_all()
        super().shutdown_request(request)

    def wait_until_left(self, timeout_s: float) -> None:
        """What waits to be accepted comes before a connection of our own."""
        with socket.create_connection(self.socket.getsockname()) as last, self._changed:
            ours = last.getsockname()
            self._changed.wait_for(lambda: ours in self._connections.values(), timeout_s)
            others = {one for one, client in self._connections.items() if client != ours}
            if not self._changed.wait_for(lambda: others.isdisjoint(self._connections), timeout_s):
                raise TimeoutError(f"clients are still connected after {timeout_s:.0f} s")

    def end_connections(self) -> None:
        with self._changed:
            for connection in self._connections:
                try:
                    connection.shutdown(socket.SHUT_RDWR)
                except OSError:  # the client was faster
                    continue

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], ConnectionError | Left):
            self.service.errors.append(traceback.format_exc())


class Connection(BaseHTTPRequestHandler):
    """One request, for functions that look at the connection itself; `whole` is for all others."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1

    def do_GET(self) -> None:
        cast(_Server, self.server).service.serve(self)

    do_POST = do_PUT = do_PATCH = do_DELETE = do_GET

    def log_message(self, format: str, *args: Any) -> None: ...

    def read_body(self, share: float = 1.0) -> bytes:
        """The body, or the first part of it. Left"""
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            size = int(int(self.headers.get("Content-Length", 0)) * share)
            came = self.rfile.read(size)
            if len(came) < size:
                raise Left(came)
            return came
        body = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def send(self, answer: Answer, *, truncated: bool = False) -> None:
        self.send_response(answer.code)
        for name, value in {**answer.headers, "Content-Length": str(len(answer.body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if truncated:
            self.wfile.write(answer.body[: len(answer.body) // 2])
            self.wfile.flush()
            self.close_connection = True
        else:
            self.wfile.write(answer.body)

    def reset(self) -> None:
        """Close with RST instead of FIN, as a connection ends that a machine in between has forgotten."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True

    def stall(self) -> None:
        """Say nothing until the client or the server gives up."""
        cast(_Server, self.server).service.stopping.wait(60)
        self.close_connection = True


def whole(answered: Callable[[Incoming], Answer]) -> Callable[[Connection], None]:
    """Serve with a function from a whole request to a whole answer, which may raise Drop."""

    def serve(connection: Connection) -> None:
        path, _, query = connection.path.partition("?")
        headers = {name.lower(): value for name, value in connection.headers.items()}
        request = Incoming(connection.command, path, query, headers, connection.read_body())
        try:
            connection.send(answered(request))
        except Drop as drop:
            if str(drop) == "stall":
                connection.stall()
            else:
                connection.reset()

    return serve
