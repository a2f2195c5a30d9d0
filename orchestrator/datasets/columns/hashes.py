"""A column of sha256, and finding rows by it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchestrator.datasets.columns.column import AT_ONCE, Indices

# 32 bytes each: compared and sorted as a whole; one alone loses zeros at its end.
Digests = NDArray[np.bytes_]
_HASH_BYTES = 32
_ROWS_AT_ONCE = 65_536


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


def ordered(hashes: Digests) -> Indices:
    """Their places in the order of the hashes, equal ones as they come."""
    keys = heads(hashes)
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    alike = np.flatnonzero(keys[1:] == keys[:-1])
    if (hashes[order[alike]] != hashes[order[alike + 1]]).any():
        return np.argsort(hashes, kind="stable")
    return order


def distinct(hashes: Digests) -> tuple[Digests, Indices, Indices]:
    """Each content once, sorted; where it comes first; and for each of `hashes` which of these it is."""
    order = ordered(hashes)
    sorted_ = hashes[order]
    is_new = np.append(np.ones(min(1, len(hashes)), dtype=bool), sorted_[1:] != sorted_[:-1])
    which = np.empty(len(hashes), dtype=np.int64)
    which[order] = np.cumsum(is_new) - 1
    if is_new.all():
        return sorted_, order, which
    return sorted_[is_new], order[is_new], which


def is_among(hashes: Digests, others: Digests) -> NDArray[np.bool_]:
    return Lookup(others).find(hashes) >= 0


class Lookup:
    """Finds contents by their hash."""

    def __init__(self, hashes: Digests) -> None:
        self._hashes = hashes
        contents, self.firsts, _ = distinct(hashes)
        keys = heads(contents)
        self._by_heads = bool((keys[1:] != keys[:-1]).all())
        self._keys = keys if self._by_heads else contents

    def find(self, hashes: Digests) -> Indices:
        """For each its place, the first one; -1 where there is none."""
        found = np.full(len(hashes), -1, dtype=np.int64)
        for part in parts(len(hashes) if len(self.firsts) else 0):
            some = hashes[part]
            keys = heads(some) if self._by_heads else some
            at = self.firsts[np.minimum(np.searchsorted(self._keys, keys), len(self.firsts) - 1)]
            found[part] = np.where(self._hashes[at] == some, at, -1)
        return found


def parts(count: int) -> Iterator[slice]:
    """Of so many rows: what is made on the way is small then."""
    return (slice(start, start + _ROWS_AT_ONCE) for start in range(0, count, _ROWS_AT_ONCE))


def heads(hashes: Digests) -> NDArray[np.uint64]:
    """The first 8 bytes as numbers, which are compared in a third of the time. They may be alike where the rest is not."""
    return np.ascontiguousarray(hashes).view(">u8")[:: _HASH_BYTES // 8].astype(np.uint64)
