"""The columns in which rows are kept, of which there may be a million.

As objects, a million rows of the smallest of our tables take 300 MB, in columns 70. How they keep values:

    Numbers     whole numbers, 8 bytes each
    Words       values of any kind, each that occurs once, and 1, 2 or 4 bytes a row
    Hashes      sha256 as hexadecimal text, 32 bytes each
    Blobs       bytes of any length behind each other
    Texts       the same of text

`array` and `table` show a column to numpy, without a copy: what is shown does not grow any more, Python refuses.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

C = TypeVar("C", bound="Column")
K = TypeVar("K", bytes, str)
Indices = NDArray[np.int64]
AT_ONCE = 4096  # rows


class Column(Protocol):
    """The values of one field."""

    def __len__(self) -> int: ...
    def __getitem__(self, at: int) -> Any: ...
    def __iter__(self) -> Iterator[Any]: ...
    def extend(self, values: Sequence[Any]) -> None: ...
    def take(self, at: Indices) -> Column:
        """A column of these rows."""

    def joined(self, other: Any) -> Column:
        """With the rows of another one behind."""

    def kept(self) -> tuple[Any, ...]:
        """What `marshal` writes of it, and `again` takes as bytes."""

    @classmethod
    def again(cls, *kept: Any) -> Column: ...


def laid_over(below: C, above: C, at: Indices) -> C:
    """Of each row the value `above` has at that place; where it has none (-1), the one `below` has."""
    if not (at >= 0).any():
        return below
    rows = np.where(at >= 0, at + len(below), np.arange(len(below)))
    return cast(C, below.joined(above).take(rows))


def matched(keys: Iterable[K], others: Iterable[K]) -> Indices:
    """For each key the place of the same among the others, -1 where there is none. Both are sorted."""
    found = array("q")
    places = enumerate(others)
    at, other = next(places, (-1, None))
    for key in keys:
        while other is not None and other < key:
            at, other = next(places, (-1, None))
        found.append(at if other == key else -1)
    return np.asarray(found)
