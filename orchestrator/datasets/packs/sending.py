"""How much of the packs has still to travel, for those who wait."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from orchestrator.progress import Bar, Progress


class Sending:
    """Bytes by pack. Any thread may call it, but for `shown`."""

    def __init__(self) -> None:
        self._left: dict[str, int] = {}
        self._bar: Bar | None = None
        self._lock = threading.Lock()

    def left(self, pack: str, size: int) -> None:
        """So many bytes of a pack have not travelled yet. When a try begins anew, nothing is shown until it is further."""
        with self._lock:
            came = self._left.get(pack, size) - size
            if came >= 0:
                self._left[pack] = size
                if self._bar is not None and came:
                    self._bar.advance(came)

    @contextmanager
    def shown(self, progress: Progress) -> Iterator[None]:
        """From now on."""
        with self._lock:
            whole = sum(self._left.values())
        with progress.bar("send", whole, "bytes") as bar:
            with self._lock:
                self._bar = bar
                bar.advance(whole - sum(self._left.values()))  # since it was summed
            yield
            with self._lock:
                self._bar = None
