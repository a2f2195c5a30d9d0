"""`tlvm datasets gc`: packs that no version of any dataset names are deleted, and no upload loses one.

Each look at the store lists packs first and manifests after, so that a pack whose manifest is published in between is
seen as named. What is unnamed is condemned (see `condemned`); what was condemned long enough ago is marked as being
deleted, looked up once more in all manifests, and deleted if it still is of the generation that was condemned. After
any error nothing more is deleted.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from orchestrator.errors import ConflictError, NotFoundError
from orchestrator.stores.base import Blob, Store
from remote.contract import layout
from remote.contract.dataset_manifest import DatasetManifest

from . import condemned, versions
from .condemned import Condemned, Entry
from .pack import cost

GRACE_HOURS = 24.0
_THREADS = 8
_HALF = 0.5


@dataclass(frozen=True)
class PackUse:
    """A pack in the store, and how much of it any version names."""

    pack: str
    size: int  # bytes
    live_bytes: int

    @property
    def wasteful(self) -> bool:
        return 0 < self.live_bytes < _HALF * self.size


@dataclass(frozen=True)
class Collected:
    packs: int  # in the store, before
    pack_bytes: int
    deleted: list[PackUse]
    condemned: list[PackUse]  # named by no version; deleted by a later gc
    wasteful: list[PackUse]  # more than half of their bytes are named by no version
    dry_run: bool


class Look:
    """What the store holds. Manifests are read once, however often it is looked."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._manifests: dict[str, DatasetManifest] = {}
        self.packs: dict[str, Blob] = {}

    def again(self) -> None:
        """DataError when a manifest can't be read: nobody knows which packs it names."""
        self.packs = {
            blob.key.removeprefix(layout.PACKS).removesuffix(".tar"): blob
            for blob in self._store.blobs(layout.PACKS)
            if blob.key.endswith(".tar")
        }
        keys = [blob.key for blob in self._store.blobs(layout.DATASETS) if "/manifests/" in blob.key]
        new = [key for key in keys if key not in self._manifests and key.endswith(".jsonl.gz")]
        with ThreadPoolExecutor(_THREADS, thread_name_prefix="manifests") as pool:
            found = zip(new, pool.map(self._load, new), strict=True)
            self._manifests |= {key: manifest for key, manifest in found if manifest is not None}
        self._manifests = {key: manifest for key, manifest in self._manifests.items() if key in keys}

    @property
    def manifests(self) -> Mapping[str, DatasetManifest]:
        """By key."""
        return self._manifests

    def uses(self) -> dict[str, PackUse]:
        """By pack."""
        named: dict[str, dict[str, int]] = {}
        for manifest in self._manifests.values():
            for image in manifest.images:
                named.setdefault(image.pack, {})[image.sha256] = cost(image.size)
        return {
            pack: PackUse(pack, blob.size, sum(named.get(pack, {}).values()))
            for pack, blob in self.packs.items()
        }

    def _load(self, key: str) -> DatasetManifest | None:
        name, _, rest = key.removeprefix(layout.DATASETS).partition("/manifests/")
        try:
            return versions.load_manifest(self._store, name, rest.removesuffix(".jsonl.gz"))
        except NotFoundError:  # removed meanwhile
            return None


def collect(
    store: Store, *, now: float, grace_hours: float = GRACE_HOURS, dry_run: bool = False
) -> Collected:
    """Delete the packs that were condemned `grace_hours` ago or longer; condemn what else no version names.

    now             seconds of Unix time
    """
    look = Look(store)
    look.again()
    uses = look.uses()
    unnamed = {pack: look.packs[pack] for pack, use in uses.items() if not use.live_bytes}
    before = now - grace_hours * 3600
    if dry_run:
        list_, _ = condemned.load(store)
        due = _due(_condemning(list_, unnamed, now), before)
    else:
        due = _due(_mark(store, unnamed, now, before), before)
        due = _delete(store, look, due)
    gone = [uses[pack] for pack in sorted(due)]
    return Collected(
        packs=len(uses),
        pack_bytes=sum(use.size for use in uses.values()),
        deleted=gone,
        condemned=[uses[pack] for pack in sorted(unnamed) if pack not in due],
        wasteful=[use for _, use in sorted(uses.items()) if use.wasteful],
        dry_run=dry_run,
    )


def _mark(store: Store, unnamed: Mapping[str, Blob], now: float, before: float) -> Condemned:
    """Condemn, and mark as being deleted what is due, in one step that holds or not."""

    def how(list_: Condemned) -> Condemned:
        fresh = _condemning(list_, unnamed, now)
        due = _due(fresh, before)
        packs = {
            pack: dataclasses.replace(entry, deleting=entry.deleting or pack in due)
            for pack, entry in fresh.packs.items()
        }
        return dataclasses.replace(fresh, packs=packs)

    return condemned.change(store, how)


def _condemning(list_: Condemned, unnamed: Mapping[str, Blob], now: float) -> Condemned:
    """The list with exactly what is unnamed: since when, of those that stood there with the same generation."""
    packs = {}
    for pack, blob in sorted(unnamed.items()):
        entry = list_.packs.get(pack)
        same = entry is not None and entry.generation == str(blob.generation)
        packs[pack] = entry if entry is not None and same else Entry(str(blob.generation), now)
    return dataclasses.replace(list_, packs=packs)


def _due(list_: Condemned, before: float) -> dict[str, Entry]:
    return {pack: entry for pack, entry in list_.packs.items() if entry.since <= before or entry.deleting}


def _delete(store: Store, look: Look, due: Mapping[str, Entry]) -> dict[str, Entry]:
    """Those that were deleted. All are off the list afterwards: spared ones begin anew."""
    if not due:
        return {}
    look.again()
    uses = look.uses()
    gone = {}
    for pack, entry in due.items():
        if pack in uses and uses[pack].live_bytes:
            continue  # named meanwhile
        try:
            store.delete(layout.pack_key(pack), if_generation=int(entry.generation))
        except ConflictError:
            continue  # sent again meanwhile
        gone[pack] = entry
    condemned.change(store, lambda list_: _struck(list_, due))
    return gone


def _struck(list_: Condemned, done: Mapping[str, Entry]) -> Condemned:
    packs = {pack: entry for pack, entry in list_.packs.items() if done.get(pack) != entry}
    return dataclasses.replace(list_, packs=packs)
