"""A column of whole numbers."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from orchestrator.datasets.columns.column import Indices


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
