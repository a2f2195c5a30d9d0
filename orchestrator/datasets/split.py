"""Which image is for training and which for measuring.

* Folders `train` and `val` (and `test`) are taken as they are.
* Without split folders, a fifth of each class becomes `val`.
* With `train` alone, or `train` and `test`, a fifth of each class of `train` becomes `val`: every dataset has images
  that may steer a training, and a `test` that was given is never touched for that.

The fifth is chosen by a hash of the content, class by class, so equal images stay on one side. What an earlier
version decided stays as it was when images are added or renamed.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Literal

from remote.contract.dataset_manifest import Split

from .check import Checked

VAL_SHARE = 0.2


def assign(
    images: Sequence[Checked], earlier: Mapping[str, Split]
) -> tuple[list[Split], Literal["folders", "hash"]]:
    """The split of each image, and who said so.

    earlier         split by content hash, as the version before had it
    """
    given = {image.file.split for image in images}
    if None not in given and not ("train" in given and "val" not in given):
        return [image.file.split or "train" for image in images], "folders"
    divided = [image for image in images if image.file.split in (None, "train")]
    side = by_hash([(image.verdict.sha256, image.file.class_name) for image in divided], earlier)
    return [
        side[image.verdict.sha256] if image.file.split in (None, "train") else image.file.split
        for image in images
    ], "hash"


def by_hash(labelled: Sequence[tuple[str, str]], earlier: Mapping[str, Split]) -> dict[str, Split]:
    """`train` or `val` of each content, from (sha256, class) pairs.

    A class of two contents or more has one of each at least. Content found in two classes counts in the first.
    """
    classes: dict[str, list[str]] = defaultdict(list)
    for sha256, class_name in dict(reversed(labelled)).items():
        classes[class_name].append(sha256)
    sides: dict[str, Split] = {}
    for contents in classes.values():
        ordered = sorted(contents, key=_lot)
        val = _val(ordered, earlier)
        sides.update((sha256, "val" if sha256 in val else "train") for sha256 in ordered)
    return sides


def _val(ordered: list[str], earlier: Mapping[str, Split]) -> set[str]:
    wanted = max(1, round(len(ordered) * VAL_SHARE)) if len(ordered) > 1 else 0
    val = {sha256 for sha256 in ordered if earlier.get(sha256) == "val"}
    new = [sha256 for sha256 in ordered if earlier.get(sha256) not in ("train", "val")]
    val.update(new[: max(0, wanted - len(val))])
    if wanted and not val:
        val.add(ordered[0])  # all that was in val is gone
    if len(val) == len(ordered):
        val.discard(ordered[-1])  # all that was in train is gone
    return val


def _lot(sha256: str) -> str:
    """Drawn from the content, yet unrelated to its hash's order."""
    return hashlib.sha256(b"tlvm split 1 " + sha256.encode()).hexdigest()
