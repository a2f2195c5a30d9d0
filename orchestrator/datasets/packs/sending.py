"""How much of the packs has still to travel, for those who wait."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from orchestrator.datasets.packs.pack import Pack
from orchestrator.progress import Bar, Progress


class Sending:
    """Any thread may say what has passed."""

    def __init__(self) -> None:
        self._left: dict[str, int] = {}  # bytes by pack
        self._bar: Bar | None = None
        self._lock = threading.Lock()

    def passed(self, pack: Pack, count: int) -> None:
        """So many bytes of a pack have travelled; 0: it is about to. A try that begins anew shows nothing until it is
        further than the one before.
        """
        left = pack.size - count
        with self._lock:
            came = self._left.get(pack.sha256, left) - left
            if came >= 0:
                self._left[pack.sha256] = left
            if self._bar is not None and came > 0:
                self._bar.advance(came)

    @contextmanager
    def shown(self, progress: Progress) -> Iterator[None]:
        """From now on."""
        with self._lock:
            whole = sum(self._left.values())
        with progress.bar("send", whole, "bytes") as bar:
            with self._lock:
                self._bar = bar
                bar.advance(whole - sum(self._left.values()))  # what came since it was summed
            yield
            with self._lock:
                self._bar = None
