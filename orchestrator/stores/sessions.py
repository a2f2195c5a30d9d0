"""Uploads of packs that were begun, kept on this computer's disk: after a kill they go on where they were.

    <folder>/<hash of store, key, size and condition>       the address where the upload goes on; locked by its process

A service forgets an upload after a week, and says so: then it is begun anew. Whoever has the address may write this
one blob, once, so that the folder is the user's alone. Deleting it costs bytes, no more.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from remote.contract import layout
from remote.contract.run_spec import StoreRef
from remote.contract.store import Begun
from remote.storage.gcs import AT_ONCE_BYTES

FORGOTTEN_S = 7 * 24 * 3600
_ADDRESS_BYTES_MAX = 10_000
_SERVICE = "https://storage.googleapis.com"


class Sessions:
    def __init__(self, folder: Path, ref: StoreRef) -> None:
        self._folder = folder
        self._store = f"{ref.url}\0{ref.endpoint}"
        self._service = f"{(ref.endpoint or _SERVICE).rstrip('/')}/"  # no other is sent our credentials

    @contextmanager
    def begun(self, path: Path, key: str, if_generation: int | None) -> Iterator[Begun]:
        """What is left of an upload of this file, which another process of this computer is not just going on with."""
        size = path.stat().st_size if path.exists() else 0
        if size <= AT_ONCE_BYTES or not key.startswith(layout.PACKS):  # others are not named by their content
            yield Begun()
            return
        what = f"{self._store}\0{key}\0{size}\0{if_generation}"
        place = self._folder / hashlib.sha256(what.encode()).hexdigest()
        file = self._locked(place)
        if file is None:
            yield Begun()
            return
        try:
            address = os.pread(file, _ADDRESS_BYTES_MAX, 0).decode("ascii", "replace")
            known = address if address.startswith(self._service) else ""
            yield Begun(session=known, keep=lambda session: _write(file, session))
            place.unlink(missing_ok=True)
        except BaseException:
            if not os.fstat(file).st_size:  # there is nothing to go on with
                place.unlink(missing_ok=True)
            raise
        finally:
            os.close(file)

    def _locked(self, place: Path) -> int | None:
        """None when another process has it, or there is no room for it."""
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._sweep()
            file = os.open(place, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        except OSError:
            return None
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(file)
            return None
        if not os.fstat(file).st_nlink:  # whoever had it has just done it
            os.close(file)
            return None
        return file

    def _sweep(self) -> None:
        for place in self._folder.iterdir():
            with suppress(FileNotFoundError):
                if place.stat().st_mtime < time.time() - FORGOTTEN_S:
                    place.unlink()


def _write(file: int, session: str) -> None:
    with suppress(OSError):  # a full disk costs bytes when this process is killed, no more
        os.ftruncate(file, 0)
        os.pwrite(file, session.encode(), 0)
