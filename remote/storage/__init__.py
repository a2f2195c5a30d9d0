"""The two kinds of store, once for both halves: a bucket of Google Cloud Storage, and a folder that stands in for it.

What differs is given: `say` turns a `Fault` into an error of the half that asks. Neither half is known here.
"""

from __future__ import annotations

from pathlib import Path

from remote.contract.run_spec import StoreRef
from remote.contract.store import Resumable

from .faults import Fault, Kind, Say

__all__ = ["Fault", "Kind", "Say", "open_storage"]


def open_storage(ref: StoreRef, say: Say) -> Resumable:
    """The store that a reference names; it tries nothing twice. Imported on use: a folder needs no library of Google.

    Asks nothing of the store yet. NO_ADDRESS when the URL is none of ours; NO_LOGIN, CREDENTIALS_FILE, UNREADY.
    """
    if ref.url.startswith("gs://"):
        from .gcs import GcsStore

        return GcsStore(ref, say)
    if Path(ref.url).is_absolute():
        from .directory import DirectoryStore

        return DirectoryStore(Path(ref.url), say)
    raise say(Fault(Kind.NO_ADDRESS, f"The store {ref.url!r} is neither a bucket nor an absolute folder"))
