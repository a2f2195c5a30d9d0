"""What people say of runs: tags and a note, in the store beside the runs, where no machine may write.

A run that is tagged `keep` is left by `runs rm --older-than` and `--failed`.
"""

from __future__ import annotations

import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.errors import NotFoundError
from orchestrator.stores.base import Store
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
    blob = store.get(key)
    if blob is None:
        return RunNotes(), 0
    if blob.size > _BYTES_MAX:
        raise ContractError(f"{key} has {blob.size} bytes, more than {_BYTES_MAX}")
    with tempfile.TemporaryDirectory(prefix="tlvm-") as folder:
        path = Path(folder) / "notes.json"
        try:
            store.download(key, path)
        except NotFoundError:
            return RunNotes(), 0
        return document.decode(RunNotes, path.read_bytes(), what=key), blob.generation


def write_notes(store: Store, run_id: str, notes: RunNotes, generation: int) -> None:
    with tempfile.TemporaryDirectory(prefix="tlvm-") as folder:
        path = Path(folder) / "notes.json"
        document.write(path, notes)
        store.upload(path, layout.notes_key(run_id), if_generation=generation)


def was_removed(store: Store, run_id: str) -> bool:
    """Somebody removed the run: that its result is not in the store is no loss."""
    try:
        return read_notes(store, run_id)[0].removed
    except ContractError:
        return False
