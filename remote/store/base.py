"""The contract of a store, as the machine knows it. `orchestrator.stores.base` says more of each verb; they are the same."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from remote.contract.folder import Entry as Blob

__all__ = ["Blob", "Store", "StoreChanged", "StoreError", "StoreMissing", "StoreUnready"]


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


class Store(Protocol):
    url: str

    def get(self, key: str) -> Blob | None:
        """What is known of a blob, None when there is none."""

    def blobs(self, prefix: str, *, delimiter: str | None = None) -> Iterator[Blob]:
        """Every blob whose key starts with `prefix`, in key order; with `delimiter`, those with none behind it."""

    def upload(self, path: Path, key: str, *, if_generation: int | None = None) -> Blob:
        """Whole, checksum verified, or not at all. StoreChanged; `if_generation` 0 is "only if there is none"."""

    def download(self, key: str, path: Path, *, start: int = 0) -> None:
        """Whole, checksum verified (not from a `start`), or not at all. StoreMissing."""

    def delete(self, key: str, *, if_generation: int | None = None) -> None:
        """Missing is success. StoreChanged."""
