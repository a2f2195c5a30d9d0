"""Columns of bytes and of text, of any length."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from itertools import accumulate, chain, islice, starmap
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchestrator.datasets.columns.column import AT_ONCE, Indices


class Blobs:
    def __init__(self) -> None:
        self._bytes = bytearray()
        self._ends = array("q")

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, at: int) -> bytes:
        at = range(len(self._ends))[at]
        return bytes(self._bytes[self._ends[at - 1] if at else 0 : self._ends[at]])

    def __iter__(self) -> Iterator[bytes]:
        return chain.from_iterable(map(some.__getitem__, places) for some, places in self.some())

    def some(self) -> Iterator[tuple[bytes, Iterator[slice]]]:
        """Many rows behind each other, and the place of each in these."""
        start = 0
        for first in range(0, len(self._ends), AT_ONCE):
            ends = (np.asarray(self._ends)[first : first + AT_ONCE] - start).tolist()
            yield bytes(self._bytes[start : start + ends[-1]]), map(slice, chain((0,), ends), ends)
            start += ends[-1]

    def extend(self, values: Sequence[bytes]) -> None:
        ends = accumulate(map(len, values), initial=len(self._bytes))
        self._ends.extend(islice(ends, 1, None))
        self._bytes += b"".join(values)

    def table(self, width: int) -> NDArray[np.uint8]:
        """A line each, of rows that are all of that width."""
        return np.frombuffer(self._bytes, dtype=np.uint8).reshape(-1, width)

    def whole(self) -> bytes:
        """All behind each other."""
        return bytes(self._bytes)

    def take(self, at: Indices) -> Blobs:
        ends = np.asarray(self._ends)
        starts = np.where(at > 0, ends[at - 1], 0)
        sizes = ends[at] - starts
        whole = np.frombuffer(self._bytes, dtype=np.uint8)
        found = Blobs()
        for first in range(0, len(at), AT_ONCE):
            some = sizes[first : first + AT_ONCE]
            shift = np.repeat(starts[first : first + AT_ONCE] - (np.cumsum(some) - some), some)
            found._bytes += whole[shift + np.arange(len(shift))].data
        found._ends.frombytes(np.cumsum(sizes).tobytes())
        return found

    def joined(self, other: Blobs) -> Blobs:
        ends = np.concatenate([np.asarray(self._ends), np.asarray(other._ends) + len(self._bytes)])
        return Blobs.again(self._bytes + other._bytes, ends.tobytes())

    def kept(self) -> tuple[Any, ...]:
        return self._bytes, self._ends

    @classmethod
    def again(cls, *kept: Any) -> Blobs:
        found = cls()
        found._bytes += kept[0]
        found._ends.frombytes(kept[1])
        return found


class Texts:
    def __init__(self) -> None:
        self._blobs = Blobs()

    def __len__(self) -> int:
        return len(self._blobs)

    def __getitem__(self, at: int) -> str:
        return _text(self._blobs[at])

    def __iter__(self) -> Iterator[str]:
        return chain.from_iterable(starmap(_texts, self._blobs.some()))

    def encoded(self) -> Blobs:
        """Sorted as the texts are."""
        return self._blobs

    def extend(self, values: Sequence[str]) -> None:
        self._blobs.extend([value.encode("utf-8", "surrogatepass") for value in values])

    def take(self, at: Indices) -> Texts:
        return Texts.of(self._blobs.take(at))

    def joined(self, other: Texts) -> Texts:
        return Texts.of(self._blobs.joined(other._blobs))

    def kept(self) -> tuple[Any, ...]:
        return self._blobs.kept()

    @classmethod
    def again(cls, *kept: Any) -> Texts:
        return cls.of(Blobs.again(*kept))

    @classmethod
    def of(cls, blobs: Blobs) -> Texts:
        """Of bytes that are UTF-8."""
        found = cls()
        found._blobs = blobs
        return found


def _texts(data: bytes, places: Iterator[slice]) -> Iterator[str]:
    if data.isascii():
        return map(data.decode().__getitem__, places)
    return map(_text, map(data.__getitem__, places))


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogatepass")
