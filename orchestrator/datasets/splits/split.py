"""Which image is for training and which for measuring.

* Folders `train` and `val` (and `test`) are taken as they are.
* Without split folders, a fifth of each class becomes `val`.
* With `train` alone, or `train` and `test`, a fifth of each class of `train` becomes `val`: every dataset has images
  that may steer a training, and a `test` that was given is never touched for that.

The fifth is chosen by a hash of the content, class by class, so equal images stay on one side. Sets (a patient, near
copies) go to one side as a whole, keyed by their smallest hash. What an earlier version decided stays as it was when
images are added or renamed; near copies that a new image joins stay where they were, and `findings` leaves those of
`train` out.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from orchestrator.datasets.checks.checked import Checked, Images
from orchestrator.datasets.columns.column import Indices
from orchestrator.datasets.columns.hashes import Digests, Hashes, Lookup, digests, distinct, ordered
from orchestrator.datasets.columns.words import Words
from orchestrator.datasets.splits.together import NEAR
from remote.contract.dataset_manifest import Split

VAL_SHARE = 0.2
_NOWHERE, _TRAIN, _VAL = -1, 0, 1

Sides = NDArray[np.int8]


class Earlier:
    """The sides of the version before. Of a content that was on two of them the last one counts."""

    def __init__(self, hashes: Digests, in_val: NDArray[np.bool_]) -> None:
        self._found = Lookup(hashes[::-1])
        self._sides = np.append(np.where(in_val[::-1], _VAL, _TRAIN), _NOWHERE).astype(np.int8)

    def of(self, hashes: Digests) -> Sides:
        return self._sides[self._found.find(hashes)]


NOTHING_EARLIER = Earlier(digests([]), np.zeros(0, dtype=bool))


def assign(
    images: Sequence[Checked], earlier: Earlier = NOTHING_EARLIER, sets: Sequence[str | None] = ()
) -> tuple[list[Split], Literal["folders", "hash"]]:
    """The split of each image, and who said so.

    sets            label of each image: what stays together
    """
    columns = Images.of(images)
    splits = list(columns.files.columns["split"])
    given = set(splits)
    if None not in given and not ("train" in given and "val" not in given):
        return splits, "folders"
    divided = np.flatnonzero([split in (None, "train") for split in splits])
    in_val = by_hash(
        columns.verdicts.hashes("sha256")[divided],
        columns.files.columns["class_name"].take(divided),
        earlier,
        Words.of_values(sets or [None] * len(splits)).take(divided),
    )
    for at, is_val in zip(divided.tolist(), in_val.tolist(), strict=True):
        splits[at] = "val" if is_val else "train"
    return splits, "hash"


def by_hash(hashes: Digests, classes: Words, earlier: Earlier, sets: Words) -> NDArray[np.bool_]:
    """Whether each image is for `val`; else it is for `train`.

    A class of two contents or more has one of each at least, unless they are all of one set.
    Content found in two classes counts in the first.
    """
    contents, first, which = distinct(hashes)
    unit_of, before = _units(contents, sets.take(first), earlier.of(contents))
    names = classes.words
    division = _Division(unit_of, classes.array()[first], len(names), before)
    contents_of = np.bincount(classes.array()[first], minlength=len(names))
    in_order = sorted(np.flatnonzero(contents_of).tolist(), key=names.__getitem__)
    for a_class in in_order:
        division.give_train(a_class)
    for a_class in in_order:  # afterwards: what `train` needs, another class may have had in `val`
        if contents_of[a_class] > 1:
            division.give_val(a_class)
    return division.in_val()[unit_of][which]


def _units(contents: Digests, sets: Words, before: Sides) -> tuple[Indices, Sides]:
    """Which unit each content is of, numbered in the order of the draw; and on which side each unit was.

    A unit stays together: it is one content, or a set. Near copies that were on two sides stay where they were.
    """
    codes, labels = sets.array(), sets.words
    trained, measured = (
        np.bincount(codes, weights=before == side, minlength=len(labels)) for side in (_TRAIN, _VAL)
    )
    is_near = np.array([label is not None and label.startswith(NEAR) for label in labels], dtype=bool)
    is_apart = np.array([label is None for label in labels], dtype=bool)
    is_torn = is_near & (trained > 0) & (measured > 0)
    alone, torn = (is_apart | is_torn)[codes], is_torn[codes]
    sides = np.where(measured + trained == 0, _NOWHERE, np.where(measured >= trained, _VAL, _TRAIN))
    before = np.where(alone, np.where(torn & (before == _NOWHERE), _TRAIN, before), sides[codes])
    present, first = np.unique(codes, return_index=True)
    first_of = np.zeros(len(labels), dtype=np.int64)
    first_of[present] = first
    heads, unit_of = np.unique(np.where(alone, np.arange(len(codes)), first_of[codes]), return_inverse=True)
    lots = np.fromiter(map(_lot, Hashes.of(contents[heads])), dtype=contents.dtype, count=len(heads))
    draw = ordered(lots)
    rank = np.empty_like(draw)
    rank[draw] = np.arange(len(draw))
    return rank[unit_of], before[heads[draw]].astype(np.int8)


class _Division:
    """Units on their way to one side or the other. There may be a million, so they are numbers, as classes are."""

    def __init__(self, unit_of: Indices, class_of: NDArray[np.int32], classes: int, before: Sides) -> None:
        """`unit_of` and `class_of` each content; `before`: the side where each unit was."""
        cells, counts = np.unique(unit_of * max(1, classes) + class_of, return_counts=True)
        units, held = np.divmod(cells, max(1, classes))
        self._sizes = np.bincount(unit_of, minlength=len(before))
        self._units, self._by_class = units, np.argsort(held, kind="stable")
        self._class_begins = np.searchsorted(held[self._by_class], np.arange(classes + 1))
        self._begins = _compact(np.searchsorted(units, np.arange(len(before) + 1)))
        self._classes, self._counts = _compact(held), _compact(counts)
        self._val = bytearray((before == _VAL).tobytes())
        total = np.bincount(class_of, minlength=classes)
        taken = np.bincount(held, weights=counts * (before[units] == _VAL), minlength=classes).astype(int)
        wanted = [max(1, round(n * VAL_SHARE)) if n > 1 else 0 for n in total.tolist()]
        # Of each class: how many contents `val` still lacks.
        self._left = [n - had for n, had in zip(wanted, taken.tolist(), strict=True)]
        for unit in _compact(np.flatnonzero(before == _NOWHERE)):
            self._take_if_gain(unit)
        sides = self.in_val()[units]
        self._on = [np.bincount(held[sides == side], minlength=classes).tolist() for side in (False, True)]

    def in_val(self) -> NDArray[np.bool_]:
        return np.array(self._val, dtype=bool)

    def give_val(self, a_class: int) -> None:
        """A class that has none in `val`, because all it had there is gone or its sets are large, gets some."""
        if not self._on[_VAL][a_class]:
            movable = [unit for unit in self._holding(a_class) if self._leaves(unit, _TRAIN)]
            if movable:
                self._move(min(movable, key=self._sizes.__getitem__))  # the first drawn of the smallest

    def give_train(self, a_class: int) -> None:
        """A class that has none in `train` gets some, even if that leaves none for `val`: it must be learnt."""
        if not self._on[_TRAIN][a_class]:
            last = reversed(self._holding(a_class))
            self._move(min(last, key=lambda unit: (not self._leaves(unit, _VAL), self._sizes[unit])))

    def _holding(self, a_class: int) -> list[int]:
        """The units with contents of this class."""
        start, end = self._class_begins[a_class : a_class + 2]
        found: list[int] = self._units[self._by_class[start:end]].tolist()
        return found

    def _cells(self, unit: int) -> Iterator[tuple[int, int]]:
        """Its classes, and how many contents of each it has."""
        cells = slice(self._begins[unit], self._begins[unit + 1])
        return zip(self._classes[cells], self._counts[cells], strict=True)

    def _take_if_gain(self, unit: int) -> None:
        """Into `val`, where that is then nearer to its share of each class."""
        left = self._left
        if sum(abs(left[c]) - abs(left[c] - n) for c, n in self._cells(unit)) > 0:
            self._val[unit] = True
            for c, n in self._cells(unit):
                left[c] -= n

    def _leaves(self, unit: int, side: int) -> bool:
        """Whether each class of this unit, which is on that side, has another one there."""
        return all(self._on[side][c] > 1 for c, _ in self._cells(unit))

    def _move(self, unit: int) -> None:
        """To the other side."""
        side = self._val[unit]
        self._val[unit] = not side
        for c, _ in self._cells(unit):
            self._on[side][c] -= 1
            self._on[not side][c] += 1


def _compact(numbers: Indices) -> array[int]:
    """Quick to look at one by one."""
    found = array("q")
    found.frombytes(numbers.astype(np.int64).tobytes())
    return found


def _lot(sha256: str) -> bytes:
    """Drawn from the content, yet unrelated to its hash's order."""
    return hashlib.sha256(b"tlvm split 1 " + sha256.encode()).digest()
