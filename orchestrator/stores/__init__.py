"""Stores move bytes. Named by URL, imported on use, so that a folder needs no Google library."""

from __future__ import annotations

from pathlib import Path

from orchestrator.errors import ConflictError
from orchestrator.stores.base import Store
from orchestrator.stores.faults import said
from remote.contract.attempts import Attempts
from remote.contract.run_spec import StoreRef
from remote.contract.store import Retrying
from remote.storage import open_storage


def open_store(ref: StoreRef, *, attempts: Attempts | None = None, memory: Path | None = None) -> Store:
    """The store that a reference names, wrapped so that what may succeed a moment later is tried again.

    memory          a folder by which uploads that were killed go on
    Asks nothing of the store yet. ConfigError when the URL is none of ours, AuthError without credentials.
    """
    store, tries = open_storage(ref, said), attempts or Attempts()
    if memory is None or not ref.url.startswith("gs://"):  # into a folder there is nothing to go on with
        return Retrying(store, tries, changed=ConflictError, checksum_of=checksum_of)
    from orchestrator.stores.sessions import Sessions  # which loads Google's library

    begin = Sessions(memory, ref).begun
    return Retrying(store, tries, changed=ConflictError, checksum_of=checksum_of, begin=begin)


def checksum_of(path: Path) -> tuple[int, str]:
    """Size in bytes and crc32c (base64) of a file. NotFoundError, AuthError, CloudError, each naming it."""
    from remote.storage import disk

    return disk.checksum_of(path, said)
