"""Packs on their way: gathered in memory, written to the disk, sent, each while the next one is under way.

One pack is gathered and at most one written at a time, and a few wait on the disk for their sending: memory and disk
stay bounded whatever the dataset. What a pack holds follows from the order in which images come and from what is
packed already, so an upload that is done again makes the same packs.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Container, Mapping
from pathlib import Path

from orchestrator.errors import TlvmError

from .judge import Verdict
from .names import encode
from .pack import PACK_BYTES, Member, Pack, cost, room, write_members

SENDERS = 4
ON_DISK = 8  # packs that are being written, sent, or wait for that


class Packer:
    """Takes images in path order. Used from one thread; `send` is called from several.

    folder          for packs until they are sent
    placed          content hashes that need no packing
    before          content hash by encoded path, of what needs no packing
    send            brings a pack into the store
    """

    def __init__(
        self,
        folder: Path,
        placed: Container[str],
        before: Mapping[str, str],
        send: Callable[[Pack], None],
        *,
        limit: int = PACK_BYTES,
    ) -> None:
        self.packs: list[Pack] = []  # that were written
        self._folder = folder
        self._placed = placed
        self._before = before
        self._send = send
        self._limit = limit
        self._taken: set[str] = set()
        self._gathered: list[Member] = []
        self._room = 0
        self._threads: list[threading.Thread] = []
        self._gone = 0
        self._error: Exception | None = None
        self._on_disk = threading.BoundedSemaphore(ON_DISK)
        self._writing = threading.BoundedSemaphore(1)
        self._sending = threading.BoundedSemaphore(SENDERS)
        self._released = threading.Event()  # the last pack may go
        self._stopped = False

    def needs(self, sha256: str) -> bool:
        return sha256 not in self._taken and sha256 not in self._placed

    def expected(self, path: bytes) -> str:
        return self._before.get(encode(path), "") if self._before else ""

    def add(self, verdict: Verdict, data: bytes) -> None:
        """Waits while too much is on its way. Raises what went wrong with a pack before."""
        if not self.needs(verdict.sha256):
            return
        size = cost(len(data))
        if self._gathered and size > self._room:
            self._seal(last=False)
        if not self._gathered:
            self._room = room(self._limit)
        self._taken.add(verdict.sha256)
        self._gathered.append(Member(verdict.sha256, verdict.extension, data))
        self._room -= size

    def end(self) -> None:
        """No image comes any more: when this returns, every pack is written. The last one waits for `release`."""
        self._taken.clear()
        if self._gathered:
            self._seal(last=True)
        with self._writing:
            self._raise()

    def release(self) -> None:
        """The check has passed: the last pack may go."""
        self._released.set()

    def finish(self) -> None:
        """Wait until every pack was sent; they are released."""
        for thread in self._threads:
            thread.join()
        self._raise()
        if self._gone < len(self._threads):
            raise RuntimeError("a thread that sends packs died")  # and has shown why

    def stop(self) -> None:
        """After an error: what has not begun to be sent is not; what is on its way is not waited for."""
        self._stopped = True
        self._released.set()

    def _seal(self, *, last: bool) -> None:
        self._on_disk.acquire()
        self._writing.acquire()
        try:
            self._raise()
        except BaseException:
            self._writing.release()
            raise
        members, self._gathered = self._gathered, []
        # A daemon, so that Ctrl-C does not wait for a slow line.
        thread = threading.Thread(target=self._travel, args=(members, last), name="pack", daemon=True)
        thread.start()
        self._threads.append(thread)

    def _travel(self, members: list[Member], last: bool) -> None:
        try:
            try:
                members.sort()
                pack = write_members(members, self._folder)
                members.clear()
                self.packs.append(pack)
            finally:
                self._writing.release()
            if last:
                self._released.wait()
            with self._sending:
                if not self._stopped:
                    self._send(pack)
            pack.path.unlink()
            self._gone += 1
        except (TlvmError, OSError) as error:
            self._error = self._error or error
        finally:
            self._on_disk.release()

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error
