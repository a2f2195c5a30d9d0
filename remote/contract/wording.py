"""Numbers with their nouns, as both halves write them."""

from __future__ import annotations


def count(number: int, one: str, many: str = "") -> str:
    """ "1 image", "900 images"."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"
