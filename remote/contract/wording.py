"""Numbers with their nouns, sizes, times and long lists, as both halves write them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")


def count(number: int, one: str, many: str = "") -> str:
    """ "1 image", "900 images"."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def listed(items: Sequence[T], most: int, say: Callable[[T], str] = str) -> str:
    """ "ants, bees and 3 more": at most so many, in the words of `say`, and how many are left."""
    left = len(items) - most
    return ", ".join(map(say, items[:most])) + (f" and {left} more" if left > 0 else "")


def listed_in_lines(items: Sequence[T], most: int, say: Callable[[T], str] = str) -> str:
    """The same, each in a line of its own."""
    left = len(items) - most
    return "\n".join([*map(say, items[:most]), *([f"and {left} more"] if left > 0 else [])])


def size(count: float) -> str:
    """Bytes as people say them: "68 MB"."""
    if count < 1000:
        return f"{count:.0f} B"
    for unit in ("kB", "MB", "GB"):
        count /= 1000
        if count < 999.5:
            return f"{count:.1f} {unit}" if count < 9.95 else f"{count:.0f} {unit}"
    return f"{count / 1000:.1f} TB"


def duration(seconds: float) -> str:
    """ "0.4 s", "41 s", "1 min 31 s", "3 h 58 min", "6 d 4 h"."""
    if not math.isfinite(seconds):
        return "?"
    if seconds < 9.95:
        return f"{max(seconds, 0):.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s" if whole % 60 else f"{whole // 60} min"
    if whole < 48 * 3600:
        return f"{whole // 3600} h {whole % 3600 // 60} min" if whole % 3600 // 60 else f"{whole // 3600} h"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"
