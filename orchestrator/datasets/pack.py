"""Packs: plain reproducible tar files of about 64 MiB, each named by the hash of its bytes.

Members are `<sha256>.<extension>`, sorted, of time 0, owner 0 and mode 0644: the same images give the same bytes,
wherever they lay. The headers are written here because tarfile's bytes differ between versions of Python.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from . import names
from .check import Checked
from .judge import Unusable
from .names import SetAside
from .reading import Missed, read

PACK_BYTES = 64 * 1024**2
_BLOCK = 512
_END = bytes(2 * _BLOCK)


@dataclass(frozen=True)
class Pack:
    """A pack on this computer's disk."""

    sha256: str
    path: Path
    size: int  # bytes
    offsets: dict[str, int]  # of each member's first byte, by content hash


def groups(images: Sequence[Checked], limit: int = PACK_BYTES) -> list[list[Checked]]:
    """Which images share a pack: neighbours, each content once, up to `limit` bytes."""
    grouped: list[list[Checked]] = []
    room = 0
    first: dict[str, Checked] = {}
    for image in images:
        first.setdefault(image.verdict.sha256, image)
    for image in first.values():
        size = _BLOCK + _padded(image.file.size)
        if not grouped or size > room:
            grouped.append([])
            room = limit - len(_END)
        grouped[-1].append(image)
        room -= size
    return grouped


def write(images: Sequence[Checked], root: Path, folder: Path) -> tuple[Pack | None, list[SetAside]]:
    """Write a pack into `folder`; also the files that vanished or changed since they were checked.

    No pack when none is left. OSError when it can't be written.
    """
    beside = folder / "pack.part"
    offsets, digest, missed = _write(images, os.fsencode(root), beside)
    if not offsets:
        beside.unlink()
        return None, missed
    path = beside.replace(folder / f"{digest}.tar")
    return Pack(digest, path, path.stat().st_size, offsets), missed


def _write(images: Sequence[Checked], root: bytes, path: Path) -> tuple[dict[str, int], str, list[SetAside]]:
    offsets: dict[str, int] = {}
    missed: list[SetAside] = []
    digest = hashlib.sha256()
    position = 0
    with path.open("wb") as file:
        for image, data in _read_all(images, root, missed):
            offsets[image.verdict.sha256] = position + _BLOCK
            for part in (header(_member(image), len(data)), data, bytes(_padded(len(data)) - len(data))):
                file.write(part)
                digest.update(part)
                position += len(part)
        file.write(_END)
        digest.update(_END)
    return offsets, digest.hexdigest(), missed


def _read_all(
    images: Sequence[Checked], root: bytes, missed: list[SetAside]
) -> Iterator[tuple[Checked, bytes]]:
    for image in sorted(images, key=lambda image: image.verdict.sha256):
        data = read(root, image.file)
        if isinstance(data, Missed | Unusable):
            missed.append(SetAside(names.encode(image.file.path), data.reason))
        elif hashlib.sha256(data).hexdigest() != image.verdict.sha256:
            missed.append(SetAside(names.encode(image.file.path), "it changed meanwhile"))
        else:
            yield image, data


def _member(image: Checked) -> str:
    return f"{image.verdict.sha256}.{image.verdict.extension}"


def _padded(size: int) -> int:
    return -(-size // _BLOCK) * _BLOCK


def header(name: str, size: int) -> bytes:
    """The 512 bytes before a member, POSIX 1003.1-1988 "ustar". `name` is at most 100 bytes, `size` below 8 GiB."""
    start = b"%-100s0000644\x000000000\x000000000\x00%011o\x00%011o\x00" % (_field(name, 100), size, 0)
    end = b"0" + bytes(100) + b"ustar\x0000" + bytes(64) + b"0000000\x00" * 2 + bytes(155 + 12)
    checksum = sum(start) + 8 * ord(" ") + sum(end)
    return start + b"%06o\x00 " % checksum + end


def _field(text: str, width: int) -> bytes:
    return text.encode("ascii").ljust(width, b"\x00")
