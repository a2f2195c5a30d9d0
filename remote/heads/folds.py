"""Parts of train that steer a choice while the rest trains: stratified, and a function of the images' content.

What belongs together stays together: the images of one group (a patient, a slide), and equal files.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from remote.contract.dataset_manifest import Image

NEVER = -1


def folds(images: Sequence[Image], *, most: int, seed: int) -> NDArray[np.int64]:
    """The fold in which each image is held out, from 0; NEVER for a class that has nothing to spare.

    As many folds as `most`, or as there are images (or groups). A class with fewer is missing in some of them, and in
    every training part: two of its images never share a fold. One with a single image is held out nowhere.
    """
    units = _units(images)
    sizes = Counter(label for label, _ in units.values())
    count = min(most, sum(size for size in sizes.values() if size > 1))
    result = np.full(len(images), NEVER, dtype=np.int64)
    dealt = 0
    for label, size in sorted(sizes.items()):
        for key in _shuffled([key for key, (own, _) in units.items() if own == label and size > 1], seed):
            result[units[key][1]] = dealt % count
            dealt += 1
    return result


def holdout(images: Sequence[Image], *, share: float, seed: int) -> NDArray[np.bool_]:
    """Which images are held out: about this share of each class, at least one, of a class with two or more."""
    units = _units(images)
    by_class: dict[str, list[str]] = defaultdict(list)
    for key, (label, _) in units.items():
        by_class[label].append(key)
    result = np.zeros(len(images), dtype=np.bool_)
    for keys in by_class.values():
        count = min(len(keys) - 1, max(1, round(share * len(keys))))
        for key in _shuffled(keys, seed)[:count]:
            result[units[key][1]] = True
    return result


def _units(images: Sequence[Image]) -> dict[str, tuple[str, list[int]]]:
    """What is dealt out: by group or content, the class (a group's most frequent one) and the images' indices."""
    members: dict[str, list[int]] = defaultdict(list)
    for index, image in enumerate(images):
        members[f"group {image.group}" if image.group is not None else image.sha256].append(index)
    return {
        key: (Counter(images[i].class_name for i in indices).most_common(1)[0][0], indices)
        for key, indices in members.items()
    }


def _shuffled(keys: Sequence[str], seed: int) -> list[str]:
    """In an order that depends on each key and the seed alone: more images do not reorder the others."""
    return sorted(keys, key=lambda key: hashlib.sha256(f"{seed} {key}".encode()).digest())
