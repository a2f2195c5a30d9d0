"""What belongs on one side of a split: the images of a patient, a slide or a video, and near copies.

Each set is named after the smallest content hash in it, never after what the user calls it: names of patients stay on
this computer, and two computers name the same set alike. (Names of files do travel: they are the images' paths.)
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable

from .near import Near

GROUPED = "g"  # a label that begins so was asked for; NEAR: it holds near copies only
NEAR = "n"
_DIGITS = 12


def sets(images: Iterable[tuple[str, str | None]], near: Near) -> dict[str, str]:
    """The label of the set that a content is in, for those that are in one.

    images          content hash, and group as the user calls it
    """
    joined = _Joined()
    contents: set[str] = set()
    grouped: set[str] = set()
    first_of: dict[str, str] = {}
    for sha256, group in images:
        contents.add(sha256)
        if group is not None:
            grouped.add(sha256)
            joined.join(sha256, first_of.setdefault(group, sha256))
    for pair in near.confirmed():
        joined.join(pair.one, pair.other)
    for sha256, first in near.same.items():
        joined.join(sha256, first)
    return _named(joined, contents, grouped)


def _named(joined: _Joined, contents: set[str], grouped: set[str]) -> dict[str, str]:
    members: dict[str, list[str]] = defaultdict(list)
    for sha256 in contents & joined.items():
        members[joined.root(sha256)].append(sha256)
    labels: dict[str, str] = {}
    for together in members.values():
        was_asked = not grouped.isdisjoint(together)
        if was_asked or len(together) > 1:
            digest = hashlib.sha256(b"tlvm group 1 " + min(together).encode()).hexdigest()
            labels |= dict.fromkeys(together, (GROUPED if was_asked else NEAR) + digest[:_DIGITS])
    return labels


class _Joined:
    """Sets that grow together (union-find)."""

    def __init__(self) -> None:
        self._above: dict[str, str] = {}

    def items(self) -> set[str]:
        """That were joined with something, if only with themselves."""
        return {*self._above.keys(), *self._above.values()}

    def root(self, item: str) -> str:
        while (above := self._above.get(item, item)) != item:
            self._above[item] = self._above.get(above, above)
            item = above
        return item

    def join(self, one: str, other: str) -> None:
        first, second = sorted((self.root(one), self.root(other)))
        self._above[second] = first
