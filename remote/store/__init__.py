"""The machine's half of the store: packs and weights come in, results go out. The same verbs as on the laptop."""

from __future__ import annotations

from pathlib import Path

from remote.contract.attempts import Attempts
from remote.contract.run_spec import StoreRef
from remote.contract.store import Resumable, Retrying

from .base import Blob, Store, StoreChanged, StoreError, StoreMissing, StoreUnready

__all__ = ["Blob", "Store", "StoreChanged", "StoreError", "StoreMissing", "StoreUnready", "open_store"]


def open_store(ref: StoreRef, *, attempts: Attempts | None = None) -> Store:
    """The store that a run spec names, wrapped so that what may succeed a moment later is tried again.

    Asks nothing of the store yet. StoreError when the URL is none of ours, or a library for it is missing here.
    """
    try:
        from .disk import checksum_of

        return Retrying(_open(ref), attempts or Attempts(), changed=StoreChanged, checksum_of=checksum_of)
    except ImportError as error:
        raise StoreError(
            f"the store {ref.url} needs the Python package {error.name}, which this machine lacks"
        ) from error


def _open(ref: StoreRef) -> Resumable:
    if ref.url.startswith("gs://"):
        from .gcs import GcsStore

        return GcsStore(ref)
    if Path(ref.url).is_absolute():
        from .directory import DirectoryStore

        return DirectoryStore(Path(ref.url))
    raise StoreError(f"the store {ref.url!r} is neither a bucket (gs://...) nor an absolute folder")
