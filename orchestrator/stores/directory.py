"""A folder that stands in for the bucket: the store of the providers `local` and `docker`, and of every test.

How blobs are kept (atomic writes, generations, locking, shared folders) is `remote.contract.folder`, since the
machine writes into the same folder; here its errors become ours.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import google_crc32c

from orchestrator.errors import ConfigError, ConflictError, NotFoundError, TransientError
from orchestrator.stores.base import Begun, Blob
from orchestrator.stores.disk import opened, refused
from remote.contract.document import ContractError
from remote.contract.folder import Changed, Damaged, Folder, Missing


class DirectoryStore:
    """Blobs are the files below a folder, which is made when the first one is written. May be used by many threads.

    A blob is written in a hidden `.tmp/` beside it, flushed and renamed. Its generation is its modification time in
    nanoseconds, which every write moves forward. Preconditions hold between processes: check and rename happen
    under one `flock`. Links, and files whose names are no keys, do not exist here.
    """

    def __init__(self, path: Path) -> None:
        self.url = str(path)
        self._path = path
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
        with opened(path) as source, self._translated(key):
            return self._folder.put(source, key, if_generation)

    def download(self, key: str, path: Path, *, start: int = 0, begun: Begun | None = None) -> None:
        with self._translated(key, full=path.parent):
            self._folder.fetch(key, path, start)

    def delete(self, key: str, *, if_generation: int | None = None) -> None:
        with self._translated(key):
            self._folder.remove(key, if_generation)

    @contextmanager
    def _translated(self, key: str, *, full: Path | None = None) -> Iterator[None]:
        """`full` is the folder that is written to, where it is not the store itself."""
        try:
            yield
        except ContractError as error:
            raise ConfigError(f"The store {self.url} takes no such key: {error}") from None
        except Changed:
            raise ConflictError(
                f"{key} in {self.url} was written by somebody else meanwhile",
                next="Run the same command again.",
            ) from None
        except Missing:
            raise NotFoundError(f"There is no {key} in {self.url}") from None
        except Damaged as error:
            raise TransientError(
                f"Copying {key} went wrong: {error}", detail=f"The store is {self.url}."
            ) from error
        except OSError as error:
            raise refused(error, key, full or self._path) from error
