"""Packs that no version names, on their way out: a list in the store, on which each stands for a while first.

    packs/CONDEMNED.json    by pack: the generation that was seen, since when, and whether it is being deleted now

A blob does not tell its age, so a pack is deleted only when an earlier look, a grace period ago, found the same
generation unnamed already. An upload that reuses a pack strikes it off this list first (`renew`); one that is being
deleted it sends again, which gives it another generation: the deletion then fails, or was before. Every change of the
list holds only if nobody changed it meanwhile. An upload that takes longer than the grace period looks after publishing
whether all its packs are there.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.errors import ConflictError, DataError, NotFoundError
from orchestrator.stores.base import Blob, Store
from remote.contract import document, layout

from .scratch import scratch

KEY = f"{layout.PACKS}CONDEMNED.json"
_TRIES = 20


@dataclass(frozen=True)
class Entry:
    generation: str  # of the pack; a number that JSON might round
    since: float  # seconds of Unix time
    deleting: bool = False


@dataclass(frozen=True)
class Condemned:
    packs: dict[str, Entry] = field(default_factory=dict)
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


def renew(store: Store, pack: str, path: Path, there: Blob) -> tuple[Blob, bool]:
    """Make sure that a pack which is in the store, and which this upload will name, stays: the blob, and whether it was sent.

    path            the same pack on this computer
    there           as the store has it
    """
    struck = change(store, lambda condemned: _without(condemned, pack))
    if pack not in struck.packs:
        return there, False
    key = layout.pack_key(pack)
    try:
        return store.upload(path, key, if_generation=there.generation), True
    except ConflictError:  # it is gone by now, or somebody else sent it again
        again = store.get(key)
        return (again, False) if again is not None else (store.upload(path, key, if_generation=0), True)


def _without(condemned: Condemned, pack: str) -> Condemned:
    entry = condemned.packs.get(pack)
    if entry is None or entry.deleting:
        return condemned
    return dataclasses.replace(condemned, packs={k: v for k, v in condemned.packs.items() if k != pack})
