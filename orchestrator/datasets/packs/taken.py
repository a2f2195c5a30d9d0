"""Contents that an upload has packed, of which there may be a million."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_NEWEST_MAX = 50_000


class Taken:
    """Told apart by how their hashes begin: of two that begin alike `plan` would find one unpacked.

    In a set they would take ten times the memory, so only the newest are in one.
    """

    def __init__(self, newest_max: int = _NEWEST_MAX) -> None:
        self._sorted: NDArray[np.uint64] = np.empty(0, dtype=np.uint64)
        self._newest: set[int] = set()
        self._newest_max = newest_max

    def take(self, beginnings: NDArray[np.uint64], wanted: NDArray[np.bool_]) -> list[bool]:
        """Which of these are wanted and were not taken before. They are taken now."""
        if len(self._newest) >= self._newest_max:
            newest = np.fromiter(self._newest, dtype=np.uint64, count=len(self._newest))
            self._newest.clear()
            self._sorted = np.concatenate([self._sorted, np.sort(newest)])
            self._sorted.sort(kind="stable")  # which is quick on two runs
        wanted = wanted & ~self._is_sorted(beginnings)
        both = zip(beginnings.tolist(), wanted.tolist(), strict=True)
        return [is_wanted and self._is_new(beginning) for beginning, is_wanted in both]

    def _is_sorted(self, beginnings: NDArray[np.uint64]) -> NDArray[np.bool_]:
        if not len(self._sorted):
            return np.zeros(len(beginnings), dtype=bool)
        at = np.minimum(np.searchsorted(self._sorted, beginnings), len(self._sorted) - 1)
        return np.equal(self._sorted[at], beginnings)

    def _is_new(self, beginning: int) -> bool:
        if beginning in self._newest:
            return False
        self._newest.add(beginning)
        return True
