"""Packs: plain reproducible tar files of about 64 MiB, each named by the hash of its bytes.

Members are `<sha256>.<extension>`, sorted, of time 0, owner 0 and mode 0644: the same images give the same bytes,
wherever they lay.
"""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from io import FileIO
from itertools import accumulate
from pathlib import Path

import google_crc32c
import numpy as np

from orchestrator.datasets.checks.checked import Checked
from orchestrator.datasets.checks.convert import AS_IT_IS, Conversion, prepared
from orchestrator.datasets.checks.judge import Unusable
from orchestrator.datasets.columns.hashes import Hashes
from orchestrator.datasets.columns.numbers import Numbers
from orchestrator.datasets.columns.places import LOCATED, Located
from orchestrator.datasets.columns.rows import Rows
from orchestrator.datasets.columns.words import Words
from orchestrator.datasets.folder import names
from orchestrator.datasets.folder.names import SetAside
from orchestrator.datasets.folder.reading import Missed, read
from orchestrator.datasets.packs.member import HEADER_BYTES, Member, cost, laid

PACK_BYTES = 64 * 1024**2
_LEAST_BYTES = 8 * 1024**2
_PACKS_MIN = 4
_CHUNK_BYTES = 1024**2
_END = bytes(1024)


@dataclass(frozen=True)
class Pack:
    """A pack on this computer's disk."""

    sha256: str
    path: Path
    size: int  # bytes
    crc32c: str  # as stores spell it
    places: Rows[Located]  # of its members

    @property
    def offsets(self) -> dict[str, int]:
        """Of each member's first byte, by content hash."""
        return dict(self.places.tuples("sha256", "offset"))


Laid = tuple[bytes, bytes | memoryview]  # the hash of a member, 32 bytes, and the member as it lies in a pack


def room(limit: int) -> int:
    """For members, in a pack of at most `limit` bytes."""
    return limit - len(_END)


def limit_for(total: int, most: int = PACK_BYTES) -> int:
    """Bytes of a pack, of images that take so many: small datasets make several, which travel while others are made."""
    return min(most, max(_LEAST_BYTES, total // _PACKS_MIN))


def groups(images: Sequence[Checked], limit: int = PACK_BYTES) -> list[list[Checked]]:
    """Which images share a pack: neighbours, each content once, up to `limit` bytes."""
    grouped: list[list[Checked]] = []
    left = 0
    first: dict[str, Checked] = {}
    for image in images:
        first.setdefault(image.verdict.sha256, image)
    for image in first.values():
        size = cost(image.size)
        if not grouped or size > left:
            grouped.append([])
            left = room(limit)
        grouped[-1].append(image)
        left -= size
    return grouped


def write(
    images: Sequence[Checked], root: Path, folder: Path, conversion: Conversion = AS_IT_IS
) -> tuple[Pack | None, list[SetAside]]:
    """Write a pack into `folder`; also the files that vanished or changed since they were checked.

    No pack when none is left. OSError when it can't be written.
    """
    missed: list[SetAside] = []
    ordered = sorted(images, key=lambda image: image.verdict.sha256)
    written = write_members(_read_all(ordered, os.fsencode(root), missed, conversion), folder)
    if not len(written.places):
        written.path.unlink()
        return None, missed
    return written, missed


def write_members(members: Iterable[Member], folder: Path) -> Pack:
    """Write a pack into `folder`; members come sorted by hash. OSError when it can't be written."""
    return write_laid(((bytes.fromhex(member.sha256), b"".join(laid(member))) for member in members), folder)


def write_laid(members: Iterable[Laid], folder: Path) -> Pack:
    """The same of members that are as they will lie there."""
    hashes: list[bytes] = []
    sizes: list[int] = []
    digest, checksum = hashlib.sha256(), google_crc32c.Checksum()
    position = 0
    beside = folder / "pack.part"
    with beside.open("wb", buffering=0) as file:
        for chunk in _chunks(members, hashes, sizes):
            position += _write_all(file, digest, checksum, chunk)
        position += _write_all(file, digest, checksum, _END)
    name = digest.hexdigest()
    path = beside.replace(folder / f"{name}.tar")
    crc32c = base64.b64encode(checksum.digest()).decode()
    return Pack(name, path, position, crc32c, _places(name, hashes, sizes))


def _chunks(members: Iterable[Laid], hashes: list[bytes], sizes: list[int]) -> Iterator[bytes]:
    """What is written at once: hashing a large piece leaves the interpreter to other threads."""
    parts: list[bytes | memoryview] = []
    waiting = 0
    for sha256, part in members:
        hashes.append(sha256)
        sizes.append(len(part))
        parts.append(part)
        waiting += len(part)
        if waiting >= _CHUNK_BYTES:
            yield b"".join(parts)
            parts, waiting = [], 0
    if parts:
        yield b"".join(parts)


def _places(pack: str, hashes: Sequence[bytes], sizes: Sequence[int]) -> Rows[Located]:
    starts = list(accumulate(sizes, initial=0))[:-1]
    columns = {
        "sha256": Hashes.again(b"".join(hashes)),
        "pack": Words.repeated(pack, len(hashes)),
        "offset": Numbers.of(np.array(starts, dtype=np.int64) + HEADER_BYTES),
    }
    return Rows(LOCATED, columns)


def _write_all(file: FileIO, digest: hashlib._Hash, checksum: google_crc32c.Checksum, data: bytes) -> int:
    left = memoryview(data)
    while left:
        left = left[file.write(left) or 0 :]
    digest.update(data)
    checksum.update(data)
    return len(data)


def _read_all(
    images: Sequence[Checked], root: bytes, missed: list[SetAside], conversion: Conversion
) -> Iterator[Member]:
    for image in images:
        data = read(root, image.file)
        if isinstance(data, Missed | Unusable):
            missed.append(SetAside(names.encode(image.file.path), data.reason))
            continue
        if image.verdict.size:
            data, _ = prepared(data, conversion)
        if hashlib.sha256(data).hexdigest() != image.verdict.sha256:
            missed.append(SetAside(names.encode(image.file.path), "it changed meanwhile"))
        else:
            yield Member(image.verdict.sha256, image.verdict.extension, data)
