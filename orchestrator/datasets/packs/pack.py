"""Packs: plain reproducible tar files of about 64 MiB, each named by the hash of its bytes.

Members are `<sha256>.<extension>`, sorted, of time 0, owner 0 and mode 0644: the same images give the same bytes,
wherever they lay. The headers are written here because tarfile's bytes differ between versions of Python.
"""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import NamedTuple

import google_crc32c

from orchestrator.datasets.checks.checked import Checked
from orchestrator.datasets.checks.convert import AS_IT_IS, Conversion, prepared
from orchestrator.datasets.checks.judge import Unusable
from orchestrator.datasets.folder import names
from orchestrator.datasets.folder.names import SetAside
from orchestrator.datasets.folder.reading import Missed, read

PACK_BYTES = 64 * 1024**2
_LEAST_BYTES = 16 * 1024**2
_PACKS_MIN = 4
_BLOCK = 512
_CHUNK_BYTES = 1024**2
_END = bytes(2 * _BLOCK)
_HEADER_END = b"0" + bytes(100) + b"ustar\x0000" + bytes(64) + b"0000000\x00" * 2 + bytes(155 + 12)
_HEADER_END_SUM = sum(_HEADER_END) + 8 * ord(" ")  # while it is summed, the checksum's own place is blank


@dataclass(frozen=True)
class Pack:
    """A pack on this computer's disk."""

    sha256: str
    path: Path
    size: int  # bytes
    crc32c: str  # as stores spell it
    offsets: dict[str, int]  # of each member's first byte, by content hash


class Member(NamedTuple):
    """An image in a pack."""

    sha256: str
    extension: str
    data: bytes


def cost(size: int) -> int:
    """The bytes that a file of so many takes in a pack."""
    return _BLOCK + _padded(size)


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
    if not written.offsets:
        written.path.unlink()
        return None, missed
    return written, missed


def write_members(members: Iterable[Member], folder: Path) -> Pack:
    """Write a pack into `folder`; members come sorted by hash. OSError when it can't be written."""
    offsets: dict[str, int] = {}
    digest, checksum = hashlib.sha256(), google_crc32c.Checksum()
    position = 0
    beside = folder / "pack.part"
    with beside.open("wb", buffering=0) as file:
        for parts in _chunks(members, offsets):
            position += _write_all(file, digest, checksum, parts)
        position += _write_all(file, digest, checksum, _END)
    path = beside.replace(folder / f"{digest.hexdigest()}.tar")
    crc32c = base64.b64encode(checksum.digest()).decode()
    return Pack(digest.hexdigest(), path, position, crc32c, offsets)


def _chunks(members: Iterable[Member], offsets: dict[str, int]) -> Iterator[bytes]:
    """What is written at once: hashing a large piece leaves the interpreter to other threads."""
    parts: list[bytes] = []
    position = size = 0
    for member in members:
        length = len(member.data)
        offsets[member.sha256] = position + _BLOCK
        parts += (
            header(f"{member.sha256}.{member.extension}", length),
            member.data,
            bytes(_padded(length) - length),
        )
        position += cost(length)
        size += cost(length)
        if size >= _CHUNK_BYTES:
            yield b"".join(parts)
            parts, size = [], 0
    if parts:
        yield b"".join(parts)


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


def _padded(size: int) -> int:
    return -(-size // _BLOCK) * _BLOCK


def header(name: str, size: int) -> bytes:
    """The 512 bytes before a member, POSIX 1003.1-1988 "ustar". `name` is at most 100 bytes, `size` below 8 GiB."""
    start = b"%-100s0000644\x000000000\x000000000\x00%011o\x00%011o\x00" % (_field(name, 100), size, 0)
    return start + b"%06o\x00 " % (sum(start) + _HEADER_END_SUM) + _HEADER_END


def _field(text: str, width: int) -> bytes:
    return text.encode("ascii").ljust(width, b"\x00")
