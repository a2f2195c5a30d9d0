"""Events and log on their way to the store: in segments, of which only the last is ever sent again."""

from __future__ import annotations

import base64
import hashlib
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from remote.contract import layout
from remote.contract.layout import RunFolder
from remote.contract.run_status import ResultFile
from remote.store import Blob, Store

STREAMS = ("events", "log")
_CHUNK_BYTES = 1024 * 1024


class Streams:
    """The segments of one run, sent by one thread at a time. What the store has already is not sent again, whoever sent it."""

    def __init__(self, open_store: Callable[[], Store], run_id: str, folder: RunFolder) -> None:
        self._open_store = open_store
        self._run_id = run_id
        self._folder = folder
        self._sent = dict.fromkeys(STREAMS, 0)  # bytes of each stream that are in the store
        self._segments: dict[str, ResultFile] = {}  # all that are in the store
        self._there: dict[str, Blob] | None = None
        self._turn = threading.Lock()
        self._closed = False

    def publish(self) -> None:
        """Whole segments once; the last one again whenever it has grown; none once they are closed. StoreError, OSError"""
        with self._turn:
            if not self._closed:
                self._publish_all()

    @contextmanager
    def closing(self) -> Iterator[list[ResultFile]]:
        """All of them, in the store, for MANIFEST.json to name: nothing is sent meanwhile, nor later if this goes well."""
        with self._turn:
            self._publish_all()
            yield list(self._segments.values())
            self._closed = True

    def _publish_all(self) -> None:
        for stream, path in (("events", self._folder.events), ("log", self._folder.log)):
            whole = size_of(path)
            while self._sent[stream] < whole:
                offset = self._sent[stream] // layout.SEGMENT_BYTES * layout.SEGMENT_BYTES
                length = min(layout.SEGMENT_BYTES, whole - offset)
                self._publish(stream, path, offset, length)
                self._sent[stream] = offset + length

    def _publish(self, stream: str, path: Path, offset: int, length: int) -> None:
        piece = self._folder.root / ".segment"
        with path.open("rb") as file:
            file.seek(offset)
            piece.write_bytes(file.read(length))
        key = layout.segment_key(self._run_id, stream, offset)
        name = key.removeprefix(layout.run_key(self._run_id))
        described = describe(piece, name)
        if not is_same(self._earlier().get(key), described):
            send(self._open_store(), piece, key, described)
        self._segments[name] = described

    def _earlier(self) -> dict[str, Blob]:
        """What was there when this process began to send."""
        if self._there is None:
            store = self._open_store()
            self._there = {
                blob.key: blob
                for stream in STREAMS
                for blob in store.blobs(layout.run_key(self._run_id, stream) + "/")
            }
        return self._there


def send(store: Store, path: Path, key: str, described: ResultFile) -> None:
    """OSError when it changed on its way."""
    if not is_same(store.upload(path, key), described):
        raise OSError(f"{described.path} changed while it was uploaded")


def is_same(blob: Blob | None, described: ResultFile) -> bool:
    return blob is not None and (blob.size, blob.crc32c) == (described.size, described.crc32c)


def describe(path: Path, name: str) -> ResultFile:
    import google_crc32c

    sha256, crc32c, size = hashlib.sha256(), google_crc32c.Checksum(), 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            sha256.update(chunk)
            crc32c.update(chunk)
            size += len(chunk)
    return ResultFile(name, size, sha256.hexdigest(), base64.b64encode(crc32c.digest()).decode())


def size_of(path: Path) -> int:
    with suppress(FileNotFoundError):
        return path.stat().st_size
    return 0
