"""The store's copies of weights: `weights/<file>`, and `weights/index.json` with the whole sha256 of each.

A file that the index names with the size and checksum that the store lists needs no second look; anything else is
uploaded again. The machine checks the sha256 of what it fetches in any case.
"""

from __future__ import annotations

import base64
import dataclasses
import tempfile
from dataclasses import dataclass
from pathlib import Path

import google_crc32c

from orchestrator.errors import ConflictError
from orchestrator.progress import Progress
from orchestrator.stores.base import Blob, Store
from orchestrator.stores.documents import write_document
from remote.contract import document, layout

_TRIES = 8
_INDEX_BYTES_MAX = 4 * 1024 * 1024


@dataclass(frozen=True)
class MirroredFile:
    file: str
    sha256: str
    size: int  # bytes
    crc32c: str  # base64, as the store lists it
    origin: str  # the address it came from

    def __post_init__(self) -> None:
        layout.weights_key(self.file)
        layout.sha256(self.sha256)


@dataclass(frozen=True)
class MirrorIndex:
    files: list[MirroredFile]  # sorted by file
    schema: int = 1


def find(store: Store, file: str, sha256_prefix: str, progress: Progress) -> str | None:
    """The whole sha256 of a mirrored file; None when it is not there, or not what the index says."""
    index, _ = _read_index(store, progress)
    for entry in index.files:
        if entry.file == file and entry.sha256.startswith(sha256_prefix):
            blob = store.get(layout.weights_key(file))
            if blob and (blob.size, blob.crc32c) == (entry.size, entry.crc32c):
                return entry.sha256
    return None


def entries(store: Store, progress: Progress) -> list[MirroredFile]:
    """Everything that the index names, sorted by file."""
    return _read_index(store, progress)[0].files


def named(store: Store, name: str, progress: Progress) -> list[MirroredFile]:
    """The files of this name that are whole, also without the hash that stands in front of a pushed one's name."""
    found = []
    for entry in entries(store, progress):
        if name in (entry.file, entry.file.partition("-")[2]):
            blob = store.get(layout.weights_key(entry.file))
            if blob and (blob.size, blob.crc32c) == (entry.size, entry.crc32c):
                found.append(entry)
    return found


def add(store: Store, path: Path, file: str, sha256: str, origin: str, progress: Progress) -> None:
    """Upload a file whose hash is known, then name it in the index."""
    blob = put(store, path, layout.weights_key(file), progress)
    _name(store, MirroredFile(file, sha256, blob.size, blob.crc32c, origin), progress)


def put(store: Store, path: Path, key: str, progress: Progress, *, tries: int = _TRIES) -> Blob:
    """Make `key` hold this file: uploaded, unless it is there already; another content is replaced."""
    size, crc32c = path.stat().st_size, _crc32c(path)
    there = store.get(key)
    if there and (there.size, there.crc32c) == (size, crc32c):
        return there
    progress.say("weights", f"{path.name} ({size / 1e6:.1f} MB) goes into the store")
    try:
        return store.upload(path, key, if_generation=there.generation if there else 0)
    except ConflictError:  # somebody else uploads the same file at this moment
        if tries == 1:
            raise
        return put(store, path, key, progress, tries=tries - 1)


def _name(store: Store, entry: MirroredFile, progress: Progress, *, tries: int = _TRIES) -> None:
    index, generation = _read_index(store, progress)
    if entry in index.files:
        return
    files = [other for other in index.files if other.file != entry.file] + [entry]
    changed = dataclasses.replace(index, files=sorted(files, key=lambda one: one.file))
    try:
        write_document(store, layout.WEIGHTS_INDEX, document.encode(changed), if_generation=generation)
    except ConflictError:  # somebody else's file was added meanwhile: keep both
        if tries == 1:
            raise
        _name(store, entry, progress, tries=tries - 1)


def _read_index(store: Store, progress: Progress) -> tuple[MirrorIndex, int]:
    """The index and its generation; an empty one with 0 where there is none.

    The generation is read first: content that changes in between makes the later write fail, not get lost.
    """
    blob = store.get(layout.WEIGHTS_INDEX)
    if blob is None:
        return MirrorIndex([]), 0
    if blob.size <= _INDEX_BYTES_MAX:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "index.json")
            store.download(layout.WEIGHTS_INDEX, path)
            try:
                return document.decode(
                    MirrorIndex, path.read_bytes(), what=layout.WEIGHTS_INDEX
                ), blob.generation
            except document.ContractError as error:
                progress.warn(f"{error}: it is written anew")
    return MirrorIndex([]), blob.generation


def _crc32c(path: Path) -> str:
    checksum = 0
    with path.open("rb") as file:
        while chunk := file.read(1024 * 1024):
            checksum = google_crc32c.extend(checksum, chunk)
    return base64.b64encode(checksum.to_bytes(4, "big")).decode("ascii")
