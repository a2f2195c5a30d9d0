"""A web server with one file, on loopback, that can be told to misbehave."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class FileServer:
    content: bytes
    url: str = ""
    cut_after: list[int] = field(default_factory=list)  # bytes, one number a request; then whole answers
    status: int = 200
    ranges: bool = True
    asked: list[str] = field(default_factory=list)  # the Range of each request, "" for none
    gate: threading.Event | None = None  # half of the file waits for it
    half_sent: threading.Event = field(default_factory=threading.Event)


@contextmanager
def serving(content: bytes) -> Iterator[FileServer]:
    state = FileServer(content)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked = self.headers.get("Range", "")
            state.asked.append(asked)
            if state.status != 200:
                self.send_error(state.status)
                return
            start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and state.ranges else 0
            if start and start >= len(state.content):
                self.send_error(416)
                return
            body = state.content[start:]
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if state.cut_after:
                self.wfile.write(body[: state.cut_after.pop(0)])
                return
            if state.gate:
                self.wfile.write(body[: len(body) // 2])
                self.wfile.flush()
                state.half_sent.set()
                state.gate.wait(10)
                body = body[len(body) // 2 :]
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
