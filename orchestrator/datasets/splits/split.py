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
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import compress
from typing import Literal

from orchestrator.datasets.checks.checked import Checked, Images
from orchestrator.datasets.splits.together import NEAR
from remote.contract.dataset_manifest import Split

VAL_SHARE = 0.2
_NO_SETS: Mapping[str, str] = {}


def assign(
    images: Sequence[Checked], earlier: Mapping[str, Split], sets: Sequence[str | None] = ()
) -> tuple[list[Split], Literal["folders", "hash"]]:
    """The split of each image, and who said so.

    earlier         split by content hash, as the version before had it
    sets            label of each image: what stays together
    """
    columns = Images.of(images)
    splits = list(columns.files.columns["split"])
    given = set(splits)
    if None not in given and not ("train" in given and "val" not in given):
        return splits, "folders"
    hashes = list(columns.verdicts.columns["sha256"])
    classes = columns.files.columns["class_name"]
    divided = [split in (None, "train") for split in splits]
    side = by_hash(
        list(compress(zip(hashes, classes, strict=True), divided)),
        earlier,
        {sha256: label for sha256, label in zip(hashes, sets, strict=False) if label is not None},
    )
    return [
        side[sha256] if is_divided else split
        for sha256, split, is_divided in zip(hashes, splits, divided, strict=True)
    ], "hash"


def by_hash(
    labelled: Sequence[tuple[str, str]], earlier: Mapping[str, Split], sets: Mapping[str, str] = _NO_SETS
) -> dict[str, Split]:
    """`train` or `val` of each content, from (sha256, class) pairs.

    A class of two contents or more has one of each at least, unless they are all of one set.
    Content found in two classes counts in the first.
    """
    classes = dict(reversed(labelled))
    division = _Division(sorted(_units(classes, earlier, sets), key=lambda unit: unit.lot), classes)
    sizes = sorted(Counter(classes.values()).items())
    for class_name, _ in sizes:
        division.give_train(class_name)
    for class_name, contents in sizes:  # afterwards: what `train` needs, another class may have had in `val`
        if contents > 1:
            division.give_val(class_name)
    return {sha256: side for unit, side in division.sides() for sha256 in unit.contents}


@dataclass(frozen=True, slots=True, eq=False)
class _Unit:
    """Contents that stay together: one, or a set. There may be a million."""

    lot: bytes  # its place in the draw
    contents: tuple[str, ...]
    earlier: Split | None


def _units(
    classes: Mapping[str, str], earlier: Mapping[str, Split], sets: Mapping[str, str]
) -> Iterable[_Unit]:
    together: dict[str, list[str]] = defaultdict(list)
    for sha256 in classes:
        if sha256 in sets:
            together[sets[sha256]].append(sha256)
        else:
            yield _Unit(_lot(sha256), (sha256,), earlier.get(sha256))
    for label, contents in together.items():
        before = Counter(earlier[sha256] for sha256 in contents if sha256 in earlier)
        if len(before) > 1 and label.startswith(NEAR):
            for sha256 in contents:
                yield _Unit(_lot(sha256), (sha256,), earlier.get(sha256, "train"))
        else:
            side = max(before.items(), key=lambda item: (item[1], item[0]))[0] if before else None
            yield _Unit(_lot(min(contents)), tuple(contents), side)


class _Division:
    """Units on their way to one side or the other; `units` in the order of the draw."""

    def __init__(self, units: Sequence[_Unit], classes: Mapping[str, str]) -> None:
        self._units = units
        self._classes = classes
        self._val = {unit for unit in units if unit.earlier == "val"}
        self._holding: dict[str, list[_Unit]] = defaultdict(list)
        for unit in units:
            for class_name in self._counts(unit):
                self._holding[class_name].append(unit)
        self._left = {  # how many of each class `val` still lacks
            name: max(1, round(n * VAL_SHARE)) if n > 1 else 0
            for name, n in Counter(classes.values()).items()
        }
        for unit in self._val:
            self._take(unit)
        for unit in units:
            if unit.earlier is None and self._is_gain(unit):
                self._val.add(unit)
                self._take(unit)

    def sides(self) -> Iterable[tuple[_Unit, Split]]:
        for unit in self._units:
            yield unit, "val" if unit in self._val else "train"

    def give_val(self, class_name: str) -> None:
        """A class that has none in `val`, because all it had there is gone or its sets are large, gets some."""
        holding = self._holding[class_name]
        if not any(unit in self._val for unit in holding):
            movable = [unit for unit in holding if self._leaves(unit, in_val=False)]
            if movable:
                self._val.add(min(movable, key=_size))  # the first drawn of the smallest

    def give_train(self, class_name: str) -> None:
        """A class that has none in `train` gets some, even if that leaves none for `val`: it must be learnt."""
        holding = self._holding[class_name]
        if all(unit in self._val for unit in holding):
            last = reversed(holding)
            self._val.discard(min(last, key=lambda unit: (not self._leaves(unit, in_val=True), _size(unit))))

    def _counts(self, unit: _Unit) -> Mapping[str, int]:
        return Counter(self._classes[sha256] for sha256 in unit.contents)

    def _take(self, unit: _Unit) -> None:
        for class_name, n in self._counts(unit).items():
            self._left[class_name] -= n

    def _is_gain(self, unit: _Unit) -> bool:
        """Whether `val` is nearer to its share of each class with this unit than without."""
        left = self._left
        return sum(abs(left[c]) - abs(left[c] - n) for c, n in self._counts(unit).items()) > 0

    def _leaves(self, unit: _Unit, *, in_val: bool) -> bool:
        """Whether each class of this unit has another one on its side."""
        return all(
            any((other in self._val) is in_val for other in self._holding[c] if other is not unit)
            for c in self._counts(unit)
        )


def _size(unit: _Unit) -> int:
    return len(unit.contents)


def _lot(sha256: str) -> bytes:
    """Drawn from the content, yet unrelated to its hash's order."""
    return hashlib.sha256(b"tlvm split 1 " + sha256.encode()).digest()
