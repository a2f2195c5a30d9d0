"""`tlvm datasets gc`: packs that no version of any dataset names are deleted, and no upload loses one.

Each look at the store lists packs first and manifests after, so that a pack whose manifest is published in between is
seen as named. What is unnamed is condemned (see `condemned`); what was condemned long enough ago is marked as being
deleted, looked up once more in all manifests, and deleted if it still is of the generation that was condemned. Then
packs that waste room are packed anew (`repack`), which condemns the version before: it is deleted in the same way, when
it is not the newest and no run names it. After any error nothing more is deleted.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from orchestrator.datasets.packs import condemned
from orchestrator.datasets.packs.condemned import Condemned, Entry, pack_of
from orchestrator.datasets.packs.member import cost
from orchestrator.datasets.packs.repack import PackUse, Repacked, choose, repack
from orchestrator.datasets.publishing import versions
from orchestrator.errors import ConflictError, DataError, NotFoundError
from orchestrator.stores.base import Blob, Store
from remote.contract import layout
from remote.contract.dataset_manifest import DatasetManifest

GRACE_HOURS = 24.0
_THREADS = 8

# Dataset and version of every run; None: nobody knows.
NamedByRuns = Callable[[], set[tuple[str, str]] | None]


@dataclass(frozen=True)
class Collected:
    packs: int  # in the store, before
    pack_bytes: int
    deleted: list[PackUse]
    condemned: list[PackUse]  # named by no version; deleted by a later gc
    wasteful: list[PackUse]  # more than half dead, but other versions or runs need them as they are
    repacked: list[Repacked]
    replaced: list[
        str
    ]  # NAME@VERSION, deleted: another one was published with the same images, or instead of it
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
            pack_of(blob.key): blob for blob in self._store.blobs(layout.PACKS) if blob.key.endswith(".tar")
        }
        every = (blob.key for blob in self._store.blobs(layout.DATASETS))
        keys = list(filter(layout.is_manifest_key, every))
        new = [key for key in keys if key not in self._manifests]
        with ThreadPoolExecutor(_THREADS, thread_name_prefix="manifests") as pool:
            found = zip(new, pool.map(self._load, new), strict=True)
            self._manifests |= {key: manifest for key, manifest in found if manifest is not None}
        self._manifests = {key: manifest for key, manifest in self._manifests.items() if key in keys}

    @property
    def manifests(self) -> Mapping[str, DatasetManifest]:
        """By key."""
        return self._manifests

    def naming(self) -> Mapping[str, set[str]]:
        """The keys of the manifests that name a pack."""
        naming: dict[str, set[str]] = defaultdict(set)
        for key, manifest in self._manifests.items():
            for pack in manifest.packs():
                naming[pack].add(key)
        return naming

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
        try:
            return versions.load_manifest(self._store, *layout.manifest_of(key))
        except NotFoundError:  # removed meanwhile
            return None
        except DataError as error:
            name, version = layout.manifest_of(key)
            newest = versions.read_head(self._store, name, may_be_damaged=True).version == version
            repair = (
                "Repair it from its folder (tlvm upload DIR --replace), or remove" if newest else "Remove"
            )
            raise DataError(
                f"{error.what}: nobody knows which packs it names, so none is deleted",
                detail=error.detail,
                next=f"{repair} it: tlvm datasets rm {name}@{version[:12]}",
            ) from None


def collect(
    store: Store,
    *,
    now: float,
    grace_hours: float = GRACE_HOURS,
    dry_run: bool = False,
    named_by_runs: NamedByRuns = lambda: None,
) -> Collected:
    """Delete what was condemned `grace_hours` ago or longer; condemn what else no version names; pack anew what pays.

    now             seconds of Unix time
    named_by_runs   asked when it matters; where nobody knows, every version counts as named
    """
    before = now - grace_hours * 3600
    look = Look(store)
    look.again()
    replaced: list[str] = []
    if not dry_run:
        replaced = _delete_replaced(store, before, named_by_runs)
        if replaced:
            look.again()
    uses = look.uses()
    unnamed = {pack: look.packs[pack] for pack, use in uses.items() if not use.live_bytes}
    if dry_run:
        list_, _ = condemned.load(store)
        due = _due(_condemning(list_, unnamed, now).packs, before)
    else:
        due = _due(_mark(store, unnamed, now, before).packs, before)
        due = _delete(store, look, due)
    gone = [uses[pack] for pack in sorted(due)]
    repacked = _repack(store, look, now, named_by_runs, dry_run=dry_run)
    given_up = {use.pack for one in repacked for use in one.packs}
    return Collected(
        packs=len(uses),
        pack_bytes=sum(use.size for use in uses.values()),
        deleted=gone,
        condemned=[uses[pack] for pack in sorted(unnamed) if pack not in due],
        wasteful=[use for pack, use in sorted(uses.items()) if use.wasteful and pack not in given_up],
        repacked=repacked,
        replaced=replaced,
        dry_run=dry_run,
    )


def _repack(
    store: Store, look: Look, now: float, named_by_runs: NamedByRuns, *, dry_run: bool
) -> list[Repacked]:
    """Every dataset whose newest version has packs that are worth it."""
    uses, naming = look.uses(), look.naming()
    by_runs: set[tuple[str, str]] | None = set()
    if any(use.wasteful for use in uses.values()):
        by_runs = named_by_runs()
    done = []
    for name in sorted({manifest.dataset for manifest in look.manifests.values()}):
        head = versions.read_head(store, name, may_be_damaged=True)
        key = layout.manifest_key(name, head.version) if head.version else ""
        manifest = look.manifests.get(key)
        if manifest is None:  # there is none, or it was published just now
            continue
        free = by_runs is not None and (name, head.version) not in by_runs
        packs = choose(
            manifest, uses, alone={pack for pack, keys in naming.items() if free and keys == {key}}
        )
        if not packs:
            continue
        version = ""
        if not dry_run:
            names = [use.pack for use in packs]
            after = repack(store, head, manifest, names, now=now)
            if after is None:
                continue
            version = after.version
        done.append(Repacked(name, head.version, version, packs))
    return done


def _delete_replaced(store: Store, before: float, named_by_runs: NamedByRuns) -> list[str]:
    """Delete the versions that were replaced, or overtaken, long enough ago, and that no run names."""
    list_, _ = condemned.load(store)
    due = _due(list_.manifests, before)
    if not due:
        return []
    by_runs = named_by_runs()
    free = {
        key: entry
        for key, entry in due.items()
        if by_runs is not None and layout.manifest_of(key) not in by_runs
    }

    def mark(list_: Condemned) -> Condemned:
        manifests = {
            key: dataclasses.replace(entry, deleting=True) if free.get(key) == entry else entry
            for key, entry in list_.manifests.items()
        }
        return dataclasses.replace(list_, manifests=manifests)

    marked = {key: entry for key, entry in condemned.change(store, mark).manifests.items() if entry.deleting}
    gone = []
    for key, entry in marked.items():
        name, version = layout.manifest_of(key)
        head = versions.read_head(store, name, may_be_damaged=True)
        if head.version == version or head.is_damaged:
            continue  # it is the newest one (again), or may be: struck off
        try:
            store.delete(key, if_generation=int(entry.generation))
        except ConflictError:
            continue  # sent again meanwhile
        gone.append(f"{name}@{version}")
    condemned.change(store, lambda list_: dataclasses.replace(list_, manifests=_but(list_.manifests, marked)))
    return gone


def _mark(store: Store, unnamed: Mapping[str, Blob], now: float, before: float) -> Condemned:
    """Condemn, and mark as being deleted what is due, in one step that holds or not."""

    def how(list_: Condemned) -> Condemned:
        fresh = _condemning(list_, unnamed, now)
        due = _due(fresh.packs, before)
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


def _due(entries: Mapping[str, Entry], before: float) -> dict[str, Entry]:
    return {name: entry for name, entry in entries.items() if entry.since <= before or entry.deleting}


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
    condemned.change(store, lambda list_: dataclasses.replace(list_, packs=_but(list_.packs, due)))
    return gone


def _but(entries: Mapping[str, Entry], done: Mapping[str, Entry]) -> dict[str, Entry]:
    return {name: entry for name, entry in entries.items() if done.get(name) != entry}
