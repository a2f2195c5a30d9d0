"""Do names or folders hide groups? Several images of one patient or one burst make a figure better than it is.

Where the manifest names no groups, those that the paths suggest are tried: the folder below the class, and the name up
to its last number. The nearest neighbour of a train image, by features, tells its class; how much worse it does when
its own suspected group is out of bounds, beyond what the loss of as many images of its class costs, is the gap.
"""

from __future__ import annotations

import posixpath
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from remote.contract.dataset_manifest import Image
from remote.measures.evaluation import Labels

GAP = 0.05  # of the accuracy, beyond which it is said loudly
_ERRORS = 3.0  # standard errors that a gap has to have, too
_IMAGES_MAX = 4_000  # of which the neighbours are looked for
_BLOCK = 512  # rows at once
_NUMBER = re.compile(r"[\W_]*\d+[^\d]*$")  # the last number of a name and what follows it


@dataclass(frozen=True)
class Suspicion:
    """One way in which the paths suggest groups, and what the features say to it."""

    by: str  # "folder" or "name"
    groups: int
    example: str
    with_own: float  # accuracy of the nearest neighbour of all
    without_own: float  # ... of those outside of the own suspected group
    by_chance: float  # ... where as many images of the same class are left out, by lot
    n: int

    @property
    def gap(self) -> float:
        return self.by_chance - self.without_own

    @property
    def large(self) -> bool:
        error = (
            max(self.gap, 1 / self.n) / self.n
        ) ** 0.5  # of a share of images that change their neighbour's class
        return self.gap > GAP and self.gap > _ERRORS * error

    @property
    def text(self) -> str:
        return (
            f"The {self.by}s look like groups ({self.groups}, such as {self.example!r}): the nearest neighbour tells the "
            f"class of {self.with_own:.1%} of train images, and of {self.without_own:.1%} outside of the own group "
            f"({self.by_chance:.1%} if it were no group). Figures may be too good: upload with --group-by"
        )


def suspicions(
    features: NDArray[np.float32], labels: Labels, images: Sequence[Image], *, seed: int
) -> list[Suspicion]:
    """What each way of grouping says; nothing where the manifest has groups or the paths suggest none.

    features    (n, width), of images of train, each once
    """
    if any(image.group is not None for image in images):
        return []
    kept = np.sort(np.random.default_rng(seed).permutation(len(images))[:_IMAGES_MAX])
    labels, chosen = labels[kept], [images[row] for row in kept]
    found = []
    similarity = _similarity(features[kept])
    for by, names in _suggested(chosen).items():
        sizes: dict[str, int] = defaultdict(int)
        for name in names:
            sizes[name] += 1
        several = [name for name, size in sizes.items() if size > 1]
        if len(several) < 2 or 2 * sum(sizes[name] for name in several) < len(names):
            continue  # most images stand alone
        own = np.unique(names, return_inverse=True)[1]
        judges = _judges(own, labels)
        if 2 * judges.sum() < len(labels):
            continue
        found.append(
            Suspicion(
                by=by,
                groups=len(sizes),
                example=several[0],
                with_own=_accuracy(similarity, labels, np.arange(len(labels)), judges),
                without_own=_accuracy(similarity, labels, own, judges),
                by_chance=_accuracy(similarity, labels, _shuffled(own, labels, seed), judges),
                n=int(judges.sum()),
            )
        )
    return found


def _suggested(images: Sequence[Image]) -> dict[str, list[str]]:
    """For each way, the group of each image. A group has one class: what is in another folder is another thing."""
    folders, names = [], []
    for image in images:
        folder, file = posixpath.split(image.path)
        stem = posixpath.splitext(file)[0]
        folders.append(folder)
        names.append(f"{folder}/{_NUMBER.sub('', stem)}" if _NUMBER.sub("", stem) else f"{folder}/{stem}")
    # A class is no group of its own: there must be several in most classes.
    classes = len({image.class_name for image in images})
    return {
        by: found for by, found in (("folder", folders), ("name", names)) if len(set(found)) >= 2 * classes
    }


def _similarity(features: NDArray[np.float32]) -> torch.Tensor:
    """Cosine, (n, n), after each feature was standardised."""
    values = torch.from_numpy(features).float()
    std = values.std(0, correction=0)
    values = (values - values.mean(0)) / torch.where(std > 0, std, torch.ones_like(std))
    values = torch.nn.functional.normalize(values, dim=1)
    return values @ values.T


def _judges(own: NDArray[np.int64], labels: Labels) -> NDArray[np.bool_]:
    """The images whose class has as many outside of their group as inside: else nothing near could be left."""
    inside = (np.bincount(own)[own]).astype(np.int64)
    judges: NDArray[np.bool_] = 2 * inside <= np.bincount(labels)[labels]
    return judges


def _accuracy(
    similarity: torch.Tensor, labels: Labels, own: NDArray[np.int64], judges: NDArray[np.bool_]
) -> float:
    """How often the nearest image outside of the own group has the same class, among the images that judge."""
    groups, right = torch.from_numpy(own), 0
    for start in range(0, len(own), _BLOCK):
        rows = slice(start, start + _BLOCK)
        near = similarity[rows].masked_fill(groups[rows, None] == groups, -2.0).argmax(1).numpy()
        right += int(((labels[near] == labels[rows]) & judges[rows]).sum())
    return right / int(judges.sum())


def _shuffled(own: NDArray[np.int64], labels: Labels, seed: int) -> NDArray[np.int64]:
    """The same groups, dealt out by lot among the images of each class."""
    generator = np.random.default_rng(seed)
    result: NDArray[np.int64] = own.copy()
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        result[rows] = own[generator.permutation(rows)]
    return result
