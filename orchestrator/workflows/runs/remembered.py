"""What this computer remembers of runs that are over: their documents never change again. Deleting it costs time only.

<records>/cache/runs.sqlite     by store and run: the documents as the store had them
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

FILE = "runs.sqlite"
_BUSY_S = 5.0
_SCHEMA = 1
_TABLE = "CREATE TABLE IF NOT EXISTS runs (store TEXT, run TEXT, documents TEXT, PRIMARY KEY (store, run)) WITHOUT ROWID"

Documents = Mapping[str, str]  # by their name below the folder of the run: "spec.json", "attempts/1.json"


class RememberedRuns:
    """Several processes may share the file. Whatever is wrong with it: without it everything is read again."""

    def __init__(self, cache: Path, store: str) -> None:
        self._file = cache / FILE
        self._store = store

    def all(self) -> dict[str, Documents]:
        try:
            with closing(self._opened()) as database:
                rows = database.execute("SELECT run, documents FROM runs WHERE store = ?", (self._store,))
                return {run: json.loads(documents) for run, documents in rows}
        except (sqlite3.Error, ValueError):
            return {}

    def keep(self, runs: Mapping[str, Documents]) -> None:
        rows = [(self._store, run, json.dumps(dict(documents))) for run, documents in runs.items()]
        try:
            with closing(self._opened()) as database, database:
                database.executemany("INSERT OR REPLACE INTO runs VALUES (?, ?, ?)", rows)
        except sqlite3.Error:
            return

    def forget(self) -> None:
        self._file.unlink(missing_ok=True)

    def _opened(self) -> sqlite3.Connection:
        try:
            return self._ready()
        except sqlite3.DatabaseError:  # damaged, or of another version of tlvm
            self._file.unlink(missing_ok=True)
            return self._ready()

    def _ready(self) -> sqlite3.Connection:
        database = sqlite3.connect(self._file, timeout=_BUSY_S)
        (found,) = database.execute("PRAGMA user_version").fetchone()
        if found not in (0, _SCHEMA):
            database.close()
            raise sqlite3.DatabaseError("another version")
        database.execute("PRAGMA synchronous = OFF")
        database.execute(_TABLE)
        database.execute(f"PRAGMA user_version = {_SCHEMA}")
        return database
