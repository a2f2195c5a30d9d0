"""What an upload knows of the packs in the store, more with each that it sends and with each look."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping, Set

from orchestrator.datasets.columns.places import NOWHERE, Places
from orchestrator.datasets.packs.pack import Pack
from orchestrator.datasets.publishing import versions
from orchestrator.progress import Progress
from orchestrator.stores.base import FREE, Blob, Store, Way
from remote.contract.dataset_manifest import DatasetManifest

Sums = Mapping[str, tuple[int, str]]  # size and checksum of packs, by hash
Found = Mapping[str, Blob | None]  # by key: what the store has of some


class Stock:
    """`bring` may be called by several threads.

    sums            of packs that this computer sent or met before
    read            packs whose sums nobody has told are read
    stored          told each pack that this upload sends or meets in the store, by the thread that brought it
    """

    def __init__(
        self,
        store: Store,
        sums: Sums,
        progress: Progress,
        *,
        read: bool,
        stored: Callable[[str], None] | None,
    ) -> None:
        self.sent: set[str] = set()
        self.bytes_sent = 0
        self.verified: set[str] = set()
        self.written: dict[str, tuple[int, str]] = {}  # as `Sums`, by this upload
        self._placed = NOWHERE  # by this upload
        self._lost: set[str] = set()  # packs that a version names and the store does not have
        self._sums = dict(sums)
        self._store = store
        self._progress = progress
        self._read = read
        self._stored = stored
        self._lock = threading.Lock()

    def places(self, older: Places) -> Places:
        """Of what need not be packed, by content hash."""
        return self._placed.before(older).without(self._lost)

    def add(self, places: Places, written: Sums) -> None:
        """Packs that this upload has written."""
        self._placed = places.before(self._placed)
        self.written |= written

    def bring(self, pack: Pack, way: Way = FREE) -> None:
        """Into the store."""
        blob, was_sent = versions.put_pack(self._store, pack.path, pack.sha256, way)
        with self._lock:
            self._sums[pack.sha256] = (blob.size, blob.crc32c)
            self._lost.discard(pack.sha256)
            if was_sent:
                self.sent.add(pack.sha256)
                self.bytes_sent += pack.size
        if self._stored is not None:
            self._stored(pack.sha256)

    def has_met(self, packs: Set[str]) -> bool:
        """Whether this computer knows all of them, by their sums."""
        return packs <= self._sums.keys()

    def sums(self, packs: Collection[str]) -> Sums:
        """What is known of these."""
        return {pack: self._sums[pack] for pack in packs if pack in self._sums}

    def find_lost(self, manifest: DatasetManifest, found: Found, *, but: Set[str] = frozenset()) -> set[str]:
        """Packs of a version that are missing or damaged; they count as lost from now on, and the user is told.

        found           what is known of some already
        but             not asked for
        """
        least = {pack: size for pack, size in manifest.least_bytes().items() if pack and pack not in but}
        sums = manifest.sums() | self._sums
        if self._read:
            sums |= versions.sums_by_reading(self._store, least.keys() - sums.keys())
        lost = versions.lost_packs(self._store, least, sums, found)
        self._sums |= {pack: sums[pack] for pack in least if pack in sums and pack not in lost}
        self.verified |= (least.keys() & sums.keys()) - lost
        for pack in sorted(lost - self._lost):
            self._progress.warn(f"Pack {pack[:12]} is missing or damaged in the store: sent again")
        self._lost |= lost
        return lost
