"""Packs that no version names, and versions that `repack` has replaced or that were overtaken before they were the
newest, on their way out: a list in the store.

    packs/CONDEMNED.json    by pack, or by the key of a manifest: the generation that was seen, since when, and whether
                            it is being deleted now

A blob does not tell its age, so one is deleted only when an earlier look, a grace period ago, found the same generation
of no use already. An upload that reuses a blob strikes it off this list first (`renew`); one that is being deleted it
sends again, which gives it another generation: the deletion then fails, or was before. Every change of the list holds
only if nobody changed it meanwhile. An upload that takes longer than the grace period looks after publishing whether
all its packs are there.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.datasets.packs.scratch import scratch
from orchestrator.errors import ConflictError, DataError, NotFoundError
from orchestrator.stores.base import Blob, Store
from remote.contract import document, layout

KEY = f"{layout.PACKS}CONDEMNED.json"
_TRIES = 20


@dataclass(frozen=True)
class Entry:
    generation: str  # of the blob; a number that JSON might round
    since: float  # seconds of Unix time
    deleting: bool = False


@dataclass(frozen=True)
class Condemned:
    packs: dict[str, Entry] = field(default_factory=dict)
    manifests: dict[str, Entry] = field(default_factory=dict)
    schema: int = 1


def load(store: Store) -> tuple[Condemned, int]:
    """The list and its generation; an empty one where there is none. DataError when it can't be read."""
    blob = store.get(KEY)
    if blob is None:
        return Condemned(), 0
    with scratch() as folder:
        path = folder / "condemned"
        try:
            store.download(KEY, path)
        except NotFoundError:
            return Condemned(), 0
        try:
            return document.decode(Condemned, path.read_bytes(), what=KEY), blob.generation
        except document.ContractError as error:
            raise DataError(
                f"{KEY} in {store.url} can't be read",
                detail=str(error),
                next="Delete it: what it lists is found again.",
            ) from None


def change(store: Store, how: Callable[[Condemned], Condemned]) -> Condemned:
    """Change the list, whatever others do to it meanwhile; as it is then. Nothing is written where nothing changes."""
    for _ in range(_TRIES):
        now, generation = load(store)
        wanted = how(now)
        if wanted == now:
            return now
        with scratch() as folder:
            path = folder / "condemned"
            document.write(path, wanted)
            try:
                store.upload(path, KEY, if_generation=generation)
            except ConflictError:
                continue
        return wanted
    raise ConflictError(
        f"{KEY} in {store.url} kept changing", next="Run it again when nobody else cleans up this store."
    )


def condemn_manifests(store: Store, keys: Sequence[str], now: float) -> None:
    """Those that are there; one that stands on the list with the same generation keeps its time."""
    found = {key: blob for key in keys if (blob := store.get(key)) is not None}

    def how(list_: Condemned) -> Condemned:
        manifests = dict(list_.manifests)
        for key, blob in found.items():
            if key not in manifests or manifests[key].generation != str(blob.generation):
                manifests[key] = Entry(str(blob.generation), now)
        return dataclasses.replace(list_, manifests=manifests)

    change(store, how)


def renew(store: Store, key: str, path: Path, there: Blob) -> tuple[Blob, bool]:
    """Make sure that a pack or manifest which is in the store, and which an upload will name, stays.

    The blob, and whether it was sent.

    path            the same on this computer
    there           as the store has it
    """
    struck = change(store, lambda condemned: _without(condemned, key))
    if _entry(struck, key) is None:
        return there, False
    try:
        return store.upload(path, key, if_generation=there.generation), True
    except ConflictError:  # it is gone by now, or somebody else sent it again
        again = store.get(key)
        return (again, False) if again is not None else (store.upload(path, key, if_generation=0), True)


def _entry(condemned: Condemned, key: str) -> Entry | None:
    return condemned.packs.get(pack_of(key)) or condemned.manifests.get(key)


def _without(condemned: Condemned, key: str) -> Condemned:
    entry = _entry(condemned, key)
    if entry is None or entry.deleting:
        return condemned
    return dataclasses.replace(
        condemned,
        packs={pack: kept for pack, kept in condemned.packs.items() if pack != pack_of(key)},
        manifests={other: kept for other, kept in condemned.manifests.items() if other != key},
    )


def pack_of(key: str) -> str:
    """The name of a pack."""
    return key.removeprefix(layout.PACKS).removesuffix(".tar")
