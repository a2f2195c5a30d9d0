"""Packs come onto a machine before any run asks for them, while a laptop still uploads their dataset.

Standard input: a line with the store (`StoreRef` as JSON), then the hash of a pack in each line, as soon as the store
has it. Ends when the input has ended and what it named is here, or at the first thing that goes wrong: whatever is
missing then, a run fetches itself.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import BinaryIO

from remote.contract import document, layout
from remote.contract.document import ContractError
from remote.contract.layout import MachineHome
from remote.contract.run_spec import StoreRef
from remote.job.evict import has_room, make_room
from remote.job.fetch import THREADS, Wanted, bring
from remote.store import Blob, Store, StoreError, open_store

LINE_BYTES_MAX = 8192
WAITING_MAX = 64  # packs; no more is read before some of them have come


class NoRoom(Exception):
    """What is here already, and may be needed, leaves no room for more packs."""


def prefetch(told: BinaryIO, home: MachineHome, *, limit_bytes: int | None = None) -> None:
    """Fetch what the lines of `told` name, until they end.

    limit_bytes     for all packs of this machine; default: half of the disk
    ContractError   when a line is not what it should be, or a pack not what its hash says
    StoreError, NoRoom, OSError
    """
    store = open_store(document.decode(StoreRef, _line(told) or "", what="the store of packs to come"))
    ahead = _Ahead(home, store, limit_bytes)
    with ThreadPoolExecutor(THREADS, thread_name_prefix="prefetch") as pool:
        while ahead.error is None and (line := _line(told)) is not None:
            pack = layout.sha256(line)
            ahead.expect(pack)
            pool.submit(ahead.fetch, pack)
    if ahead.error is not None:
        raise ahead.error


def _line(told: BinaryIO) -> str | None:
    """Without its end; None behind the last one."""
    line = told.readline(LINE_BYTES_MAX)
    if not line:
        return None
    if not line.endswith(b"\n"):
        raise ContractError(f"{line[:80]!r} is cut off, or too long")
    return line[:-1].decode("utf-8", "replace")


class _Ahead:
    """Used by several threads. After an error nothing more is begun."""

    def __init__(self, home: MachineHome, store: Store, limit_bytes: int | None) -> None:
        self.error: Exception | None = None
        self._home = home
        self._store = store
        self._limit_bytes = limit_bytes
        self._expected: set[str] = set()
        self._coming_bytes = 0
        self._lock = threading.Lock()
        self._waiting = threading.BoundedSemaphore(WAITING_MAX)

    def expect(self, pack: str) -> None:
        """Waits while too many are on their way."""
        self._waiting.acquire()
        with self._lock:
            self._expected.add(pack)

    def fetch(self, pack: str) -> None:
        try:
            if self.error is None:
                self._fetch(pack)
        except (StoreError, ContractError, NoRoom, OSError) as error:
            self.error = self.error or error
        finally:
            self._waiting.release()

    def _fetch(self, pack: str) -> None:
        key = layout.pack_key(pack)
        blob = self._store.get(key)
        if blob is None:
            return  # the run that needs it says so
        want = Wanted(key, self._home.pack(pack), pack, blob.size)
        if want.is_here():
            return
        with self._room(blob):
            bring(want, self._home, self._store, by=f"prefetch-{os.getpid()}")

    @contextmanager
    def _room(self, blob: Blob) -> Iterator[None]:
        with self._lock:
            size = self._coming_bytes + blob.size
            make_room(self._home, size, keep=self._expected, limit_bytes=self._limit_bytes)
            if not has_room(self._home, size, limit_bytes=self._limit_bytes):
                raise NoRoom(f"there is no room for {blob.key} ({blob.size} bytes) beside what is needed")
            self._coming_bytes = size
        try:
            yield
        finally:
            with self._lock:
                self._coming_bytes -= blob.size
