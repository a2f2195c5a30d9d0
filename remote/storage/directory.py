"""A folder that stands in for the bucket: the store of the providers `local` and `docker`, and of every test.

How blobs are kept (atomic writes, generations, locking, shared folders) is `remote.contract.folder`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import google_crc32c

from remote.contract.document import ContractError
from remote.contract.folder import Changed, Damaged, Folder, Missing
from remote.contract.store import FREE, Begun, Blob, Way

from .disk import opened, refused
from .faults import Fault, Kind, Say, changed, missing, no_key


class DirectoryStore:
    """Blobs are the files below a folder, which is made when the first one is written. May be used by many threads.

    A blob is written in a hidden `.tmp/` beside it, flushed and renamed. Its generation is its modification time in
    nanoseconds, which every write moves forward. Preconditions hold between processes: check and rename happen
    under one `flock`. Links, and files whose names are no keys, do not exist here.
    """

    def __init__(self, path: Path, say: Say) -> None:
        self.url = str(path)
        self._path = path
        self._say = say
        self._folder = Folder(path, google_crc32c.Checksum)

    def get(self, key: str) -> Blob | None:
        with self._told(key):
            return self._folder.get(key)

    def blobs(self, prefix: str, *, delimiter: str | None = None, match: str | None = None) -> Iterator[Blob]:
        with self._told(prefix):
            yield from self._folder.entries(prefix, delimiter, match)

    def folders(self, prefix: str) -> Iterator[str]:
        with self._told(prefix):
            yield from self._folder.folders(prefix)

    def upload(
        self,
        path: Path,
        key: str,
        *,
        if_generation: int | None = None,
        way: Way = FREE,
        begun: Begun | None = None,
    ) -> Blob:
        way.gate()
        with opened(path, self._say) as source, self._told(key):
            return self._folder.put(source, key, if_generation)

    def download(self, key: str, path: Path, *, start: int = 0, begun: Begun | None = None) -> None:
        with self._told(key):
            source = self._folder.opened(key)
        with source, self._told(key, into=path.parent):
            self._folder.fetch(source, path, start)

    def delete(self, key: str, *, if_generation: int | None = None) -> None:
        with self._told(key):
            self._folder.remove(key, if_generation)

    @contextmanager
    def _told(self, key: str, *, into: Path | None = None) -> Iterator[None]:
        """`into` is the folder that is written to, where it is not the store itself."""
        try:
            yield
        except ContractError as error:
            raise self._say(no_key(error, self.url)) from None
        except Changed:
            raise self._say(changed(key, self.url)) from None
        except Missing:
            raise self._say(missing(key, self.url)) from None
        except Damaged as error:
            fault = Fault(Kind.UNREADY, f"Copying {key} went wrong: {error}", f"The store is {self.url}.")
            raise self._say(fault) from error
        except OSError as error:
            raise self._say(refused(error, key, into or self._path)) from error
