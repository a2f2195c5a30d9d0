"""A folder as the store: mounted from the laptop's disk, or on it. How blobs are kept is `contract.folder`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import google_crc32c

from remote.contract.document import ContractError
from remote.contract.folder import Changed, Damaged, Folder, Missing

from .base import Begun, Blob, StoreChanged, StoreError, StoreMissing, StoreUnready


class DirectoryStore:
    def __init__(self, path: Path) -> None:
        self.url = str(path)
        self._folder = Folder(path, google_crc32c.Checksum)

    def get(self, key: str) -> Blob | None:
        with self._translated(key):
            return self._folder.get(key)

    def blobs(self, prefix: str, *, delimiter: str | None = None, match: str | None = None) -> Iterator[Blob]:
        with self._translated(prefix):
            yield from self._folder.entries(prefix, delimiter, match)

    def folders(self, prefix: str) -> Iterator[str]:
        with self._translated(prefix):
            yield from self._folder.folders(prefix)

    def upload(
        self, path: Path, key: str, *, if_generation: int | None = None, begun: Begun | None = None
    ) -> Blob:
        with self._translated(key), path.open("rb") as source:
            return self._folder.put(source, key, if_generation)

    def download(self, key: str, path: Path, *, start: int = 0, begun: Begun | None = None) -> None:
        with self._translated(key):
            self._folder.fetch(key, path, start)

    def delete(self, key: str, *, if_generation: int | None = None) -> None:
        with self._translated(key):
            self._folder.remove(key, if_generation)

    @contextmanager
    def _translated(self, key: str) -> Iterator[None]:
        try:
            yield
        except ContractError as error:
            raise StoreError(f"the store {self.url} takes no such key: {error}") from None
        except Missing:
            raise StoreMissing(f"there is no {key} in {self.url}") from None
        except Changed:
            raise StoreChanged(f"{key} in {self.url} was written by somebody else meanwhile") from None
        except Damaged as error:
            raise StoreUnready(f"copying {key} went wrong: {error}") from error
        except OSError as error:
            raise StoreError(f"{key}, store {self.url}: {error}") from error
