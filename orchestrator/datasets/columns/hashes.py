"""A column of sha256, and finding rows by it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchestrator.datasets.columns.column import AT_ONCE, Indices

Digests = NDArray[
    np.bytes_
]  # 32 bytes each: compared and sorted as a whole; one alone loses zeros at its end
_HASH_BYTES = 32


class Hashes:
    def __init__(self) -> None:
        self._bytes = bytearray()

    def __len__(self) -> int:
        return len(self._bytes) // _HASH_BYTES

    def __getitem__(self, at: int) -> str:
        start = range(len(self))[at] * _HASH_BYTES
        return self._bytes[start : start + _HASH_BYTES].hex()

    def __iter__(self) -> Iterator[str]:
        step = 2 * _HASH_BYTES
        for first in range(0, len(self._bytes), AT_ONCE * _HASH_BYTES):
            text = self._bytes[first : first + AT_ONCE * _HASH_BYTES].hex()
            yield from [text[start : start + step] for start in range(0, len(text), step)]

    def extend(self, values: Sequence[str]) -> None:
        self._bytes += bytes.fromhex("".join(values))

    def array(self) -> Digests:
        return np.frombuffer(self._bytes, dtype=f"S{_HASH_BYTES}")

    def take(self, at: Indices) -> Hashes:
        return Hashes.of(self.array()[at])

    def joined(self, other: Hashes) -> Hashes:
        return Hashes.again(self._bytes + other._bytes)

    def kept(self) -> tuple[Any, ...]:
        return (self._bytes,)

    @classmethod
    def again(cls, *kept: Any) -> Hashes:
        found = cls()
        found._bytes += kept[0]
        return found

    @classmethod
    def of(cls, digests: Digests) -> Hashes:
        return cls.again(digests.tobytes())


def digests(hashes: Iterable[str]) -> Digests:
    """As numpy has them."""
    found = Hashes()
    found.extend(list(hashes))
    return found.array()


class Lookup:
    """Finds contents by their hash."""

    def __init__(self, hashes: Digests) -> None:
        self._sorted, self.firsts = np.unique(hashes, return_index=True)

    def find(self, hashes: Digests) -> Indices:
        """For each its place, the first one; -1 where there is none."""
        if not len(self._sorted):
            return np.full(len(hashes), -1, dtype=np.int64)
        at = np.minimum(np.searchsorted(self._sorted, hashes), len(self._sorted) - 1)
        return np.where(self._sorted[at] == hashes, self.firsts[at], -1)
