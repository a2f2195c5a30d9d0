"""Images on two sides of a split that should be on one: equal, near copies, or of one patient, slide or video."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from orchestrator.datasets.checks.near import Near
from orchestrator.datasets.columns.hashes import Digests, digests, distinct
from orchestrator.datasets.columns.images import IMAGES
from orchestrator.datasets.columns.rows import Rows
from orchestrator.datasets.splits.together import GROUPED
from orchestrator.errors import DataError
from remote.contract.dataset_manifest import Image, Split
from remote.contract.wording import count, listed_in_lines

Kind = Literal["equal", "near", "perhaps", "group"]
_LISTED = 20
_TOLD: Mapping[Kind, str] = {
    "equal": "is equal to",
    "near": "is a near copy of",
    "perhaps": "may be a near copy of",
    "group": "is of the same group as",
}
_ORDER: Mapping[Split, int] = {"train": 0, "val": 1, "test": 2}  # of two, the later one measures


@dataclass(frozen=True)
class Leak:
    path: str
    other: str  # an image that measures
    kind: Kind
    error: float | None  # of near copies, in deviations of their pixels at 32 × 32; below 0.03 is confirmed
    left_out: bool  # `path` is left out of training

    @property
    def told(self) -> str:
        return _TOLD[self.kind]


def leaks(images: Sequence[Image], near: Near) -> list[Leak]:
    """Everything that is on two sides, by path; a group once, however many images it has there.

    images          of a manifest, with what is left out marked
    """
    found = {(leak.path, leak.other): leak for leak in _all(IMAGES.rows(images), near)}
    return sorted(found.values(), key=lambda leak: (leak.path, leak.other))


def require_none(name: str, found: Sequence[Leak]) -> None:
    """DataError for a user who wants a dataset without leaks (`--strict`). Mere suspicion does not count."""
    sure = [leak for leak in found if leak.kind != "perhaps"]
    if sure:
        images = {leak.path for leak in sure}
        raise DataError(
            f"{count(len(images), 'image')} of {name} on two sides of the split",
            detail=listed_in_lines(sure, _LISTED, lambda leak: f"{leak.path} {leak.told} {leak.other}"),
            next="Remove one of each pair; or leave --strict away: copies in train are then left out of training.",
        )


def _all(images: Rows[Image], near: Near) -> Iterator[Leak]:
    """The weaker kinds first: of two leaks between the same images the stronger one stays."""
    codes, groups = images.codes("group")
    asked = [group is not None and group.startswith(GROUPED) for group in groups]
    if any(asked):
        some = np.flatnonzero(np.array(asked)[codes])
        for members in _crossed(images.take(some), codes[some]).values():
            yield from list(_crossing(members, "group", None))[:1]
    hashes = images.hashes("sha256")
    if len(near.same) or near.pairs:
        yield from _near(images, hashes, near)
    for members in _crossed(images, distinct(hashes)[2]).values():
        yield from _crossing(members, "equal", None)


def _near(images: Rows[Image], hashes: Digests, near: Near) -> Iterator[Leak]:
    ends = digests(sha256 for pair in near.pairs for sha256 in (pair.one, pair.other))
    standing = distinct(np.concatenate([near.same.of(hashes), ends]))[2]
    stands, paired = np.split(standing, [len(images)])
    alike = _crossed(images, stands, also=np.isin(stands, paired))
    for pair, one_end, other_end in zip(near.pairs, paired[::2].tolist(), paired[1::2].tolist(), strict=True):
        kind: Kind = "near" if pair.confirmed else "perhaps"
        for one in alike.get(one_end, []):
            for other in alike.get(other_end, []):
                if one.split != other.split:
                    yield _leak(one, other, kind, pair.error)
    for members in alike.values():
        yield from _crossing(members, "near", 0.0)


def _crossed(
    images: Rows[Image], keys: NDArray[np.integer[Any]], *, also: NDArray[np.bool_] | None = None
) -> dict[int, list[Image]]:
    """The images of each key that is on two sides, and those of `also`: of a million images these are few."""
    sides, _ = images.codes("split")
    found: dict[int, list[Image]] = defaultdict(list)
    if not len(images):
        return found
    order = np.argsort(keys, kind="stable")
    starts = np.flatnonzero(np.diff(keys[order], prepend=-1))
    least = np.minimum.reduceat(sides[order], starts)
    most = np.maximum.reduceat(sides[order], starts)
    wanted = np.isin(keys, keys[order[starts[least != most]]])
    for at in np.flatnonzero(wanted if also is None else wanted | also).tolist():
        found[int(keys[at])].append(images[at])
    return found


def _crossing(members: Sequence[Image], kind: Kind, error: float | None) -> Iterator[Leak]:
    """Each member with the first one of the last split, if that is another."""
    last = min(members, key=lambda image: (-_ORDER[image.split], image.path))
    for image in members:
        if image.split != last.split:
            yield _leak(image, last, kind, error)


def _leak(one: Image, other: Image, kind: Kind, error: float | None) -> Leak:
    image, measuring = sorted((one, other), key=lambda image: _ORDER[image.split])
    return Leak(image.path, measuring.path, kind, error, left_out=image.excluded is not None)
