"""The machine's half of the store: packs and weights come in, results go out. The same verbs as on the laptop."""

from __future__ import annotations

from functools import partial

from remote.contract.attempts import Attempts
from remote.contract.run_spec import StoreRef
from remote.contract.store import Blob, Retrying, Store
from remote.storage import Fault, Kind, open_storage

__all__ = [
    "Blob",
    "Store",
    "StoreChanged",
    "StoreError",
    "StoreMissing",
    "StoreUnready",
    "open_store",
    "said",
]


class StoreError(Exception):
    """The store refused; the message says what, and with which key."""

    retryable = False


class StoreMissing(StoreError):
    """There is no such blob, or no such bucket."""


class StoreChanged(StoreError):
    """The blob is not of the generation that was expected."""


class StoreUnready(StoreError):
    """The same request may succeed a moment later."""

    retryable = True


def open_store(ref: StoreRef, *, attempts: Attempts | None = None) -> Store:
    """The store that a run spec names, wrapped so that what may succeed a moment later is tried again.

    Asks nothing of the store yet. StoreError when the URL is none of ours, or a library for it is missing here.
    """
    try:
        from remote.storage.disk import checksum_of

        store = open_storage(ref, said)
    except ImportError as error:
        raise StoreError(
            f"the store {ref.url} needs the Python package {error.name}, which this machine lacks"
        ) from error
    summed = partial(checksum_of, say=said)
    return Retrying(store, attempts or Attempts(), changed=StoreChanged, checksum_of=summed)


_ERRORS: dict[Kind, type[StoreError]] = {
    Kind.CHANGED: StoreChanged,
    Kind.MISSING: StoreMissing,
    Kind.NO_BUCKET: StoreMissing,
    Kind.UNREADY: StoreUnready,
    Kind.CUT: StoreUnready,
}


def said(fault: Fault) -> StoreError:
    """What goes wrong with a store, as an error of this half: one line."""
    return _ERRORS.get(fault.kind, StoreError)(
        f"{fault.what}: {fault.detail}" if fault.detail else fault.what
    )
