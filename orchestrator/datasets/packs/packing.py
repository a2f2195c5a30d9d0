"""Packs on their way: gathered in memory, written to the disk, sent, each while the next one is under way.

One pack is gathered and at most one written at a time, and a few wait on the disk for their sending: memory and disk
stay bounded whatever the dataset. What a pack holds follows from the order in which images come and from what is
packed already, so an upload that is done again makes the same packs.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from operator import itemgetter
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from orchestrator.datasets.columns.hashes import Digests, heads
from orchestrator.datasets.columns.images import at_path
from orchestrator.datasets.columns.places import LOCATED, Places
from orchestrator.datasets.columns.rows import Rows
from orchestrator.datasets.folder.names import encode
from orchestrator.datasets.packs.member import HASH_BYTES, Members
from orchestrator.datasets.packs.pack import PACK_BYTES, Laid, Pack, room, write_laid
from orchestrator.datasets.packs.sending import Sending
from orchestrator.datasets.packs.taken import Taken
from orchestrator.errors import TlvmError
from orchestrator.progress import Progress
from orchestrator.stores.base import Way
from remote.contract.dataset_manifest import Image

SENDERS = 4
ON_DISK = 8  # packs that are being written, sent, or wait for that
_UNSEEN_S = 1.0  # a wait so short is not worth a line


class _Stopped(Exception):
    """Nothing more is sent."""


class Packer:
    """Takes images in path order. Used from one thread; `send` is called from several.

    folder          for packs until they are sent
    there           contents that need no packing
    before          the images of the version before
    send            brings a pack into the store
    """

    def __init__(
        self,
        folder: Path,
        there: Places,
        before: Rows[Image],
        send: Callable[[Pack, Way], None],
        *,
        limit: int = PACK_BYTES,
    ) -> None:
        self.sums: dict[str, tuple[int, str]] = {}  # size and checksum of the packs that were written
        self._written = LOCATED.rows()
        self._folder = folder
        self._there = there
        self._before = before
        self._send = send
        self._limit = limit
        self._taken = Taken()
        self._gathered: list[Laid] = []
        self._room = 0
        self._threads: list[threading.Thread] = []
        self._travelling = Sending()
        self._gone = 0
        self._error: Exception | None = None
        self._on_disk = threading.BoundedSemaphore(ON_DISK)
        self._writing = threading.BoundedSemaphore(1)
        self._sending = threading.BoundedSemaphore(SENDERS)
        self._released = threading.Event()  # the last pack may go
        self._stopped = False

    def needs(self, hashes: Digests) -> NDArray[np.bool_]:
        return self._there.find(hashes) < 0

    def expected(self, paths: Sequence[bytes]) -> bytes:
        if not len(self._before):
            return bytes(HASH_BYTES * len(paths))
        return b"".join(self._expected(path) for path in paths)

    def add(self, members: Members) -> None:
        """Waits while too much is on its way. Raises what went wrong with a pack before."""
        new = self._new(members)
        # What all of is packed is not copied; of the rest nothing is held that is not packed.
        data = memoryview(members.data) if len(new) == len(members.ends) else members.data
        for sha256, start, end in new:
            if self._gathered and end - start > self._room:
                self._seal(last=False)
            if not self._gathered:
                self._room = room(self._limit)
            self._gathered.append((sha256, data[start:end]))
            self._room -= end - start

    def _new(self, members: Members) -> list[tuple[bytes, int, int]]:
        """Of contents that are in no pack yet: hash, start and end."""
        found = []
        hashes = np.frombuffer(members.hashes, dtype=f"S{HASH_BYTES}")
        new = self._taken.take(heads(hashes), self.needs(hashes))
        start = 0
        for at, (end, is_new) in enumerate(zip(members.ends, new, strict=True)):
            if is_new:
                found.append((members.hashes[at * HASH_BYTES : (at + 1) * HASH_BYTES], start, end))
            start = end
        return found

    def close(self) -> None:
        """No image comes any more: the last pack is written, and waits for `release`."""
        self._taken = Taken()
        if self._gathered:
            self._seal(last=True)

    def places(self) -> Places:
        """Where the images are, once every pack is written."""
        with self._writing:
            self._raise()
        return Places(self._written)

    def release(self) -> None:
        """The check has passed: the last pack may go."""
        self._released.set()

    def finish(self, progress: Progress) -> None:
        """Wait until every pack was sent; they are released. Where that takes a moment, a bar shows how far they are."""
        soon = time.monotonic() + _UNSEEN_S
        for thread in self._threads:
            thread.join(max(0.0, soon - time.monotonic()))
        if any(thread.is_alive() for thread in self._threads):
            with self._travelling.shown(progress):
                for thread in self._threads:
                    thread.join()
        self._raise()
        if self._gone < len(self._threads):
            raise RuntimeError("a thread that sends packs died")  # and has shown why

    def stop(self) -> None:
        """After an error: what has not begun to be sent is not; what is on its way is not waited for."""
        self._stopped = True
        self._released.set()

    def _expected(self, path: bytes) -> bytes:
        found = at_path(self._before, encode(path))
        is_there = found is not None and found.sha256 in self._there
        return bytes.fromhex(found.sha256) if found is not None and is_there else bytes(HASH_BYTES)

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

    def _travel(self, members: list[Laid], last: bool) -> None:
        try:
            try:
                members.sort(key=itemgetter(0))
                pack = write_laid(members, self._folder)
                members.clear()
                self.sums[pack.sha256] = (pack.size, pack.crc32c)
                self._written = self._written.joined(pack.places)
            finally:
                self._writing.release()
            self._travelling.passed(pack, 0)
            way = Way(
                self._until_released if last else self._unless_stopped, partial(self._travelling.passed, pack)
            )
            with self._sending:
                self._send(pack, way)
            self._travelling.passed(pack, pack.size)
            pack.path.unlink()
            self._gone += 1
        except _Stopped:
            pass  # the folder of all packs goes now
        except (TlvmError, OSError) as error:
            self._error = self._error or error
        finally:
            self._on_disk.release()

    def _until_released(self) -> None:
        self._released.wait()
        self._unless_stopped()

    def _unless_stopped(self) -> None:
        if self._stopped:
            raise _Stopped

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error
