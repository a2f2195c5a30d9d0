"""An upload to Google Cloud Storage in one stream that, when it breaks, goes on at the byte after the last kept one.

The service keeps what came in units of 256 KiB, says on request how much that is, and of an upload that is complete
what became of it: no byte before that travels again, and nothing is in doubt when an answer was lost. Google's own
library begins anew unless it may retry by itself, and holds each piece in memory.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Set
from typing import Any, BinaryIO, Protocol

from .store import Begun

_KEPT = re.compile(r"bytes=0-([0-9]+)")
_UNFINISHED = 308
_GONE = frozenset({404, 410})
_BLOCK_BYTES = 128 * 1024


class Answer(Protocol):
    """`requests.Response`."""

    status_code: int

    @property
    def ok(self) -> bool: ...

    @property
    def headers(self) -> Mapping[str, str]: ...

    def json(self) -> Any: ...


class Http(Protocol):
    """`requests.Session`. `timeout` bounds each wait for the other side, to take a block or to answer."""

    def put(
        self, url: str, data: Any, *, headers: Mapping[str, str], timeout: float, allow_redirects: bool
    ) -> Answer: ...


def send(
    http: Http,
    begun: Begun,
    file: BinaryIO,
    size: int,
    passed: Callable[[int], None],
    *,
    fresh: bool,
    timeout_s: float,
) -> Answer:
    """Bring the rest of a file into the session `begun.session`; the answer that ends it, whatever it is.

    passed          told how many bytes of the file have travelled
    fresh           the session has nothing yet
    ConnectionError when the session is not known any more, or took nothing: another try makes a new one
    ValueError      when the file has become shorter
    """
    at = 0
    if not fresh:
        answer = _put(http, begun, b"", f"bytes */{size}", timeout_s, gone=_GONE | {400})
        if answer.status_code != _UNFINISHED:
            return answer
        at = _kept(answer)
    while True:
        file.seek(at)
        answer = _put(http, begun, _Rest(file, at, size, passed), f"bytes {at}-{size - 1}/{size}", timeout_s)
        if answer.status_code != _UNFINISHED:
            return answer
        before, at = at, _kept(answer)  # it may keep a part only
        if not before < at < size:
            begun.go_on_at("")
            raise ConnectionError(f"the upload does not go on after {at} bytes")


def _put(
    http: Http, begun: Begun, data: Any, content_range: str, timeout_s: float, *, gone: Set[int] = _GONE
) -> Answer:
    headers = {"Content-Range": content_range}
    answer = http.put(begun.session, data, headers=headers, timeout=timeout_s, allow_redirects=False)
    if answer.status_code in gone:
        begun.go_on_at("")
        raise ConnectionError("the upload that was under way is not known any more")
    return answer


def _kept(answer: Answer) -> int:
    """Bytes."""
    match = _KEPT.fullmatch(answer.headers.get("Range", ""))
    return int(match[1]) + 1 if match else 0


class _Rest:
    """The bytes of a file from `at` on, where it stands, to `size`: what `requests` needs of a body.

    It has no `read`, of which the layers below would ask for small pieces.
    """

    def __init__(self, file: BinaryIO, at: int, size: int, passed: Callable[[int], None]) -> None:
        self._file = file
        self._at, self._size = at, size
        self._passed = passed

    def __len__(self) -> int:
        return self._size - self._at

    def __iter__(self) -> Iterator[bytes]:
        while self._at < self._size:
            data = self._file.read(min(_BLOCK_BYTES, len(self)))
            if not data:
                raise ValueError(f"the file is {len(self)} bytes shorter than it was")
            yield data
            self._at += len(data)
            self._passed(self._at)
