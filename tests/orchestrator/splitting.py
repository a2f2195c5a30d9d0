"""The split by hash, as the tests name its parts: by content."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from orchestrator.datasets.columns.hashes import digests
from orchestrator.datasets.columns.words import Words
from orchestrator.datasets.splits.split import Earlier, by_hash
from remote.contract.dataset_manifest import Split

_NO_SETS: Mapping[str, str] = {}


def sides_of(
    labelled: Sequence[tuple[str, str]], before: Mapping[str, Split], sets: Mapping[str, str] = _NO_SETS
) -> dict[str, Split]:
    """The side of each content, of pairs of content and class; `sets` says what stays together."""
    contents = [sha256 for sha256, _ in labelled]
    in_val = by_hash(
        digests(contents),
        Words.of_values([class_name for _, class_name in labelled]),
        earlier(before),
        Words.of_values([sets.get(sha256) for sha256 in contents]),
    )
    return {sha256: "val" if is_val else "train" for sha256, is_val in zip(contents, in_val, strict=True)}


def earlier(sides: Mapping[str, Split]) -> Earlier:
    return Earlier(digests(sides), np.array([side == "val" for side in sides.values()], dtype=bool))
