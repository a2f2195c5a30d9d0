"""What this computer remembers of its last upload of a folder. Deleting it changes only time.

<records>/cache/uploads/<hash of folder, store and dataset>.json     how the folder looked, and what HEAD was
<records>/cache/uploads/<the same>.rows                              that version's manifest, in columns
<records>/cache/uploads/packs-<hash of the store>.json               size and checksum of the packs it has sent
"""

from __future__ import annotations

import hashlib
import itertools
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from orchestrator.datasets.columns import kept
from orchestrator.datasets.columns.images import IMAGES
from orchestrator.datasets.folder.scan import Scan
from orchestrator.datasets.folder.snapshot import is_settled
from orchestrator.datasets.publishing.versions import Head
from remote.contract import document
from remote.contract.dataset_manifest import DatasetManifest
from remote.contract.document import ContractError

T = TypeVar("T")


@dataclass(frozen=True)
class Last:
    """The upload before."""

    fingerprint: str  # of the folder and of what the user said
    version: str
    generation: int  # of HEAD
    result: str  # what was reported, as JSON
    schema: int = 1

    @property
    def head(self) -> Head:
        return Head(self.version, self.generation)


@dataclass(frozen=True)
class _Sums:
    packs: dict[str, list[str]] = field(default_factory=dict)  # size and crc32c by hash
    schema: int = 1


class Remembered:
    """Of one folder, store and dataset. Without a folder for it nothing is remembered; what is damaged is forgotten."""

    def __init__(self, cache: Path | None, root: Path, store_url: str, dataset: str) -> None:
        self._folder = cache / "uploads" if cache is not None else None
        what = b"\0".join((os.fsencode(root), store_url.encode(), dataset.encode()))
        self._name = hashlib.sha256(what).hexdigest()
        self._sums_name = f"packs-{hashlib.sha256(store_url.encode()).hexdigest()[:32]}.json"

    def last(self) -> Last | None:
        return self._read(Last, f"{self._name}.json")

    def keep(self, last: Last) -> None:
        self._write(f"{self._name}.json", document.encode(last).encode())

    def manifest(self, version: str) -> DatasetManifest | None:
        """If it is the one that was kept."""
        pieces = kept.read(self._rows(), form=f"{IMAGES}; {version}")
        if pieces is None:
            return None
        header = next(pieces)
        return DatasetManifest(**header, images=IMAGES.again(pieces))

    def keep_manifest(self, manifest: DatasetManifest, version: str) -> None:
        place = self._rows()
        if place is not None:
            header = {name: value for name, value in vars(manifest).items() if name != "images"}
            pieces = itertools.chain([header], IMAGES.rows(manifest.images).pieces())
            kept.write(place, pieces, form=f"{IMAGES}; {version}")

    def sums(self) -> dict[str, tuple[int, str]]:
        """Size and crc32c of packs as this computer sent or found them, by hash."""
        known = self._read(_Sums, self._sums_name) or _Sums()
        return {pack: (int(size), crc32c) for pack, (size, crc32c) in known.packs.items()}

    def keep_sums(self, sums: Mapping[str, tuple[int, str]]) -> None:
        """On top of those that are known."""
        merged = {**self.sums(), **sums}
        packs = {pack: [str(size), crc32c] for pack, (size, crc32c) in merged.items()}
        self._write(self._sums_name, document.encode(_Sums(packs)).encode())

    def _read(self, kind: type[T], name: str) -> T | None:
        if self._folder is None:
            return None
        try:
            return document.decode(kind, (self._folder / name).read_bytes(), what=name)
        except (OSError, ContractError):
            return None

    def _rows(self) -> Path | None:
        return self._folder / f"{self._name}.rows" if self._folder is not None else None

    def _write(self, name: str, data: bytes) -> None:
        """A disk that is full costs time the next time, no more."""
        if self._folder is None:
            return
        beside = self._folder / f".{name}.{os.getpid()}"
        with suppress(OSError):
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            beside.write_bytes(data)
            beside.replace(self._folder / name)


def fingerprint(scan: Scan, said: object) -> str:
    """Equal for two looks at a folder in which nothing was touched; "" when an edit may still go unseen.

    said            what the user said that changes the version
    """
    if not is_settled(scan.files.numbers("mtime_ns"), time.time_ns()).all():
        return ""
    digest = hashlib.sha256(repr((scan.name, scan.splits, said)).encode())
    digest.update(repr((scan.set_aside, scan.warnings)).encode())
    for column in scan.files.pieces():
        for part in column:
            digest.update(repr(part).encode() if isinstance(part, list) else part)
    return digest.hexdigest()
