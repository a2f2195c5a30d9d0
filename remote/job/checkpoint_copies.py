"""The newest checkpoints of a run, copied to the store: what another machine needs to go on.

The newest wins: one that was superseded before its turn came is never sent. Training writes a checkpoint beside and
renames it, and drops old ones; a hard link keeps the one that is on its way, without a copy. LATEST.json comes last:
only what it names is there to go on from. What the run said up to its checkpoint is in the store before that, so that
a run which goes on elsewhere has every line of what it does not do again.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from remote.contract import document, layout
from remote.contract.document import ContractError
from remote.contract.layout import RunFolder
from remote.contract.stored_checkpoints import LatestCheckpoints, StoredCheckpoint
from remote.job.claim import Claim
from remote.job.streams import describe, send
from remote.store import Store, StoreMissing

KEPT = 2


class CheckpointCopies:
    """Those of one attempt; used by one thread at a time but for the last copy, which waits for nobody."""

    def __init__(
        self,
        open_store: Callable[[], Store],
        claim: Claim,
        run_id: str,
        folder: RunFolder,
        *,
        attempt: int,
        position: Callable[[], tuple[int, int]],
        publish_streams: Callable[[], object],
    ) -> None:
        """
        position            the step that the training is at, and the epochs that are over
        publish_streams     puts events and log into the store as they are now; raises what `copy_newest` may
        """
        self.sent_bytes = 0  # of the last copy
        self.sent_s = 0.0  # that it took
        self._open_store = open_store
        self._claim = claim
        self._run_id = run_id
        self._folder = folder
        self._attempt = attempt
        self._position = position
        self._publish_streams = publish_streams
        self._files: list[StoredCheckpoint] | None = (
            None  # in the store, the newest first; None: not looked yet
        )
        self._sent: tuple[str, int, int] | None = None  # which file was sent last
        self._listing = threading.Lock()

    def copy_newest(self) -> bool:
        """False when there is none, or it is there already. Superseded, StoreError, OSError"""
        path = newest_checkpoint(self._folder)
        if path is None:
            return False
        link = self._folder.root / f".sending-{threading.get_ident()}"
        link.unlink(missing_ok=True)
        try:
            os.link(path, link)
        except FileNotFoundError:  # a newer one has just come: it is next
            return False
        try:
            about = link.stat()
            seen = (path.name, about.st_size, about.st_mtime_ns)
            if seen == self._sent:
                return False
            self._copy(link, path.name)
            self._sent = seen
        finally:
            link.unlink(missing_ok=True)
        return True

    def remove_all(self) -> None:
        """The run is over: nobody goes on from them. StoreError"""
        store = self._open_store()
        store.delete(layout.latest_checkpoints_key(self._run_id))
        for blob in list(store.blobs(layout.checkpoints_prefix(self._run_id))):
            store.delete(blob.key)

    def _copy(self, path: Path, name: str) -> None:
        step, epoch = self._position()
        began = time.monotonic()
        described = describe(path, name)
        if any(file.sha256 == described.sha256 for file in self._known()):
            return
        stored = StoredCheckpoint(
            f"attempt-{self._attempt}/{name}",
            described.size,
            described.sha256,
            described.crc32c,
            self._attempt,
            step,
            epoch,
        )
        self._publish_streams()  # before the long upload: if it fails, nothing has to be sent twice
        send(self._open_store(), path, layout.checkpoint_key(self._run_id, stored.name), described)
        self._list(stored)
        self.sent_bytes, self.sent_s = described.size, time.monotonic() - began

    def _list(self, stored: StoredCheckpoint) -> None:
        """A copy that took longer than that of a newer one does not become the newest."""
        with self._listing:
            self._claim.check()
            files = [stored, *(file for file in self._known() if file.name != stored.name)]
            files.sort(key=lambda file: (file.attempt, PurePosixPath(file.name).name), reverse=True)
            dropped = files[KEPT:]
            piece = self._folder.root / ".latest.json"
            document.write(piece, LatestCheckpoints(self._run_id, self._attempt, files[:KEPT]))
            store = self._open_store()
            store.upload(piece, layout.latest_checkpoints_key(self._run_id))
            self._files = files[:KEPT]
            for file in dropped:
                store.delete(layout.checkpoint_key(self._run_id, file.name))

    def _known(self) -> list[StoredCheckpoint]:
        if self._files is None:
            try:
                found = read_latest(self._open_store(), self._run_id, self._folder.root / ".latest")
            except ContractError:  # restoring said so; the next list replaces it
                found = None
            self._files = found.files if found else []
        return self._files


def newest_checkpoint(folder: RunFolder) -> Path | None:
    """As training names them: the highest number is the newest."""
    return max(folder.checkpoints.glob("checkpoint-*.pt"), key=lambda path: path.name, default=None)


def read_latest(store: Store, run_id: str, piece: Path) -> LatestCheckpoints | None:
    """None when the store has none. StoreError; ContractError when it is damaged."""
    key = layout.latest_checkpoints_key(run_id)
    try:
        store.download(key, piece)
        return document.decode(LatestCheckpoints, piece.read_bytes(), what=key)
    except StoreMissing:
        return None
    finally:
        piece.unlink(missing_ok=True)
