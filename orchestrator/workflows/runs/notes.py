"""What people say of runs: tags and a note, in the store beside the runs, where no machine may write.

A run that is tagged `keep` is left by `runs rm --older-than` and `--failed`.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from orchestrator.stores.base import Store
from orchestrator.stores.documents import read_document, write_document
from remote.contract import document, layout
from remote.contract.document import ContractError

KEEP = "keep"
_BYTES_MAX = 64 * 1024
_READERS = 16


@dataclass(frozen=True)
class RunNotes:
    tags: list[str] = field(default_factory=list)  # in alphabetical order
    note: str = ""
    removed: bool = False  # the run was, while its machine still knew it: nothing of it is owed any more
    # The number of its last attempt, when somebody ended that.
    ended: int = field(default=0, metadata=document.LATER)
    schema: int = 1


def notes_of_all(store: Store) -> dict[str, RunNotes]:
    """By run id. Notes that can't be read say so in their note."""
    keys = [blob.key for blob in store.blobs(layout.NOTES)]
    ids = [key.removeprefix(layout.NOTES).removesuffix(".json") for key in keys]

    def one(run_id: str) -> RunNotes:
        try:
            return read_notes(store, run_id)[0]
        except ContractError as error:
            return RunNotes(note=str(error))

    with ThreadPoolExecutor(_READERS) as pool:
        return dict(zip(ids, pool.map(one, ids), strict=True))


def read_notes(store: Store, run_id: str) -> tuple[RunNotes, int]:
    """What there is, and its generation: 0 when there is nothing."""
    key = layout.notes_key(run_id)
    found = read_document(store, key, bytes_max=_BYTES_MAX)
    if found is None:
        return RunNotes(), 0
    text, blob = found
    return document.decode(RunNotes, text, what=key), blob.generation


def write_notes(store: Store, run_id: str, notes: RunNotes, generation: int) -> None:
    write_document(store, layout.notes_key(run_id), document.encode(notes), if_generation=generation)


def was_removed(store: Store, run_id: str) -> bool:
    """Somebody removed the run: that its result is not in the store is no loss."""
    try:
        return read_notes(store, run_id)[0].removed
    except ContractError:
        return False
