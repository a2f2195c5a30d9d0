"""Stores move bytes. Named by URL, imported on use, so that a folder needs no Google library."""

from __future__ import annotations

from pathlib import Path

from orchestrator.errors import ConfigError, ConflictError
from orchestrator.stores.base import Store
from remote.contract.attempts import Attempts
from remote.contract.run_spec import StoreRef
from remote.contract.store import Resumable, Retrying

_BUCKET = "gs://"


def open_store(ref: StoreRef, *, attempts: Attempts | None = None, memory: Path | None = None) -> Store:
    """The store that a reference names, wrapped so that what may succeed a moment later is tried again.

    memory          a folder by which uploads that were killed go on
    Asks nothing of the store yet. ConfigError when the URL is none of ours, AuthError without credentials.
    """
    from orchestrator.stores.disk import checksum_of
    from orchestrator.stores.sessions import Sessions

    store, tries = _open(ref), attempts or Attempts()
    if memory is None or not ref.url.startswith(_BUCKET):  # into a folder there is nothing to go on with
        return Retrying(store, tries, changed=ConflictError, checksum_of=checksum_of)
    begin = Sessions(memory, ref).begun
    return Retrying(store, tries, changed=ConflictError, checksum_of=checksum_of, begin=begin)


def _open(ref: StoreRef) -> Resumable:
    if ref.url.startswith(_BUCKET):
        from orchestrator.stores.gcs import GcsStore

        return GcsStore(ref.url, endpoint=ref.endpoint, credentials_file=ref.credentials_file)
    if Path(ref.url).is_absolute():
        from orchestrator.stores.directory import DirectoryStore

        return DirectoryStore(Path(ref.url))
    raise ConfigError(
        f"The store {ref.url!r} is neither a bucket nor an absolute folder",
        next='Set store to "gs://BUCKET", "gs://BUCKET/FOLDER" or the full path of a folder.',
    )
