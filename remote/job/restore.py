"""A run goes on where it was never before: what the store has of it becomes the run's folder.

The streams come whole, so that their bytes are counted on and nobody reads a line twice; the status tells what was used
of the run's hours; and the newest checkpoint that is what its hash says. One that is damaged is refused by name and
the one before it taken. Nothing counts before all of it is here: cut off, it begins again.
"""

from __future__ import annotations

import shutil
from pathlib import Path, PurePosixPath

from remote.contract import document, layout
from remote.contract.document import ContractError
from remote.contract.layout import RunFolder
from remote.contract.run_status import RunStatus
from remote.contract.stored_checkpoints import StoredCheckpoint
from remote.contract.wording import count
from remote.job.checkpoint_copies import read_latest
from remote.job.claim import read_stored_status
from remote.job.streams import describe
from remote.store import Store, StoreMissing

_PIECE = ".restored"


def restore(store: Store, run_id: str, folder: RunFolder) -> list[str] | None:
    """What there is to say of it; None when the store has nothing of this run. The status comes last.

    StoreError      when the store does not give it
    ContractError   when its status is damaged
    """
    piece = folder.root / _PIECE
    try:
        status, _ = read_stored_status(store, layout.run_key(run_id, "status.json"), piece)
    except StoreMissing:
        return None
    said = _restore_stream(store, run_id, "events", folder.events, piece)
    said += _restore_stream(store, run_id, "log", folder.log, piece)
    said += _restore_checkpoint(store, run_id, folder, piece)
    document.write(folder.status, status)
    return [_where_from(status), *said]


def _restore_stream(store: Store, run_id: str, stream: str, path: Path, piece: Path) -> list[str]:
    """Segment after segment into a file beside, which then becomes the stream."""
    said = []
    beside = path.with_name(f".{path.name}")
    beside.write_bytes(b"")
    with beside.open("ab") as whole:
        for blob in store.blobs(layout.run_key(run_id, stream) + "/"):
            if blob.key != layout.segment_key(run_id, stream, whole.tell()):
                said.append(
                    f"Of its {stream} the store has {whole.tell()} bytes only, and a gap before {blob.key}"
                )
                break
            store.download(blob.key, piece)
            with piece.open("rb") as part:
                shutil.copyfileobj(part, whole)
    piece.unlink(missing_ok=True)
    beside.replace(path)
    return said


def _restore_checkpoint(store: Store, run_id: str, folder: RunFolder, piece: Path) -> list[str]:
    """The newest that is whole."""
    try:
        latest = read_latest(store, run_id, piece)
    except ContractError as error:
        return [f"{error}. It begins anew"]
    said: list[str] = []
    for stored in latest.files if latest else []:
        why = _fetch(store, run_id, stored, folder.checkpoints / PurePosixPath(stored.name).name, piece)
        if not why:
            return [*said, f"{stored.name} of the store is where it goes on from"]
        said.append(f"{stored.name} of the store is refused: {why}")
    return [*said, "The store has no checkpoint of it: it begins anew"]


def _fetch(store: Store, run_id: str, stored: StoredCheckpoint, path: Path, piece: Path) -> str:
    """Why it can't be used; "" when it is there now."""
    try:
        store.download(layout.checkpoint_key(run_id, stored.name), piece)
    except StoreMissing as error:
        return str(error)
    try:
        found = describe(piece, stored.name)
        if (found.size, found.sha256) != (stored.size, stored.sha256):
            return "its content does not have the hash that LATEST.json names"
        path.parent.mkdir(parents=True, exist_ok=True)
        piece.replace(path)
        return ""
    finally:
        piece.unlink(missing_ok=True)


def _where_from(status: RunStatus) -> str:
    used_s = sum(times.used_s for times in status.attempts)
    return f"Taken up from the store after attempt {status.attempt} ({count(round(used_s / 60), 'minute')} used so far)"
