"""What a folder of blobs is made of: folders and files that keep what they share, files being written, lock and times.

All by descriptor: nothing that somebody puts in the way meanwhile, a link least of all, leads elsewhere.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import BinaryIO

STALE_S = 24 * 3600  # a file in `.tmp/` that is older belongs to a writer that died


def enter(name: str, folder: int, *, create: bool) -> int:
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
    try:
        return os.open(name, flags, dir_fd=folder)
    except FileNotFoundError:
        if not create:
            raise
    try:
        os.mkdir(name, stat.S_IMODE(os.fstat(folder).st_mode), dir_fd=folder)
    except FileExistsError:  # another writer was faster
        return os.open(name, flags, dir_fd=folder)
    made = os.open(name, flags, dir_fd=folder)
    share(made, folder, mask=0o7777)
    return made


def share(descriptor: int, folder: int, *, mask: int) -> None:
    """Give a new file or folder the group and the permission bits of the folder that it is made in."""
    above = os.fstat(folder)
    # Who is not a member of that group may not give a file to it; the bits for others still count then.
    with suppress(PermissionError):
        os.fchown(descriptor, -1, above.st_gid)
    os.fchmod(descriptor, stat.S_IMODE(above.st_mode) & mask)


@contextmanager
def scratch_file(hidden: int) -> Iterator[tuple[str, BinaryIO]]:
    """A new file in `.tmp/`, gone afterwards if it was not renamed. Those of writers that died are swept out."""
    _sweep(hidden)
    name = secrets.token_hex(16)
    with os.fdopen(os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=hidden), "w+b") as file:
        try:
            yield name, file
        finally:
            with suppress(FileNotFoundError):
                os.unlink(name, dir_fd=hidden)


def _sweep(hidden: int) -> None:
    with os.scandir(hidden) as found:
        for entry in found:
            with suppress(FileNotFoundError, PermissionError):  # another sweeps too, or it is another user's
                if entry.name != "lock" and time.time() - entry.stat().st_mtime > STALE_S:
                    os.unlink(entry.name, dir_fd=hidden)


@contextmanager
def locked(hidden: int) -> Iterator[None]:
    try:
        lock = os.open("lock", os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600, dir_fd=hidden)
        share(lock, hidden, mask=0o666)
    except FileExistsError:
        lock = os.open("lock", os.O_RDWR | os.O_NOFOLLOW, dir_fd=hidden)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def generation_of(name: str, folder: int) -> int:
    """Of the blob that is there now; 0 when there is none."""
    try:
        found = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return 0
    return max(1, found.st_mtime_ns) if stat.S_ISREG(found.st_mode) else 0


def stamp(descriptor: int, *, after: int) -> int:
    """Set the modification time to now, but later than `after`, even where the disk rounds it or the clock went back."""
    stamp, step = max(time.time_ns(), after + 1), 1
    while True:
        os.utime(descriptor, ns=(stamp, stamp))
        found = os.fstat(descriptor).st_mtime_ns
        if found > after:
            return found
        step *= 10
        stamp = after + step
