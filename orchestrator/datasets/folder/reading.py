"""A file's bytes, if it still is the file that the scan saw. Read whole: its hash and its verdict need all of them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Protocol

from orchestrator.datasets.checks.judge import Unusable

FILE_BYTES_MAX = 512 * 1024**2  # a worker holds one file in memory


@dataclass(frozen=True, slots=True)
class Missed:
    """A file that was there and is not, is another one now, or can't be read: run it again when it is as it should be."""

    reason: str


class Seen(Protocol):
    """A file as the scan saw it."""

    @property
    def path(self) -> bytes: ...
    @property
    def size(self) -> int: ...
    @property
    def mtime_ns(self) -> int: ...
    @property
    def inode(self) -> int: ...


def read(root: bytes, file: Seen) -> bytes | Unusable | Missed:
    """All bytes of `file` below the dataset's folder `root`."""
    if file.size > FILE_BYTES_MAX:
        return Unusable(f"larger than {FILE_BYTES_MAX // 1024**2} MiB")
    try:
        opened = os.open(root + b"/" + file.path, os.O_RDONLY)
        try:
            data = _whole(opened, file.size)
            seen = os.fstat(opened)  # after it was read: that tells of earlier changes too
        finally:
            os.close(opened)
    except FileNotFoundError:
        return Missed("it vanished meanwhile")
    except PermissionError:
        return Missed("no permission to read it")
    except OSError as error:
        return Missed(f"it can't be read: {error.strerror}")
    if not _same(seen, file) or len(data) != file.size:
        return Missed("it changed meanwhile")
    return data


def _whole(opened: int, size: int) -> bytes:
    """All of it, and a byte more where there is one. Without a file object, which takes as long to make as a small file
    to read."""
    data = os.read(opened, size + 1)
    while len(data) < size and (more := os.read(opened, size + 1 - len(data))):
        data += more
    return data


def _same(seen: os.stat_result, file: Seen) -> bool:
    return (seen.st_size, seen.st_mtime_ns, seen.st_ino) == (file.size, file.mtime_ns, file.inode)
