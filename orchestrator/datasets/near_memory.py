"""What this computer remembers of near copies in a folder. Deleting it changes only time."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from remote.contract import document
from remote.contract.document import ContractError

from .near import Near, Pair

SCHEMA = 2  # of fingerprints and errors too: another way of looking is another schema


@dataclass(frozen=True)
class _Found:
    key: str  # of the contents that were searched
    pairs: list[Pair]
    same: dict[str, str]
    searched: bool
    errors: dict[str, float]  # of all pairs that were compared: "<sha256> <sha256>"
    schema: int = SCHEMA


class Memory:
    def __init__(self, folder: Path | None, root: Path) -> None:
        name = f"near-{hashlib.sha256(os.fsencode(root)).hexdigest()[:32]}.json"
        self._file = None if folder is None else folder / name
        self._found = _read(self._file)

    def known(self, key: str) -> Near | None:
        found = self._found
        return Near(found.pairs, found.same, found.searched) if found and found.key == key else None

    def error(self, pair: tuple[str, str]) -> float | None:
        return self._found.errors.get(" ".join(pair)) if self._found else None

    def keep(self, key: str, near: Near, errors: Mapping[tuple[str, str], float]) -> None:
        if self._file is None:
            return
        finite = {" ".join(pair): min(error, 1e9) for pair, error in errors.items()}
        try:
            document.write(self._file, _Found(key, near.pairs, dict(near.same), near.searched, finite))
        except OSError:
            return  # a folder that can't be written to: there is no memory


def _read(file: Path | None) -> _Found | None:
    if file is None:
        return None
    try:
        return document.decode(_Found, file.read_bytes(), what=str(file))
    except (OSError, ContractError):
        return None
