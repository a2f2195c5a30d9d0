"""Images as they lie in a pack: a header of 512 bytes, the content, zeros up to the next block of 512.

The headers are written here because tarfile's bytes differ between versions of Python. Worker processes make members,
so this module loads nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import accumulate
from typing import NamedTuple

HASH_BYTES = 32
HEADER_BYTES = 512
_BLOCK = 512
_OWNED = b"0000644\x000000000\x000000000\x00"  # mode, owner and group, after the name and before the size
_TIME = b"\x0000000000000\x00"  # after the size, and the end of that; the checksum follows
_HEADER_END = b"0" + bytes(100) + b"ustar\x0000" + bytes(64) + b"0000000\x00" * 2 + bytes(155 + 12)
# The checksum's own place is blank while it is summed.
_SUM = sum(_OWNED + _TIME + _HEADER_END) + 8 * ord(" ")


class Member(NamedTuple):
    """An image for a pack."""

    sha256: str
    extension: str
    data: bytes


class Members(NamedTuple):
    """Many behind each other, as they will lie in a pack: few objects, which go from process to process at no cost."""

    hashes: bytes  # sha256, 32 bytes each
    ends: list[int]  # of each in `data`
    data: bytes


def members(images: Iterable[Member]) -> Members:
    hashes: list[str] = []
    parts: list[bytes] = []
    sizes: list[int] = []
    for image in images:
        hashes.append(image.sha256)
        parts += laid(image)
        sizes.append(cost(len(image.data)))
    return Members(bytes.fromhex("".join(hashes)), list(accumulate(sizes)), b"".join(parts))


def laid(image: Member) -> tuple[bytes, bytes, bytes]:
    """Header, content, padding."""
    size = len(image.data)
    return header(f"{image.sha256}.{image.extension}", size), image.data, bytes(-size % _BLOCK)


def cost(size: int) -> int:
    """The bytes that a file of so many takes in a pack."""
    return HEADER_BYTES + size + -size % _BLOCK


def header(name: str, size: int) -> bytes:
    """The 512 bytes before a member, POSIX 1003.1-1988 "ustar". `name` is at most 100 bytes, `size` below 8 GiB."""
    field, length = name.encode("ascii"), b"%011o" % size
    checksum = b"%06o\x00 " % (sum(field) + sum(length) + _SUM)
    return field.ljust(100, b"\x00") + _OWNED + length + _TIME + checksum + _HEADER_END
