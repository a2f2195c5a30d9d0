"""What this computer remembers of its last upload of a folder. Deleting it changes only time.

<records>/cache/uploads/<hash of folder, store and dataset>.json     how the folder looked, and what HEAD was
<records>/cache/uploads/<the same>.rows                              that version's manifest, as Python reads it soonest
<records>/cache/uploads/packs-<hash of the store>.json               size and checksum of the packs it has sent
"""

from __future__ import annotations

import hashlib
import io
import json
import marshal
import operator
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from remote.contract import document
from remote.contract.dataset_manifest import DatasetManifest, Image
from remote.contract.document import ContractError

from .cache import is_settled
from .scan import Scan
from .versions import Head

T = TypeVar("T")
_IMAGE = tuple(one.name for one in fields(Image))
_MANIFEST = tuple(one.name for one in fields(DatasetManifest) if one.name != "images")
_FORM = repr(
    (sys.implementation.cache_tag, _IMAGE, _MANIFEST)
).encode()  # another Python may write other bytes
_ROWS_AT_ONCE = 1000


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
        if self._folder is None:
            return None
        try:
            with (self._folder / f"{self._name}.rows").open("rb") as file:
                if file.read(32) != _digest(file, version):
                    return None
                pieces = _pieces(file)
                header = json.loads(next(pieces))
                images = [Image(*row) for rows in pieces for row in rows]
                return DatasetManifest(**header, images=images)
        except OSError:
            return None

    def keep_manifest(self, manifest: DatasetManifest, version: str) -> None:
        def fill(file: BinaryIO) -> None:
            file.write(bytes(32))
            _add(file, json.dumps({name: getattr(manifest, name) for name in _MANIFEST}))
            row = operator.attrgetter(*_IMAGE)
            for start in range(0, len(manifest.images), _ROWS_AT_ONCE):
                _add(file, list(map(row, manifest.images[start : start + _ROWS_AT_ONCE])))
            file.seek(32)
            digest = _digest(file, version)
            file.seek(0)
            file.write(digest)

        self._fill(f"{self._name}.rows", fill)

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

    def _write(self, name: str, data: bytes) -> None:
        self._fill(name, lambda file: file.write(data))

    def _fill(self, name: str, fill: Callable[[BinaryIO], object]) -> None:
        """A disk that is full costs time the next time, no more."""
        if self._folder is None:
            return
        beside = self._folder / f".{name}.{os.getpid()}"
        with suppress(OSError):
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with beside.open("w+b") as file:
                fill(file)
            beside.replace(self._folder / name)


def _add(file: BinaryIO, piece: str | list[tuple[Any, ...]]) -> None:
    data = marshal.dumps(piece)
    file.write(len(data).to_bytes(8, "big") + data)


def _pieces(file: BinaryIO) -> Iterator[Any]:
    while length := file.read(8):
        yield marshal.loads(file.read(int.from_bytes(length, "big")))


def _digest(file: BinaryIO, version: str) -> bytes:
    """Of what the form of the rows follows from, of the version, and of the rest of `file`, whose place stays."""
    digest = hashlib.sha256(_FORM + version.encode())
    place = file.tell()
    while data := file.read(io.DEFAULT_BUFFER_SIZE * 16):
        digest.update(data)
    file.seek(place)
    return digest.digest()


def fingerprint(scan: Scan, said: object) -> str:
    """Equal for two looks at a folder in which nothing was touched; "" when an edit may still go unseen.

    said            what the user said that changes the version
    """
    now_ns = time.time_ns()
    if not all(is_settled(file.mtime_ns, now_ns) for file in scan.files):
        return ""
    digest = hashlib.sha256(repr((scan.name, scan.splits, said)).encode())
    digest.update(repr((scan.set_aside, scan.warnings)).encode())
    for start in range(0, len(scan.files), 1000):
        digest.update(_rows(scan.files[start : start + 1000]))
    return digest.hexdigest()


def _rows(files: Iterable[object]) -> bytes:
    return "\n".join(map(repr, files)).encode("utf-8", "surrogateescape")
