"""What this computer remembers of files that it has read: their hashes and verdicts. Deleting it changes only time.

    <records>/cache/checked.sqlite
        files       by folder and path: size, modification time and inode as the hash was taken
        verdicts    by content hash and by the way of looking at it

A file is taken for unchanged when size, modification time and inode are. One that was written so shortly before it
was read that a later edit could carry the same time is not remembered. Whatever is wrong with the file: without it
everything is read again.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import time
import zlib
from collections.abc import Iterable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from .judge import Unusable, Verdict
from .signature import FINGERPRINT

FILE = "checked.sqlite"
_BUSY_S = 5.0
_TICK_NS = 50_000_000  # a clock of files that counts in nanoseconds moves at least so often
_COARSE_NS = 2_000_000_000  # ... and one that counts in seconds
_FIELDS = ", ".join(Verdict._fields[1:])  # all but the hash
PAGES_BYTES = 64 * 1024**2  # of the database in memory: hashes are written all over it
_ASKED_AT_ONCE = 500  # hashes in a query
_TABLES = f"""
    CREATE TABLE IF NOT EXISTS roots (id INTEGER PRIMARY KEY, path BLOB UNIQUE NOT NULL);
    CREATE TABLE IF NOT EXISTS files (root INTEGER NOT NULL, path BLOB NOT NULL, size INTEGER NOT NULL,
        mtime_ns INTEGER NOT NULL, inode INTEGER NOT NULL, sha256 BLOB NOT NULL, PRIMARY KEY (root, path))
        WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS verdicts (sha256 BLOB NOT NULL, how INTEGER NOT NULL, unusable TEXT,
        travels BLOB, {_FIELDS}, PRIMARY KEY (sha256, how)) WITHOUT ROWID;
"""
_SCHEMA = zlib.crc32(_TABLES.encode()) >> 1
_QUALIFIED = ", ".join(f"v.{name}" for name in Verdict._fields[1:])  # `files` has a size too
_NOTHING = (None,) * len(Verdict._fields)
_ROW = ", ".join("?" * (3 + len(_NOTHING)))


class Known(NamedTuple):
    """A file as it was when it was read last."""

    path: bytes  # below the folder
    size: int
    mtime_ns: int
    inode: int
    sha256: str  # of its bytes
    judged: Verdict | Unusable | None


class Entry(NamedTuple):
    """What is worth remembering of a file that was read."""

    path: bytes
    size: int
    mtime_ns: int
    inode: int
    sha256: str
    judged: Verdict | Unusable


def is_settled(mtime_ns: int, now_ns: int) -> bool:
    """Whether an edit after `now_ns` is sure to give a file of this modification time another one."""
    coarse = mtime_ns % 1_000_000 == 0
    return mtime_ns + (_COARSE_NS if coarse else _TICK_NS) < now_ns


class Cache:
    """`how` names the way of looking at images: verdicts of another way do not count. `pages_bytes` is for the database.

    Used from one thread at a time; several processes may share the file.
    """

    def __init__(self, folder: Path | None, *, how: str = "", pages_bytes: int = PAGES_BYTES) -> None:
        self.folder = folder
        self.how = how
        # 48 bits of what makes a verdict: how it was asked for, its fields, its fingerprint, and the decoder.
        what = f"{how}|{_FIELDS}|{FINGERPRINT}|pillow {version('pillow')}"
        self._how = int.from_bytes(hashlib.sha256(what.encode()).digest()[:6], "big")
        self._connection = _opened(folder / FILE, pages_bytes) if folder is not None else None

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def files(self, root: Path) -> Iterator[Known]:
        """What is remembered of the files below `root`, in path order."""
        if self._connection is None:
            return
        query = (
            f"SELECT f.path, f.size, f.mtime_ns, f.inode, f.sha256, unusable, travels, {_QUALIFIED} FROM files f"
            " LEFT JOIN verdicts v ON v.sha256 = f.sha256 AND v.how = ?"
            " WHERE f.root = (SELECT id FROM roots WHERE path = ?) ORDER BY f.path"
        )
        try:
            rows = self._connection.execute(query, (self._how, os.fsencode(root)))
            for path, size, mtime_ns, inode, raw, *judged in rows:
                sha256 = raw.hex()
                yield Known(path, size, mtime_ns, inode, sha256, _judged(sha256, judged))
        except (sqlite3.Error, ValueError, TypeError) as error:
            self._give_up(error)

    def verdicts(self, hashes: Sequence[str]) -> dict[str, Verdict | Unusable]:
        """Those that are known."""
        found: dict[str, Verdict | Unusable] = {}
        if self._connection is None:
            return found
        try:
            for start in range(0, len(hashes), _ASKED_AT_ONCE):
                asked = hashes[start : start + _ASKED_AT_ONCE]
                marks = ",".join("?" * len(asked))
                query = (
                    f"SELECT sha256, unusable, travels, {_FIELDS} FROM verdicts"
                    f" WHERE how = ? AND sha256 IN ({marks})"
                )
                for row in self._connection.execute(query, (self._how, *map(bytes.fromhex, asked))):
                    sha256 = row[0].hex()
                    if (judged := _judged(sha256, row[1:])) is not None:
                        found[sha256] = judged
        except (sqlite3.Error, ValueError, TypeError) as error:
            self._give_up(error)
        return found

    def keep(self, root: Path, entries: Iterable[Entry], gone: Iterable[bytes] = ()) -> None:
        """Remember files that were read, and forget those that are gone."""
        if self._connection is None:
            return
        now_ns = time.time_ns()
        kept = list(entries)
        try:
            with self._connection as connection:
                connection.execute("INSERT OR IGNORE INTO roots (path) VALUES (?)", (os.fsencode(root),))
                (number,) = connection.execute(
                    "SELECT id FROM roots WHERE path = ?", (os.fsencode(root),)
                ).fetchone()
                connection.executemany(
                    "INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?, ?)",
                    (
                        (number, *entry[:4], bytes.fromhex(entry.sha256))
                        for entry in kept
                        if is_settled(entry.mtime_ns, now_ns)
                    ),
                )
                connection.executemany(
                    f"INSERT OR REPLACE INTO verdicts VALUES ({_ROW})",
                    sorted(_row(entry, self._how) for entry in kept),
                )
                connection.executemany(
                    "DELETE FROM files WHERE root = ? AND path = ?", ((number, path) for path in gone)
                )
        except sqlite3.Error as error:
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        """A cache that can't be used is none: locked for long, or on a full disk. One that is damaged is made anew."""
        self.close()
        if self.folder is not None and not isinstance(error, sqlite3.OperationalError):
            _remove(self.folder / FILE)


def _opened(path: Path, pages_bytes: int) -> sqlite3.Connection | None:
    for _ in range(2):
        try:
            return _connected(path, pages_bytes)
        except sqlite3.OperationalError:  # locked, or no place to write
            return None
        except sqlite3.DatabaseError:
            _remove(path)
    return None


def _connected(path: Path, pages_bytes: int) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=_BUSY_S, check_same_thread=False)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute(f"PRAGMA cache_size = -{pages_bytes // 1024}")
        (schema,) = connection.execute("PRAGMA user_version").fetchone()
        if schema not in (0, _SCHEMA):
            raise sqlite3.DatabaseError("of another version of tlvm")
        connection.executescript(_TABLES)
        connection.execute(f"PRAGMA user_version = {_SCHEMA}")
    except BaseException:
        connection.close()
        raise
    return connection


def _remove(path: Path) -> None:
    for ending in ("", "-wal", "-shm"):
        try:
            path.with_name(path.name + ending).unlink(missing_ok=True)
        except OSError:
            return  # a folder that can't be written to: there is no cache


def _row(entry: Entry, how: int) -> tuple[object, ...]:
    """`travels` is the hash of what the image becomes on its way; NULL: it travels as it is."""
    sha256 = bytes.fromhex(entry.sha256)
    if isinstance(entry.judged, Unusable):
        return sha256, how, entry.judged.reason, *_NOTHING
    same = entry.judged.sha256 == entry.sha256
    return sha256, how, None, None if same else bytes.fromhex(entry.judged.sha256), *entry.judged[1:]


def _judged(sha256: str, row: Sequence[Any]) -> Verdict | Unusable | None:
    """Of `unusable`, `travels` and the fields of a verdict; None where there is no row."""
    if row[0] is not None:
        return Unusable(row[0])
    if row[2] is None:
        return None
    return Verdict(sha256 if row[1] is None else row[1].hex(), *row[2:])
