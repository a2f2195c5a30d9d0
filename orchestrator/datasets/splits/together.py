"""What belongs on one side of a split: the images of a patient, a slide or a video, and near copies.

Each set is named after the smallest content hash in it, never after what the user calls it: names of patients stay on
this computer, and two computers name the same set alike. (Names of files do travel: they are the images' paths.)
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from itertools import compress

import numpy as np
from numpy.typing import NDArray

from orchestrator.datasets.checks.near import Near
from orchestrator.datasets.columns.column import Indices
from orchestrator.datasets.columns.hashes import Digests, Hashes, digests, distinct, is_among, parts

GROUPED = "g"  # a label that begins so was asked for; NEAR: it holds near copies only
NEAR = "n"
_DIGITS = 12


def sets(hashes: Digests, groups: Sequence[str | None], near: Near) -> list[str | None]:
    """The label of the set that each image is in, None for those that are in none.

    hashes          of the images' contents
    groups          of the images, as the user calls them
    """
    if not near.pairs and not len(near.same) and not any(group is not None for group in groups):
        return [None] * len(groups)
    contents, _, images = distinct(hashes)
    ends = digests(sha256 for pair in near.confirmed() for sha256 in (pair.one, pair.other))
    needed = np.concatenate([near.same.standing, ends])
    elsewhere = needed[~is_among(needed, contents)]  # what stands for some is gone meanwhile
    every = np.union1d(contents, elsewhere) if len(elsewhere) else contents
    joined = _Joined(len(every))
    for part in parts(len(contents)):
        some = contents[part]
        joined.begin(np.searchsorted(every, some), np.searchsorted(every, near.same.of(some)))
    images = np.searchsorted(every, contents)[images] if len(elsewhere) else images
    links = np.searchsorted(every, ends).tolist()
    for one, other in zip(links[::2], links[1::2], strict=True):
        joined.join(one, other)
    grouped = np.array([group is not None for group in groups], dtype=bool)
    first_of: dict[str | None, int] = {}
    for content, group in zip(images[grouped].tolist(), compress(groups, grouped), strict=True):
        joined.join(content, first_of.setdefault(group, content))
    return _named(joined.roots()[images], images, every, grouped)


def _named(roots: Indices, images: Indices, every: Digests, grouped: NDArray[np.bool_]) -> list[str | None]:
    """One label for all images of a root, if that was asked for, or if they are of two contents at least."""
    order = np.lexsort((images, roots))
    starts = np.flatnonzero(np.diff(roots[order], prepend=-1))
    least = images[order[starts]]
    most = np.maximum.reduceat(images[order], starts)
    asked = np.logical_or.reduceat(grouped[order], starts)
    names = Hashes.of(every)
    labels: dict[int, str] = {}
    for at in np.flatnonzero(asked | (least != most)).tolist():
        digest = hashlib.sha256(b"tlvm group 1 " + names[int(least[at])].encode()).hexdigest()
        labels[int(roots[order[starts[at]]])] = (GROUPED if asked[at] else NEAR) + digest[:_DIGITS]
    return [labels.get(root) for part in parts(len(roots)) for root in roots[part].tolist()]


class _Joined:
    """Sets of numbers that grow together (union-find). The smallest one is the root of each."""

    def __init__(self, count: int) -> None:
        self._above = np.arange(count)

    def begin(self, items: Indices, above: Indices) -> None:
        """Nothing was joined yet, and what is above has nothing above it."""
        self._above[items] = above

    def join(self, one: int, other: int) -> None:
        first, second = sorted((self._root(one), self._root(other)))
        self._above[second] = first

    def roots(self) -> Indices:
        above = self._above
        while not np.array_equal(further := above[above], above):
            above = further
        return above

    def _root(self, item: int) -> int:
        while (above := int(self._above[item])) != item:
            self._above[item] = self._above[above]
            item = above
        return item
