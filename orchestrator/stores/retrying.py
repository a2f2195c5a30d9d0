"""A store that tries again what may succeed a moment later: the one place where this is done."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from orchestrator.errors import ConflictError
from orchestrator.stores.base import Blob, Store
from orchestrator.stores.disk import checksum_of
from remote.contract.attempts import Attempts, retryable


class Retrying:
    """Any store, wrapped; the same contract. An error that is not `retryable` passes at once."""

    def __init__(self, store: Store, *, attempts: Attempts) -> None:
        self.url = store.url
        self._store = store
        self._attempts = attempts

    def get(self, key: str) -> Blob | None:
        return self._attempts.call(lambda: self._store.get(key))

    def blobs(self, prefix: str, *, delimiter: str | None = None) -> Iterator[Blob]:
        """Goes on behind the last blob that was seen; each blob that comes through makes the count start anew."""
        last = ""
        waits = self._attempts.waits()
        while True:
            try:
                for blob in self._store.blobs(prefix, delimiter=delimiter):
                    if blob.key > last:
                        last, waits = blob.key, self._attempts.waits()
                        yield blob
            except Exception as error:
                wait_s = next(waits, None)
                if wait_s is None or not retryable(error):
                    raise
                self._attempts.sleep(wait_s)
            else:
                return

    def upload(self, path: Path, key: str, *, if_generation: int | None = None) -> Blob:
        """A try that failed may have been accepted all the same: then the next one meets our own blob, a success.

        "Our own" means the same size and checksum: what two writers must not both win has to differ in content.
        """
        failed = False

        def attempt() -> Blob:
            nonlocal failed
            try:
                return self._store.upload(path, key, if_generation=if_generation)
            except ConflictError:
                ours = self._same(path, key) if failed else None
                if ours is None or ours.generation == if_generation:
                    raise
                return ours
            except Exception:
                failed = True
                raise

        return self._attempts.call(attempt)

    def download(self, key: str, path: Path, *, start: int = 0) -> None:
        self._attempts.call(lambda: self._store.download(key, path, start=start))

    def delete(self, key: str, *, if_generation: int | None = None) -> None:
        self._attempts.call(lambda: self._store.delete(key, if_generation=if_generation))

    def _same(self, path: Path, key: str) -> Blob | None:
        """The blob, if it holds what the file holds."""
        blob = self._store.get(key)
        return blob if blob is not None and (blob.size, blob.crc32c) == checksum_of(path) else None
