"""What this computer remembers of files that it has read: their hashes and verdicts. Deleting it changes only time.

    <records>/cache/checked.sqlite
        files       by folder and path: size, modification time and inode as the hash was taken
        verdicts    by content hash and by the way of looking at it

A file is taken for unchanged when size, modification time and inode are. One that was written so shortly before it
was read that a later edit could carry the same time is not remembered. Whatever is wrong with the file: without it
everything is read again.
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import operator
import os
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from .judge import Unusable, Verdict

FILE = "checked.sqlite"
_SCHEMA = 2
_BUSY_S = 5.0
_TICK_NS = 50_000_000  # a clock of files that counts in nanoseconds moves at least so often
_COARSE_NS = 2_000_000_000  # ... and one that counts in seconds
_VERDICT_FIELDS = tuple(field.name for field in dataclasses.fields(Verdict))
_VALUES = operator.attrgetter(*_VERDICT_FIELDS)
_BYTES = tuple(at for at, field in enumerate(dataclasses.fields(Verdict)) if field.type in (bytes, "bytes"))
_ENCODER = json.JSONEncoder(separators=(",", ":"))
_ASKED_AT_ONCE = 500  # hashes in a query
_TABLES = """
    CREATE TABLE IF NOT EXISTS roots (id INTEGER PRIMARY KEY, path BLOB UNIQUE NOT NULL);
    CREATE TABLE IF NOT EXISTS files (root INTEGER NOT NULL, path BLOB NOT NULL, size INTEGER NOT NULL,
        mtime_ns INTEGER NOT NULL, inode INTEGER NOT NULL, sha256 BLOB NOT NULL, PRIMARY KEY (root, path))
        WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS verdicts (sha256 BLOB NOT NULL, how INTEGER NOT NULL, verdict TEXT NOT NULL,
        PRIMARY KEY (sha256, how)) WITHOUT ROWID;
"""


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
    """`how` names the way of looking at images: verdicts of another way do not count.

    Used from one thread at a time; several processes may share the file.
    """

    def __init__(self, folder: Path | None, *, how: str = "") -> None:
        self.folder = folder
        self.how = how
        # 48 bits of what makes a verdict: how it was asked for, its fields, and the decoder.
        what = f"{how}|{','.join(_VERDICT_FIELDS)}|pillow {version('pillow')}"
        self._how = int.from_bytes(hashlib.sha256(what.encode()).digest()[:6], "big")
        self._connection = _opened(folder / FILE) if folder is not None else None

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def files(self, root: Path) -> Iterator[Known]:
        """What is remembered of the files below `root`, in path order."""
        if self._connection is None:
            return
        query = (
            "SELECT f.path, f.size, f.mtime_ns, f.inode, f.sha256, v.verdict FROM files f"
            " LEFT JOIN verdicts v ON v.sha256 = f.sha256 AND v.how = ?"
            " WHERE f.root = (SELECT id FROM roots WHERE path = ?) ORDER BY f.path"
        )
        try:
            for path, size, mtime_ns, inode, sha256, verdict in self._connection.execute(
                query, (self._how, os.fsencode(root))
            ):
                judged = _verdict(verdict) if verdict else None
                yield Known(path, size, mtime_ns, inode, sha256.hex(), judged)
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
                query = f"SELECT sha256, verdict FROM verdicts WHERE how = ? AND sha256 IN ({marks})"
                rows = self._connection.execute(query, (self._how, *map(bytes.fromhex, asked)))
                found.update((sha256.hex(), _verdict(verdict)) for sha256, verdict in rows)
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
                    "INSERT OR REPLACE INTO verdicts VALUES (?, ?, ?)",
                    sorted((bytes.fromhex(entry.sha256), self._how, _text(entry.judged)) for entry in kept),
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


def _opened(path: Path) -> sqlite3.Connection | None:
    for _ in range(2):
        try:
            return _connected(path)
        except sqlite3.OperationalError:  # locked, or no place to write
            return None
        except sqlite3.DatabaseError:
            _remove(path)
    return None


def _connected(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=_BUSY_S, check_same_thread=False)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
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


def _text(judged: Verdict | Unusable) -> str:
    if isinstance(judged, Unusable):
        return json.dumps(judged.reason)
    values = list(_VALUES(judged))
    for at in _BYTES:
        values[at] = base64.b64encode(values[at]).decode()
    return _ENCODER.encode(values)


def _verdict(text: str) -> Verdict | Unusable:
    values: list[Any] | str = json.loads(text)
    if isinstance(values, str):
        return Unusable(values)
    for at in _BYTES:
        values[at] = base64.b64decode(values[at])
    return Verdict(*values)
