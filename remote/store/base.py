"""The contract of a store, as `remote.contract.store` says it, with the errors of the machine's half."""

from __future__ import annotations

from remote.contract.store import Begun, Blob, Store

__all__ = ["Begun", "Blob", "Store", "StoreChanged", "StoreError", "StoreMissing", "StoreUnready"]


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
