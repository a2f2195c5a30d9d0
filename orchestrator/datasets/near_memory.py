"""What this computer remembers of near copies in a folder. Deleting it changes only time."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from remote.contract import document
from remote.contract.document import ContractError

from .near import Pair

SCHEMA = 4  # of fingerprints and errors too: another way of looking is another schema


@dataclass(frozen=True)
class Found:
    key: str  # of the contents that were searched
    pairs: list[Pair]
    searched: bool
    errors: dict[str, float]  # of all pairs that were compared: "<sha256> <sha256>"
    schema: int = SCHEMA


class Memory:
    def __init__(self, folder: Path | None, root: Path) -> None:
        name = f"near-{hashlib.sha256(os.fsencode(root)).hexdigest()[:32]}.json"
        self._file = None if folder is None else folder / name
        self._found = _read(self._file)

    def known(self, key: str) -> Found | None:
        return self._found if self._found and self._found.key == key else None

    def error(self, pair: tuple[str, str]) -> float | None:
        return self._found.errors.get(" ".join(pair)) if self._found else None

    def keep(
        self, key: str, pairs: list[Pair], errors: Mapping[tuple[str, str], float], *, searched: bool
    ) -> None:
        if self._file is None:
            return
        finite = {" ".join(pair): min(error, 1e9) for pair, error in errors.items()}
        try:
            document.write(self._file, Found(key, pairs, searched, finite))
        except OSError:
            return  # a folder that can't be written to: there is no memory


def _read(file: Path | None) -> Found | None:
    if file is None:
        return None
    try:
        return document.decode(Found, file.read_bytes(), what=str(file))
    except (OSError, ContractError):
        return None
