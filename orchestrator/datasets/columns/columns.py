"""The columns in which rows are kept, of which there may be a million.

As objects, a million rows of the smallest of our tables take 300 MB, in columns 70. How they keep values:

    Numbers     whole numbers, 8 bytes each
    Words       values of any kind, each that occurs once, and 4 bytes a row
    Hashes      sha256 as hexadecimal text, 32 bytes each
    Blobs       bytes of any length behind each other
    Texts       the same of text

`array` and `table` show a column to numpy, without a copy: what is shown does not grow any more, Python refuses.
"""

from __future__ import annotations

from array import array
from collections.abc import Hashable, Iterable, Iterator, Sequence
from itertools import accumulate, chain, islice, starmap
from typing import Any, Protocol, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

C = TypeVar("C", bound="Column")
K = TypeVar("K", bytes, str)
Indices = NDArray[np.int64]
Digests = NDArray[
    np.bytes_
]  # 32 bytes each: compared and sorted as a whole; one alone loses zeros at its end
_HASH_BYTES = 32
_AT_ONCE = 4096  # rows


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


class Numbers:
    def __init__(self) -> None:
        self._values = array("q")

    def __len__(self) -> int:
        return len(self._values)

    def __getitem__(self, at: int) -> int:
        return self._values[at]

    def __iter__(self) -> Iterator[int]:
        return iter(self._values)

    def extend(self, values: Sequence[int]) -> None:
        self._values.extend(values)

    def array(self) -> Indices:
        return np.asarray(self._values)

    def take(self, at: Indices) -> Numbers:
        return Numbers.of(self.array()[at])

    def joined(self, other: Numbers) -> Numbers:
        return Numbers.of(np.concatenate([self.array(), other.array()]))

    def kept(self) -> tuple[Any, ...]:
        return (self._values,)

    @classmethod
    def again(cls, *kept: Any) -> Numbers:
        found = cls()
        found._values.frombytes(kept[0])
        return found

    @classmethod
    def of(cls, values: Indices) -> Numbers:
        return cls.again(values.astype(np.int64, copy=False).tobytes())


class Words:
    def __init__(self, words: Iterable[Hashable] = ()) -> None:
        self._codes = array("i")
        self._code_of = _Coded({word: code for code, word in enumerate(words)})
        self.words: list[Any] = list(self._code_of)

    def __len__(self) -> int:
        return len(self._codes)

    def __getitem__(self, at: int) -> Any:
        return self.words[self._codes[at]]

    def __iter__(self) -> Iterator[Any]:
        return map(self.words.__getitem__, self._codes)

    def extend(self, values: Sequence[Any]) -> None:
        self._codes.extend(map(self._code_of.__getitem__, values))
        self.words += islice(self._code_of, len(self.words), None)

    def array(self) -> NDArray[np.int32]:
        return np.asarray(self._codes)

    def take(self, at: Indices) -> Words:
        return Words.of(self.array()[at], self.words)

    def joined(self, other: Words) -> Words:
        found = Words(self.words)
        codes = np.array([found._code_of[word] for word in other.words], dtype=np.int32)
        return Words.of(np.concatenate([self.array(), codes[other.array()]]), list(found._code_of))

    def kept(self) -> tuple[Any, ...]:
        return self._codes, self.words

    @classmethod
    def again(cls, *kept: Any) -> Words:
        codes, words = kept
        found = cls(words)
        found._codes.frombytes(codes)
        return found

    @classmethod
    def of_values(cls, values: Sequence[Hashable]) -> Words:
        found = cls()
        found.extend(values)
        return found

    @classmethod
    def repeated(cls, word: Hashable, count: int) -> Words:
        return cls.of(np.zeros(count, dtype=np.int32), [word])

    @classmethod
    def of(cls, codes: NDArray[Any], words: Sequence[Hashable]) -> Words:
        """`words` holds none twice."""
        return cls.again(codes.astype(np.int32, copy=False).tobytes(), words)


class _Coded(dict[Any, int]):
    """The code of a word; a new word gets the next one."""

    def __missing__(self, word: Any) -> int:
        self[word] = len(self)
        return len(self) - 1


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
        for first in range(0, len(self._bytes), _AT_ONCE * _HASH_BYTES):
            text = self._bytes[first : first + _AT_ONCE * _HASH_BYTES].hex()
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
        for first in range(0, len(self._ends), _AT_ONCE):
            ends = (np.asarray(self._ends)[first : first + _AT_ONCE] - start).tolist()
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
        for first in range(0, len(at), _AT_ONCE):
            some = sizes[first : first + _AT_ONCE]
            shift = np.repeat(starts[first : first + _AT_ONCE] - (np.cumsum(some) - some), some)
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
