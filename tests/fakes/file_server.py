"""A web server with one file, on loopback, that can be told to misbehave."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

from tests.fakes.http_service import Connection, HttpService


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
    with HttpService(partial(_serve, state)) as service:
        state.url = service.url_at("127.0.0.1")
        yield state


def _serve(state: FileServer, connection: Connection) -> None:
    connection.close_connection = True  # so that an answer that is cut ends
    asked = connection.headers.get("Range", "")
    state.asked.append(asked)
    if state.status != 200:
        connection.send_error(state.status)
        return
    start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and state.ranges else 0
    if start and start >= len(state.content):
        connection.send_error(416)
        return
    body = state.content[start:]
    connection.send_response(206 if start else 200)
    connection.send_header("Content-Length", str(len(body)))
    connection.end_headers()
    if state.cut_after:
        connection.wfile.write(body[: state.cut_after.pop(0)])
        return
    if state.gate:
        connection.wfile.write(body[: len(body) // 2])
        connection.wfile.flush()
        state.half_sent.set()
        state.gate.wait(10)
        body = body[len(body) // 2 :]
    connection.wfile.write(body)
