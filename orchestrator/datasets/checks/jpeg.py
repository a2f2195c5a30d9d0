"""JPEG, which most photos are: what a file says of itself, and its greys no larger than a fingerprint needs them.

libjpeg reads and decodes all coded data of a picture, however small and in which colours it is wanted. So a file that
is cut or damaged is found as when all of it is decoded, in about half the time: what is saved is the way from
frequencies to pixels. `plain` understands the files that hold nothing unusual, which Pillow's own reader takes as long
to open as to decode where they are small.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import NamedTuple

from PIL import Image

# Pixels of the shorter side that are enough; greys have up to twice as many, more where 1/8 is larger.
FINE = 64
_START = b"\xff\xd8\xff"
_SCALES = (8, 4, 2, 1)  # that libjpeg makes at once
_FRAMES = (0xC0, 0xC1, 0xC2)  # baseline, extended, progressive; 8 bits a value
_APP0, _APP14, _APP15, _COMMENT, _SCAN = 0xE0, 0xEE, 0xEF, 0xFE, 0xDA
_UNREMARKABLE = (0xDB, 0xC4, 0xDD, _COMMENT, _SCAN)  # tables of numbers and of codes, the restart interval
_MODES = {1: "L", 3: "RGB"}


class Plain(NamedTuple):
    """A file that shows one upright picture, grey or in colours, and tells nothing else that matters."""

    size: tuple[int, int]  # width and height, pixels
    mode: str  # as Pillow opens it
    coded: int  # checksum of all that the pixels follow from


def plain(data: bytes) -> Plain | None:
    """None where Pillow should look: another format, metadata, what is unusual or damaged."""
    segments = _segments(data)
    frame = b""
    for marker, start, end in segments:
        if marker in _FRAMES:
            if frame:
                return None
            frame = data[start:end]
        elif marker == _APP0:
            if data[start : start + 4] == b"JFIF" and end - start < 12:
                return None
        elif marker not in _UNREMARKABLE:
            return None
    if len(frame) < 6 or frame[0] != 8:
        return None
    size = (int.from_bytes(frame[3:5], "big"), int.from_bytes(frame[1:3], "big"))
    mode = _MODES.get(frame[5])
    if mode is None or 0 in size or len(frame) != 6 + 3 * frame[5]:
        return None
    return Plain(size, mode, _checksum(data, segments))


def checksum(data: bytes) -> int | None:
    """Of all that the pixels follow from: metadata and comments before the first scan do not count.

    None where it is not sure what that is.
    """
    segments = _segments(data)
    return _checksum(data, segments) if segments else None


def _checksum(data: bytes, segments: Sequence[tuple[int, int, int]]) -> int:
    tables = [data[start - 4 : end] for marker, start, end in segments[:-1] if not _is_said(marker)]
    return zlib.crc32(memoryview(data)[segments[-1][1] :], zlib.crc32(b"".join(tables)))


def _is_said(marker: int) -> bool:
    """Metadata, but for Adobe's, which says how colours are meant."""
    return marker == _COMMENT or (_APP0 <= marker <= _APP15 and marker != _APP14)


def greys(data: bytes, found: Plain) -> Image.Image | None:
    """The picture's brightness, `FINE` pixels or more; None where not all of it can be decoded."""
    width, height = found.size
    scale = next(scale for scale in _SCALES if min(width, height) // FINE >= scale or scale == 1)
    small = (-(-width // scale), -(-height // scale))
    try:
        return Image.frombytes("L", small, data, "jpeg", "L", "", scale, 0)
    except (ValueError, OSError, MemoryError):
        return None


def _segments(data: bytes) -> list[tuple[int, int, int]]:
    """Marker, start and end of the content of each segment up to the first scan's head; empty where one is amiss."""
    if not data.startswith(_START):
        return []
    found = []
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        end = at + 2 + (data[at + 2] << 8 | data[at + 3])
        if end < at + 4 or end > len(data):
            return []
        found.append((marker, at + 4, end))
        if marker == _SCAN:
            return found
        at = end
    return []
