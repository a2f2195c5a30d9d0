"""What this computer remembers of contents that it has looked at. Deleting it changes only time.

    <records>/cache/checked.sqlite
        verdicts    by content hash and by the way of looking at it

Whatever is wrong with the file: without it everything is looked at again.
"""

from __future__ import annotations

import hashlib
import sqlite3
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import PIL

from orchestrator.datasets.checks.convert import ENCODING
from orchestrator.datasets.checks.judge import Unusable, Verdict
from orchestrator.datasets.checks.signature import FINGERPRINT

FILE = "checked.sqlite"
_BUSY_S = 5.0
_FIELDS = ", ".join(Verdict._fields[1:])  # all but the hash
PAGES_BYTES = 32 * 1024**2  # of the database in memory: hashes are written all over it
_ASKED_AT_ONCE = 500  # hashes in a query
_TABLES = f"""
    CREATE TABLE IF NOT EXISTS verdicts (sha256 BLOB NOT NULL, how INTEGER NOT NULL, unusable TEXT,
        travels BLOB, {_FIELDS}, PRIMARY KEY (sha256, how)) WITHOUT ROWID;
"""
_SCHEMA = zlib.crc32(_TABLES.encode()) >> 1
_NOTHING = (None,) * len(Verdict._fields)
_ROW = ", ".join("?" * (3 + len(_NOTHING)))


class Cache:
    """`how` names the way of looking at images: verdicts of another way do not count. `pages_bytes` is for the database.

    Used from one thread at a time; several processes may share the file.
    """

    def __init__(self, folder: Path | None, *, how: str = "", pages_bytes: int = PAGES_BYTES) -> None:
        self.folder = folder
        self.how = how
        # What makes a verdict: how it was asked for, its fields, its fingerprint, the decoder, and the encoder.
        encoder = f"encoding {ENCODING}" if how else ""
        self.form = f"{how}{encoder}|{_FIELDS}|{FINGERPRINT}|pillow {PIL.__version__}"
        self._how = int.from_bytes(hashlib.sha256(self.form.encode()).digest()[:6], "big")
        self._connection = _opened(folder / FILE, pages_bytes) if folder is not None else None

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

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

    def keep(self, found: Iterable[tuple[str, Verdict | Unusable]]) -> None:
        """Remember what was found, by content hash."""
        if self._connection is None:
            return
        rows = sorted(_row(sha256, judged, self._how) for sha256, judged in found)
        try:
            with self._connection as connection:
                connection.executemany(f"INSERT OR REPLACE INTO verdicts VALUES ({_ROW})", rows)
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


def _row(sha256: str, judged: Verdict | Unusable, how: int) -> tuple[object, ...]:
    """`travels` is the hash of what the image becomes on its way; NULL: it travels as it is."""
    content = bytes.fromhex(sha256)
    if isinstance(judged, Unusable):
        return content, how, judged.reason, *_NOTHING
    travels = None if judged.sha256 == sha256 else bytes.fromhex(judged.sha256)
    return content, how, None, travels, *judged[1:]


def _judged(sha256: str, row: Sequence[Any]) -> Verdict | Unusable | None:
    """Of `unusable`, `travels` and the fields of a verdict; None where there is no row."""
    if row[0] is not None:
        return Unusable(row[0])
    if row[2] is None:
        return None
    return Verdict(sha256 if row[1] is None else row[1].hex(), *row[2:])
