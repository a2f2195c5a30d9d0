"""The contract of a store: the bucket, or the folder that stands in for it.

Keys are "/"-separated, relative, UTF-8, without empty, "." or ".." parts. A blob is visible whole or not at all.
Every error is one of `orchestrator.errors`; the ones worth another try say `retryable`. A store never retries by
itself: `orchestrator.stores.retrying` wraps one and asks that flag.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True)
class Blob:
    key: str
    size: int  # bytes
    crc32c: str  # base64 of the big-endian checksum, as Google Cloud Storage writes it
    generation: int  # changes whenever the content is replaced; never 0


class Store(Protocol):
    url: str  # "gs://bucket" or the absolute path of a folder

    def get(self, key: str) -> Blob | None:
        """What is known of a blob, None when there is none."""

    def blobs(self, prefix: str, *, delimiter: str | None = None) -> Iterator[Blob]:
        """Every blob whose key starts with `prefix`, in key order, every page.

        With `delimiter`, only blobs that have none after the prefix.
        """

    def upload(self, path: Path, key: str, *, if_generation: int | None = None) -> Blob:
        """Copy a file into the store: all of it, checksum verified, or nothing.

        if_generation   0: only if there is no such blob; N: only if it still is generation N.
        ConflictError   when that does not hold.
        """

    def download(self, key: str, path: Path, *, start: int = 0) -> None:
        """Copy a blob into a file: `path` appears (or is replaced) whole and with its checksum verified, or not at all.

        start           fetch only the bytes from there on (their checksum is not known, so it is not verified);
                        past the end gives an empty file.
        NotFoundError   when there is no such blob.
        """

    def delete(self, key: str, *, if_generation: int | None = None) -> None:
        """Remove a blob; missing is success. ConflictError when `if_generation` is not its generation."""
