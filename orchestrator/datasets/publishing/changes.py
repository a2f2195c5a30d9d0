"""What a version changes against the one before."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from orchestrator.datasets.columns.column import Indices
from orchestrator.datasets.columns.rows import Rows
from orchestrator.datasets.columns.texts import Texts
from remote.contract.dataset_manifest import Image


@dataclass(frozen=True)
class Changes:
    """Images, each counted once in the first four; the next two are of those that were there before."""

    added: int
    changed: int
    moved: int
    removed: int
    relabelled: int  # of another class
    resplit: int  # on another side
    gone: Texts  # paths that only the version before has


def changes(images: Rows[Image], before: Rows[Image], same: Indices, gone: Indices) -> Changes:
    """A path that is new and holds what another path lost was moved.

    same            the place of each path in the version before, -1 where it has none
    gone            places of those whose path is no more
    """
    new = np.flatnonzero(same < 0)
    held = np.flatnonzero(same >= 0)
    changed = images.hashes("sha256")[held] != before.hashes("sha256")[same[held]]
    moved = _shared(images, new, before, gone, "sha256")
    relabelled, resplit = (
        int(_differ(images, held, before, same[held], name).sum())
        + (moved - _shared(images, new, before, gone, "sha256", name) if moved else 0)
        for name in ("class_name", "split")
    )
    paths: Texts = before.columns["path"].take(gone)
    return Changes(len(new) - moved, int(changed.sum()), moved, len(gone) - moved, relabelled, resplit, paths)


def _shared(images: Rows[Image], new: Indices, before: Rows[Image], gone: Indices, *names: str) -> int:
    """How many of the new ones agree in these fields with one that is gone."""
    if not len(new) or not len(gone):
        return 0
    return (Counter(before.picked(gone, *names)) & Counter(images.picked(new, *names))).total()


def _differ(
    images: Rows[Image], at: Indices, before: Rows[Image], earlier: Indices, name: str
) -> NDArray[np.bool_]:
    """Which of these have another word than their earlier selves."""
    codes, words = images.codes(name)
    codes_before, words_before = before.codes(name)
    code_of = {word: code for code, word in enumerate(words)}
    same = np.array([code_of.get(word, -1) for word in words_before], dtype=np.int32)
    return np.not_equal(codes[at], same[codes_before[earlier]])
