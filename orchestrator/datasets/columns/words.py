"""A column of values that occur again and again: each is kept once, and a code for each row.

A code has one byte, two where there are more than 256 values, and four where there are more than 65,536.
"""

from __future__ import annotations

from array import array
from collections.abc import Hashable, Iterable, Iterator, Sequence
from itertools import islice, repeat
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchestrator.datasets.columns.column import Indices


class Words:
    def __init__(self, words: Iterable[Hashable] = ()) -> None:
        self._code_of = _Coded({word: code for code, word in enumerate(words)})
        self.words: list[Any] = list(self._code_of)
        self._codes = array(_type_for(len(self.words)))

    def __len__(self) -> int:
        return len(self._codes)

    def __getitem__(self, at: int) -> Any:
        return self.words[self._codes[at]]

    def __iter__(self) -> Iterator[Any]:
        if len(self.words) == 1:
            return repeat(self.words[0], len(self))
        return map(self.words.__getitem__, self._codes)

    def extend(self, values: Sequence[Any]) -> None:
        codes = list(map(self._code_of.__getitem__, values))
        self.words += islice(self._code_of, len(self.words), None)
        if self._codes.typecode != (wider := _type_for(len(self.words))):
            self._codes = array(wider, self._codes)
        self._codes.extend(codes)

    def array(self) -> NDArray[np.int32]:
        return np.asarray(self._codes).astype(np.int32, copy=False)

    def take(self, at: Indices) -> Words:
        return Words.of(np.asarray(self._codes)[at], self.words)

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
        return cls.of(np.zeros(count, dtype=np.uint8), [word])

    @classmethod
    def of(cls, codes: NDArray[Any], words: Sequence[Hashable]) -> Words:
        """`words` holds none twice."""
        return cls.again(codes.astype(_type_for(len(words)), copy=False).tobytes(), words)


def _type_for(words: int) -> str:
    """Of `array`, and of numpy."""
    return "B" if words <= 1 << 8 else "H" if words <= 1 << 16 else "i"


class _Coded(dict[Any, int]):
    """The code of a word; a new word gets the next one."""

    def __missing__(self, word: Any) -> int:
        self[word] = len(self)
        return len(self) - 1
